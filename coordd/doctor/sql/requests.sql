-- Request ids that stand for two grants or waits at once.
WITH requests (worker, request_id) AS (
    SELECT worker, request_id FROM locks
    UNION ALL SELECT worker, request_id FROM reservations
    UNION ALL SELECT worker, request_id FROM permits
    UNION ALL SELECT worker, request_id FROM bookings
    UNION ALL SELECT worker, request_id FROM bundles
    UNION ALL SELECT worker, request_id FROM waiters
)
SELECT worker || ' ' || request_id FROM requests WHERE request_id != ''
GROUP BY worker, request_id HAVING count(*) > 1;
