-- What is in the database now?
SELECT c.channel, c.block_number AS "last block", count(*) AS blocks,
       sum(b.transaction_count) AS transactions,
       sum(b.commit_hash_verified) AS "commit hashes verified", c.anchor
FROM ledger_block b CROSS JOIN ledger_checkpoint c
GROUP BY c.channel
