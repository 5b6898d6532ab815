-- Counts and lengths below what they can be.
SELECT 'lock ' || token FROM locks WHERE ttl_ns < 1
UNION ALL SELECT 'reservation ' || id FROM reservations WHERE ttl_ns < 1 OR units < 0
UNION ALL SELECT 'permit ' || id FROM permits WHERE count < 1
UNION ALL SELECT 'booking ' || id FROM bookings WHERE count < 1
UNION ALL SELECT 'charge ' || limit_name || ' ' || bucket FROM cells WHERE count < 1 OR window_ns < 1
UNION ALL SELECT 'hold time ' || subject FROM hold_times WHERE mean_ns < 0 OR count < 0
UNION ALL SELECT 'override ' || subject FROM overrides WHERE value < 0 OR window_ns < 0
UNION ALL SELECT 'learned limit ' || subject FROM learned_limits WHERE value < 0 OR window_ns < 1
UNION ALL SELECT 'foreign usage ' || subject FROM foreign_usages WHERE count < 0 OR window_ns < 1
UNION ALL SELECT 'session ' || worker FROM sessions WHERE ttl_ns < 1 OR weight_milli < 0
UNION ALL SELECT 'capacity ' || pool FROM capacities WHERE capacity_milli < 0;
