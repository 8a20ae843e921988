-- Which requests are still open, by department?
SELECT queue AS department, count(*) AS requests, sum(status = 'open') AS "not yet assigned",
       min(priority) AS "most urgent"
FROM service_requests
WHERE status NOT IN ('resolved', 'closed')
GROUP BY queue
ORDER BY requests DESC, queue
