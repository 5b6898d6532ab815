-- Format 1. A table per kind of record, columns in the order in which the record writes itself.
-- Times (granted_at, at, ...) are INTEGER nanoseconds since 1970-01-01 UTC; names ending in _ns are lengths.
-- To read one:  SELECT datetime(granted_at / 1000000000, 'unixepoch'), * FROM locks;

-- 'cord' in ASCII: what tells our files from others.
PRAGMA application_id = 0x636f7264;

-- One row: the marks of the last committed batch.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    instant INTEGER NOT NULL,
    last_id INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0);

-- Held locks.
CREATE TABLE locks (
    token INTEGER PRIMARY KEY,
    item TEXT NOT NULL,
    kind TEXT NOT NULL,
    worker TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ttl_ns INTEGER NOT NULL,
    request_id TEXT NOT NULL
) STRICT;

-- The history: how each lock ended. outcome: 1 success, 2 failure, 3 unknown. ended_by: 0 release, 1 expiry, 2 force.
CREATE TABLE engagements (
    token INTEGER PRIMARY KEY,
    item TEXT NOT NULL,
    kind TEXT NOT NULL,
    worker TEXT NOT NULL,
    outcome INTEGER NOT NULL,
    at INTEGER NOT NULL,
    granted_at INTEGER NOT NULL,
    ended_by INTEGER NOT NULL,
    request_id TEXT NOT NULL
) STRICT;
CREATE INDEX engagements_by_item ON engagements (item, at);
CREATE INDEX engagements_by_time ON engagements (at);

-- Held resources and units. is_refilling: the units are counted in windows and do not come back.
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    pool TEXT NOT NULL,
    units INTEGER NOT NULL,
    worker TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ttl_ns INTEGER NOT NULL,
    is_refilling INTEGER NOT NULL,
    request_id TEXT NOT NULL
) STRICT;

-- Permits not yet settled.
CREATE TABLE permits (
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    worker TEXT NOT NULL,
    count INTEGER NOT NULL,
    granted_at INTEGER NOT NULL,
    use_by INTEGER NOT NULL,
    request_id TEXT NOT NULL
) STRICT;

-- Calls promised for a later time and not yet claimed.
CREATE TABLE bookings (
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    worker TEXT NOT NULL,
    count INTEGER NOT NULL,
    booked_at INTEGER NOT NULL,
    execute_at INTEGER NOT NULL,
    claim_until INTEGER NOT NULL,
    use_by INTEGER NOT NULL,
    request_id TEXT NOT NULL
) STRICT;

-- What each worker is charged in each bucket of each rolling window of each limit.
CREATE TABLE cells (
    limit_name TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    worker TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (limit_name, window_ns, bucket, worker)
) STRICT, WITHOUT ROWID;

-- Who waits, smallest order_ns first. command: JSON of the request that waits.
CREATE TABLE waiters (
    id INTEGER PRIMARY KEY,
    order_ns INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    times_out_at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    request_id TEXT NOT NULL,
    component TEXT NOT NULL,
    command TEXT NOT NULL
) STRICT;

-- How long leases are held on average, for estimates of waits.
CREATE TABLE hold_times (
    subject TEXT NOT NULL PRIMARY KEY,
    mean_ns INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What operators have changed. window_ns 0: a pool's capacity.
CREATE TABLE overrides (
    subject TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    value INTEGER NOT NULL,
    configured INTEGER NOT NULL,
    PRIMARY KEY (subject, window_ns)
) STRICT, WITHOUT ROWID;

-- Request ids whose grant is over, remembered for a while.
CREATE TABLE ended_requests (
    worker TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (worker, request_id)
) STRICT, WITHOUT ROWID;
