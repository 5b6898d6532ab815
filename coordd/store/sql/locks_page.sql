SELECT * FROM locks
WHERE token > :after AND (:worker = '' OR worker = :worker)
ORDER BY token
LIMIT :size
