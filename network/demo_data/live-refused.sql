-- Which transactions were refused? They are on the chain for ever, and changed nothing.
SELECT t.block_number AS block, t.tx_number AS tx, strftime('%H:%M:%f', t.claimed_at) AS "time (UTC)",
       i.msp_id AS who, t.function AS "wanted to",
       (SELECT max(h.id) FROM ledger_refused_write w JOIN service_requests_history h ON h.kvr_key_id = w.key_id
        WHERE w.block_number = t.block_number AND w.tx_number = t.tx_number) AS request,
       v.reason AS "refused because"
FROM ledger_transaction t JOIN ledger_validation_code v ON v.code = t.validation_code
LEFT JOIN ledger_identity i ON i.identity_id = t.creator_id
WHERE v.name <> 'VALID'
ORDER BY block, tx
