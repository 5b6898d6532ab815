-- Ids above the mark of the last one given, or that can't be ids.
WITH ids (what, number) AS (
    SELECT 'lock', token FROM locks
    UNION ALL SELECT 'engagement', token FROM engagements
    UNION ALL SELECT 'reservation', id FROM reservations
    UNION ALL SELECT 'permit', id FROM permits
    UNION ALL SELECT 'booking', id FROM bookings
    UNION ALL SELECT 'waiter', id FROM waiters
    UNION ALL SELECT 'bundle', id FROM bundles
    UNION ALL SELECT 'session', id FROM sessions
    UNION ALL SELECT 'escalation', id FROM escalations
)
SELECT what || ' ' || number FROM ids, meta WHERE number > last_id OR number < 1;
