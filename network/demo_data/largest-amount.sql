-- What would be worth forging? The largest amount, in cents, and where the chain holds it.
SELECT h.kvr_block_number AS block, h.id AS request, h.customer, h.amount_cents AS amount, l.value AS document
FROM service_requests_history h
JOIN ledger_key_history l ON l.key_id = h.kvr_key_id AND l.block_number = h.kvr_block_number
                         AND l.tx_number = h.kvr_tx_number AND l.write_number = h.kvr_write_number
WHERE h.amount_cents IS NOT NULL
ORDER BY h.amount_cents DESC, h.kvr_block_number
LIMIT 1
