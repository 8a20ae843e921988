-- Which requests are still open, by category and region?
SELECT category, location_region AS region, count(*) AS requests, date(min(opened_at)) AS "oldest from",
       sum(status = 'open') AS "not yet assigned"
FROM service_requests
WHERE status NOT IN ('resolved', 'closed')
GROUP BY category, location_region
ORDER BY requests DESC, category, region
