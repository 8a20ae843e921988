-- What else would be worth forging? A verdict: the newest refused transaction, and the verdicts of its block.
SELECT t.block_number AS block, t.tx_number AS tx, v.name AS verdict, v.reason AS "in words",
       (SELECT group_concat(code) FROM (SELECT a.validation_code AS code FROM ledger_transaction a
        WHERE a.block_number = t.block_number ORDER BY a.tx_number)) AS verdicts,
       b.commit_hash AS "commit hash"
FROM ledger_transaction t JOIN ledger_validation_code v ON v.code = t.validation_code
JOIN ledger_block b ON b.block_number = t.block_number
WHERE v.name <> 'VALID'
ORDER BY block DESC, tx DESC
LIMIT 1
