-- How did the network judge the transactions?
SELECT v.name AS "validation code", v.reason AS "in words", count(*) AS transactions
FROM ledger_transaction t JOIN ledger_validation_code v ON v.code = t.validation_code
GROUP BY v.code
ORDER BY transactions DESC, v.code
