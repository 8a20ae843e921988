-- Which customers have the most requests?
SELECT c.id AS customer, c.kind, c.region, count(*) AS requests,
       sum(r.status NOT IN ('resolved', 'closed')) AS "still open",
       group_concat(DISTINCT r.title) AS "about"
FROM customers c JOIN service_requests r ON r.customer = c.id
GROUP BY c.id
ORDER BY requests DESC, customer
LIMIT 5
