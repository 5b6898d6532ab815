-- Bounded, so that pruning a long history never makes one commit slow; the next batches go on with it.
DELETE FROM engagements
WHERE token IN (SELECT token FROM engagements WHERE at < :before ORDER BY at LIMIT :count)
