-- A data file of format 2, as a daemon left it. It must open for ever: never edit it, add v3.sql beside it.
PRAGMA application_id = 0x636f7264;
PRAGMA user_version = 2;
BEGIN;
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    instant INTEGER NOT NULL,
    last_id INTEGER NOT NULL
) STRICT;
CREATE TABLE locks (
    token INTEGER PRIMARY KEY,
    item TEXT NOT NULL,
    kind TEXT NOT NULL,
    worker TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ttl_ns INTEGER NOT NULL,
    request_id TEXT NOT NULL
, preempt_at INTEGER NOT NULL DEFAULT 0) STRICT;
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
, preempt_at INTEGER NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 2) STRICT;
CREATE TABLE permits (
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    worker TEXT NOT NULL,
    count INTEGER NOT NULL,
    granted_at INTEGER NOT NULL,
    use_by INTEGER NOT NULL,
    request_id TEXT NOT NULL
, priority INTEGER NOT NULL DEFAULT 2) STRICT;
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
CREATE TABLE cells (
    limit_name TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    worker TEXT NOT NULL,
    count INTEGER NOT NULL, medium INTEGER NOT NULL DEFAULT 0, high INTEGER NOT NULL DEFAULT 0, critical INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (limit_name, window_ns, bucket, worker)
) STRICT, WITHOUT ROWID;
CREATE TABLE waiters (
    id INTEGER PRIMARY KEY,
    order_ns INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    times_out_at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    request_id TEXT NOT NULL,
    component TEXT NOT NULL,
    command TEXT NOT NULL
, escalate_at INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE hold_times (
    subject TEXT NOT NULL PRIMARY KEY,
    mean_ns INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE overrides (
    subject TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    value INTEGER NOT NULL,
    configured INTEGER NOT NULL,
    PRIMARY KEY (subject, window_ns)
) STRICT, WITHOUT ROWID;
CREATE TABLE ended_requests (
    worker TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (worker, request_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY,
    worker TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    members TEXT NOT NULL,
    claims TEXT NOT NULL,
    request_id TEXT NOT NULL
) STRICT;
CREATE TABLE sessions (
    worker TEXT NOT NULL PRIMARY KEY,
    id INTEGER NOT NULL,
    worker_class TEXT NOT NULL,
    weight_milli INTEGER NOT NULL,
    labels TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ttl_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE escalations (
    id INTEGER PRIMARY KEY,
    waiter_id INTEGER NOT NULL,
    subject TEXT NOT NULL,
    worker TEXT NOT NULL,
    priority INTEGER NOT NULL,
    waited_ns INTEGER NOT NULL,
    holder TEXT NOT NULL,
    holder_id INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    decide_by INTEGER NOT NULL,
    decision INTEGER NOT NULL,
    decided_by TEXT NOT NULL
) STRICT;
CREATE TABLE gates (
    endpoint TEXT NOT NULL PRIMARY KEY,
    closed_until INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    struck_at INTEGER NOT NULL,
    struck_id INTEGER NOT NULL,
    probe_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE learned_limits (
    subject TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    value INTEGER NOT NULL,
    configured INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (subject, window_ns)
) STRICT, WITHOUT ROWID;
CREATE TABLE foreign_usages (
    subject TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    count INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (subject, window_ns)
) STRICT, WITHOUT ROWID;
CREATE TABLE efficiencies (
    subject TEXT NOT NULL,
    worker TEXT NOT NULL,
    success_ppm INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (subject, worker)
) STRICT, WITHOUT ROWID;
CREATE TABLE forecasts (
    subject TEXT NOT NULL,
    priority INTEGER NOT NULL,
    level_ppm INTEGER NOT NULL,
    at INTEGER NOT NULL,
    hour_count INTEGER NOT NULL,
    profile TEXT NOT NULL,
    PRIMARY KEY (subject, priority)
) STRICT, WITHOUT ROWID;
CREATE TABLE capacities (
    pool TEXT NOT NULL PRIMARY KEY,
    capacity_milli INTEGER NOT NULL,
    at INTEGER NOT NULL,
    decreased_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES (1, 42, 1760000000000000000, 8);
INSERT INTO locks VALUES (7, 'tweet:7', 'reply', 'w1', 1759999999000000000, 1760000899000000000, 900000000000, 'r7', 0);
INSERT INTO engagements VALUES (1, 'tweet:1', 'like', 'w2', 1, 1759999000000000000, 1759998000000000000, 0, '');
INSERT INTO engagements VALUES (2, 'tweet:2', 'reply', 'w2', 3, 1759999500000000000, 1759998500000000000, 1, 'r2');
INSERT INTO reservations VALUES (3, 'api_quota', 'tweet', 'api_tweets', 2, 'w1', 1759999999000000000, 1760000029000000000, 30000000000, 1, '', 0, 2);
INSERT INTO permits VALUES (4, 'post_tweet', 'w1', 1, 1759999999000000000, 1760000029000000000, 'r4', 2);
INSERT INTO bookings VALUES (5, 'post_tweet', 'w2', 1, 1759999999000000000, 1760000600000000000, 1760000630000000000, 1760000660000000000, 'r5');
INSERT INTO cells VALUES ('post_tweet', 900000000000, 977777778, 'w1', 3, 0, 0, 0);
INSERT INTO waiters VALUES (8, 1759999879000000000, 1759999999000000000, 1760000299000000000, 'w3', 'r8', 'locks', '{"item":"tweet:7","kind":"reply","worker":"w3"}', 0);
INSERT INTO hold_times VALUES ('lock/reply', 2000000000, 12);
INSERT INTO overrides VALUES ('post_tweet', 900000000000, 40, 50);
INSERT INTO ended_requests VALUES ('w2', 'r2', 1759999500000000000);
INSERT INTO bundles VALUES (6, 'w1', 1759999999000000000, '[7,4]', '{"locks":[]}', 'r6');
INSERT INTO sessions VALUES ('w1', 4, 'fast', 2000, '{"zone":"a"}', 1759999000000000000, 1760000030000000000, 30000000000);
INSERT INTO escalations VALUES (2, 8, 'tweet:7', 'w3', 3, 1000000000, 'w1', 7, 1759999999500000000, 1760000059500000000, 0, '');
INSERT INTO gates VALUES ('post_tweet', 1760000010000000000, 2, 1759999999000000000, 5, 0);
INSERT INTO foreign_usages VALUES ('limit/post_tweet', 900000000000, 7, 1760000300000000000);
INSERT INTO learned_limits VALUES ('limit/post_tweet', 900000000000, 25, 50, 1759999999000000000);
INSERT INTO efficiencies VALUES ('limit/post_tweet', 'w1', 970000, 33);
INSERT INTO forecasts VALUES ('limit/post_tweet', 4, 1500000, 1759999990000000000, 12, '[1000000]');
INSERT INTO capacities VALUES ('content_pipeline', 81500, 1759999999000000000, 1759999998000000000);
COMMIT;
