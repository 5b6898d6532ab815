SELECT * FROM reservations
WHERE id > :after AND (:worker = '' OR worker = :worker) AND (:type = '' OR type = :type)
ORDER BY id
LIMIT :size
