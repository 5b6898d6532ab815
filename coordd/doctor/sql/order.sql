-- Records that end before they begin.
SELECT 'lock ' || token FROM locks WHERE granted_at > expires_at
UNION ALL SELECT 'reservation ' || id FROM reservations WHERE granted_at > expires_at
UNION ALL SELECT 'permit ' || id FROM permits WHERE granted_at > use_by
UNION ALL SELECT 'booking ' || id FROM bookings WHERE booked_at > execute_at OR execute_at > claim_until
UNION ALL SELECT 'waiter ' || id FROM waiters WHERE enqueued_at > times_out_at
UNION ALL SELECT 'session ' || worker FROM sessions WHERE opened_at > expires_at
UNION ALL SELECT 'escalation ' || id FROM escalations WHERE opened_at > decide_by
UNION ALL SELECT 'engagement ' || token FROM engagements WHERE granted_at > at;
