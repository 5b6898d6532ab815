-- Escalations about nobody who waits.
SELECT id FROM escalations WHERE waiter_id NOT IN (SELECT id FROM waiters);
