-- Records of something later than the last batch: no decision in a batch is.
SELECT 'lock ' || token FROM locks, meta WHERE granted_at > instant
UNION ALL SELECT 'engagement ' || token FROM engagements, meta WHERE at > instant
UNION ALL SELECT 'reservation ' || reservations.id FROM reservations, meta WHERE granted_at > instant
UNION ALL SELECT 'permit ' || permits.id FROM permits, meta WHERE granted_at > instant
UNION ALL SELECT 'booking ' || bookings.id FROM bookings, meta WHERE booked_at > instant
UNION ALL SELECT 'waiter ' || waiters.id FROM waiters, meta WHERE enqueued_at > instant;
