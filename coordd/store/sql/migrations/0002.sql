-- Format 2: bundles, sessions, escalations, gates, and what is learnt.

-- preempt_at: when it is taken from its holder; 0: it isn't.
ALTER TABLE locks ADD COLUMN preempt_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reservations ADD COLUMN preempt_at INTEGER NOT NULL DEFAULT 0;
-- When somebody is asked about a waiter; 0: never, or somebody is.
ALTER TABLE waiters ADD COLUMN escalate_at INTEGER NOT NULL DEFAULT 0;
-- priority: 1 low, 2 medium, 3 high, 4 critical.
ALTER TABLE reservations ADD COLUMN priority INTEGER NOT NULL DEFAULT 2;
ALTER TABLE permits ADD COLUMN priority INTEGER NOT NULL DEFAULT 2;
-- The parts of `count` by class; the rest is low. All 0 where no class has headroom.
ALTER TABLE cells ADD COLUMN medium INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cells ADD COLUMN high INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cells ADD COLUMN critical INTEGER NOT NULL DEFAULT 0;

-- What was taken together. members: JSON list of ids; claims: JSON of what was asked for.
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY,
    worker TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    members TEXT NOT NULL,
    claims TEXT NOT NULL,
    request_id TEXT NOT NULL
) STRICT;

-- Workers that are there. weight_milli: weight x 1000, 0: as configured. labels: JSON.
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

-- Open conflicts. decision: 0 none yet, 1 grant, 2 deny, 3 preempt, 4 wait.
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

-- Endpoints that upstream has ever refused calls of. closed_until 0: open again.
CREATE TABLE gates (
    endpoint TEXT NOT NULL PRIMARY KEY,
    closed_until INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    struck_at INTEGER NOT NULL,
    struck_id INTEGER NOT NULL,
    probe_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Limits as upstream tells them, where they differ from the configuration.
CREATE TABLE learned_limits (
    subject TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    value INTEGER NOT NULL,
    configured INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (subject, window_ns)
) STRICT, WITHOUT ROWID;

-- What others use of upstream's limits, as its headers tell.
CREATE TABLE foreign_usages (
    subject TEXT NOT NULL,
    window_ns INTEGER NOT NULL,
    count INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (subject, window_ns)
) STRICT, WITHOUT ROWID;

-- How much of each worker's calls succeed, in parts of 10^6.
CREATE TABLE efficiencies (
    subject TEXT NOT NULL,
    worker TEXT NOT NULL,
    success_ppm INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (subject, worker)
) STRICT, WITHOUT ROWID;

-- What each class is expected to ask for: calls a second, in parts of 10^6, as if all hours were the same. profile: JSON
-- list of the 24 mean rates by hour of the day (UTC), likewise. In both -1: not seen yet.
CREATE TABLE forecasts (
    subject TEXT NOT NULL,
    priority INTEGER NOT NULL,
    level_ppm INTEGER NOT NULL,
    at INTEGER NOT NULL,
    hour_count INTEGER NOT NULL,
    profile TEXT NOT NULL,
    PRIMARY KEY (subject, priority)
) STRICT, WITHOUT ROWID;

-- Capacities that pools have adapted to, in thousandths of a unit.
CREATE TABLE capacities (
    pool TEXT NOT NULL PRIMARY KEY,
    capacity_milli INTEGER NOT NULL,
    at INTEGER NOT NULL,
    decreased_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
