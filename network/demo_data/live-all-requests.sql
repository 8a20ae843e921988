-- Every request with its state.
SELECT id, status FROM service_requests ORDER BY id
