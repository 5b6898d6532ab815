SELECT kind, outcome, count(*) FROM engagements
WHERE at >= :since AND (:worker = '' OR worker = :worker)
GROUP BY kind, outcome
ORDER BY kind, outcome
