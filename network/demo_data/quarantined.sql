-- Which documents were accepted by the network and do not fit the tables? They are kept aside, with the reason.
SELECT q.block_number AS block, i.msp_id AS who, q.table_name AS "for table", q.reason, q.detail,
       substr(CAST(q.value AS TEXT), 1, 32) AS "the document begins"
FROM ledger_quarantine q
JOIN ledger_transaction t ON t.block_number = q.block_number AND t.tx_number = q.tx_number
LEFT JOIN ledger_identity i ON i.identity_id = t.creator_id
ORDER BY q.block_number, q.tx_number, q.write_number
