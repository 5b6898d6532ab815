-- Bounded, so that pruning a long history never makes one commit slow.
DELETE FROM engagements
WHERE token IN (SELECT token FROM engagements WHERE at < :before ORDER BY at LIMIT :count)
