-- Which tags do open requests carry? (a child table: one row for each tag)
SELECT t.tag, count(*) AS requests, min(r.id) AS "for example"
FROM service_request_tags t JOIN service_requests r ON r.kvr_key_id = t.kvr_key_id
WHERE r.status NOT IN ('resolved', 'closed')
GROUP BY t.tag
ORDER BY requests DESC, t.tag
LIMIT 5
