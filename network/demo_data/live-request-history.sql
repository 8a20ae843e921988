-- What happened to that request: who, when, in which block?
SELECT kvr_block_number AS block, strftime('%H:%M:%f', written_at) AS "time (UTC)", kvr_creator_msp_id AS who,
       CASE WHEN lag(status) OVER versions IS NULL THEN 'entered as ' || status
            ELSE 'from ' || lag(status) OVER versions || ' to ' || status END AS "what happened",
       department, resolution, rating
FROM service_requests_history
WHERE kvr_key_id = (SELECT kvr_key_id FROM service_requests WHERE id = :request)
WINDOW versions AS (ORDER BY kvr_block_number, kvr_tx_number, kvr_write_number)
ORDER BY kvr_block_number, kvr_tx_number, kvr_write_number
