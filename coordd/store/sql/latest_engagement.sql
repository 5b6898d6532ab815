SELECT * FROM engagements
WHERE item = :item AND at >= :since
  AND (:kinds = '[]' OR kind IN (SELECT value FROM json_each(:kinds)))
  AND outcome IN (SELECT value FROM json_each(:outcomes))
ORDER BY at DESC, token DESC
LIMIT 1
