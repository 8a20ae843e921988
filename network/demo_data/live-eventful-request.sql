-- Which request was written most often, refused attempts included?
SELECT r.id AS request, r.customer, r.title, r.status,
       (SELECT count(*) FROM service_requests_history h WHERE h.kvr_key_id = r.kvr_key_id) AS versions,
       (SELECT count(*) FROM ledger_refused_write w WHERE w.key_id = r.kvr_key_id) AS refused
FROM service_requests r
ORDER BY versions + refused DESC, request
LIMIT 1
