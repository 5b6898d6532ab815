-- Only the batch after the last one, or that one again: anything else means that a batch is missing.
UPDATE meta SET sequence = :sequence, instant = :instant, last_id = :last_id
WHERE sequence IN (:sequence - 1, :sequence)
