-- How many requests are in each status?
SELECT status, count(*) FROM service_requests GROUP BY status
