-- What happened to that request: who, when, in which block?
SELECT kvr_block_number AS block, strftime('%Y-%m-%d %H:%M:%S', written_at) AS "time (UTC)",
       kvr_creator_msp_id AS who,
       CASE WHEN kvr_kind = 'delete' THEN 'withdrawn'
            WHEN lag(status) OVER versions IS NULL THEN 'entered as ' || status
            WHEN lag(status) OVER versions = status THEN 'written again, still ' || status
            ELSE 'from ' || lag(status) OVER versions || ' to ' || status END AS "what happened",
       department, note, resolution
FROM service_requests_history
WHERE kvr_key_id = (SELECT kvr_key_id FROM service_requests WHERE id = :request)
WINDOW versions AS (ORDER BY kvr_block_number, kvr_tx_number, kvr_write_number)
ORDER BY kvr_block_number, kvr_tx_number, kvr_write_number
