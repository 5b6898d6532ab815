-- Waiters that wait for nothing that is known, or could never come back.
SELECT id FROM waiters WHERE request_id = '' OR NOT json_valid(command)
OR component NOT IN ('RequestLock', 'ReserveResource', 'TakePermit', 'AcquireBundle');
