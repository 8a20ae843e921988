-- Which private profiles are here?
SELECT held_in AS collection, count(*) AS profiles, min(name) AS "a name", max(name) AS "another name"
FROM customer_profiles
GROUP BY held_in
ORDER BY held_in
