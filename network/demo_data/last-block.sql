-- Where does the database of the forged copy stand?
SELECT channel, block_number AS "last block", lower(hex(header_hash)) AS "header hash"
FROM ledger_checkpoint
