-- Leases that have run out by now.
SELECT 'lock ' || token FROM locks WHERE expires_at <= :now
UNION ALL SELECT 'reservation ' || id FROM reservations WHERE expires_at <= :now AND NOT is_refilling;
