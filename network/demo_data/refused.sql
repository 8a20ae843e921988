-- Which transactions were refused? They are on the chain for ever, and changed nothing.
SELECT t.block_number AS block, t.tx_number AS tx, strftime('%H:%M:%S', t.claimed_at) AS "time (UTC)",
       i.msp_id AS who,
       (SELECT max(id) FROM service_requests_history h WHERE h.kvr_key_id = w.key_id) AS "wanted to write",
       CASE WHEN json_valid(CAST(w.value AS TEXT)) THEN json_extract(CAST(w.value AS TEXT), '$.status') END AS status,
       v.reason AS "refused because"
FROM ledger_transaction t JOIN ledger_validation_code v ON v.code = t.validation_code
LEFT JOIN ledger_identity i ON i.identity_id = t.creator_id
LEFT JOIN ledger_refused_write w ON w.block_number = t.block_number AND w.tx_number = t.tx_number
WHERE v.name <> 'VALID'
ORDER BY block, tx
