"""Bounds on everything that could grow, each with its reason.

Owns: the numbers. Must not know: what they are used for beyond that reason. What an operator may want to
change is in the configuration instead; these are the edges within which the configuration may move.
"""

from typing import Final

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

# Names. An item id is a URL or a key, both fit; a worker id repeats in every record, so it is shorter.
ITEM_BYTES_MAX: Final = 512
WORKER_BYTES_MAX: Final = 128
REQUEST_ID_BYTES_MAX: Final = 128
NAME_BYTES_MAX: Final = 64
REASON_BYTES_MAX: Final = 512

# Namespaces of one daemon. Each has three threads, five open files and a commit of its own under way; so many
# are more fleets than one machine serves.
NAMESPACES_MAX: Final = 64

# Refusals by a quota of calls that are held back, of one namespace. Each is a task and its call, some 20 kB;
# beyond this memory is dearer than time.
REFUSALS_HELD_BACK_MAX: Final = 1_000

# Leases. Below 100 ms a renewal at a third of it is lost in scheduling noise; a day is longer than any one
# task.
TTL_NS_MIN: Final = 100 * MILLISECOND
TTL_NS_MAX: Final = DAY
WAIT_NS_MIN: Final = MILLISECOND
WAIT_NS_MAX: Final = DAY
HISTORY_NS_MAX: Final = 3_653 * DAY

# Counts. 1e9 keeps every sum of counters far below 2**63, the width of an SQLite integer.
UNITS_MAX: Final = 1_000_000_000
HEADERS_MAX: Final = 100
HEADER_NAME_BYTES_MAX: Final = 256
HEADER_VALUE_BYTES_MAX: Final = 4096
PAGE_SIZE_MAX: Final = 1_000
PAGE_SIZE_DEFAULT: Final = 100

# Queues. A waiter costs about 1 KiB, so a full queue is 100 MiB and the whole daemon stays within 1 GiB of
# them.
WAITERS_PER_QUEUE_MAX: Final = 100_000
WAITERS_MAX: Final = 1_000_000
# A booking makes each decision on its limit walk the future; at this number that walk stays within a
# millisecond.
BOOKINGS_PER_LIMIT_MAX: Final = 1_000

# What is held and what is waited for, where no quota says less: at 1 KiB each, 2 GiB.
LEASES_MAX: Final = 2_000_000
# One keepalive renews all that a session keeps, in one step and one commit: of so many in 4 ms.
LEASES_PER_SESSION_MAX: Final = 10_000

# Bundles. Each claim is checked again whenever its bundle heads a queue, so a bundle's size is part of
# every decision.
CLAIMS_PER_BUNDLE_MAX: Final = 16
CONDITIONS_PER_BUNDLE_MAX: Final = 16
# Sessions. A worker is a process; ten thousand of them are more than one daemon's connections.
SESSIONS_MAX: Final = 10_000
SESSION_TTL_NS_MIN: Final = SECOND
SESSION_TTL_NS_MAX: Final = HOUR
LABELS_MAX: Final = 16
# Ids stay below this, so that JSON keeps them exact.
ID_MAX: Final = 2**53 - 1
# Leases named in one warning: the first to end; more would be news of what nobody can save any more.
LEASES_PER_WARNING_MAX: Final = 100
# Escalations are for people, or for a worker that asks one: beyond this nobody reads them.
ESCALATIONS_MAX: Final = 1_000
# Weights in thousandths; a thousand to one either way is more than anybody means.
WEIGHT_MILLI_MAX: Final = 1_000_000

# What upstream says is left differs from what we count by the calls on their way; among so many reports there
# is mostly one made at a quiet moment, and a change of what others use is believed after as many.
REPORTS_BELIEVED: Final = 8

# Rolling windows: charges are rounded up to 1/500 of the window, hence refusals come at most 0.2 % early.
BUCKETS_PER_WINDOW: Final = 500
WINDOW_NS_MIN: Final = SECOND
WINDOW_NS_MAX: Final = 31 * DAY
WINDOWS_PER_LIMIT_MAX: Final = 8

# One step of the state machine: what one call may touch at most, so that the event loop is held for a few
# milliseconds mostly, and for some tens at worst (each of those due heads a queue for permits, with a
# thousand bookings ahead), however many leases end or waiters move at once.
DUE_PER_TICK_MAX: Final = 64
FORGOTTEN_PER_SWEEP_MAX: Final = 32
SERVED_PER_CALL_MAX: Final = 256
# One worker may give back thousands of things at once, when it closes its session; those who wait for them
# are served a few milliseconds' worth at a time.
QUEUES_PER_STEP_MAX: Final = 256
# A batch with so many commands, or so many changed records, is closed before anything more is decided, but
# for what can't wait: streams that leave. Commands: all of a batch are answered in one go. Records: one
# command or one step of time may change hundreds; at 300 bytes, as most have, they are 1.2 MB.
COMMANDS_PER_BATCH_MAX: Final = 256
RECORDS_PER_BATCH_MAX: Final = 4_000

# Streams. One that waits costs gRPC and us some 30 KiB, so these are 1.5 GiB; a watcher may be owed 10 MiB.
STREAMS_MAX: Final = 50_000
WATCHERS_MAX: Final = 64
# A worker has one connection, and a session; twice as many leave room for those who come again before it
# shows that they were gone.
CONNECTIONS_MAX: Final = 20_000
# Calls under way of whatever sort: every stream there may be, every session, and as many more.
CALLS_UNDER_WAY_MAX: Final = 75_000

# Admission. With fewer calls in progress than this there is not enough to fill a batch while one commits; and
# so many are forty batches: whoever is last waits for a second. A delay of 50 ms is half the shortest lease
# there may be; it is looked at 20 times a second.
CALLS_IN_PROGRESS_MIN: Final = 64
CALLS_IN_PROGRESS_MAX: Final = 10_000
# To refuse a call takes a tenth of a millisecond, a fifth of what a lease does. Where nothing is answered at
# all, since the disk has stopped, so many are refused all the same.
REFUSALS_PER_SECOND_MIN: Final = 200
REFUSALS_AT_ONCE_MAX: Final = 64
DELAY_TARGET_NS: Final = 50 * MILLISECOND
DELAY_INTERVAL_NS: Final = 50 * MILLISECOND

# A released grant's request id is remembered for the configured time, but never for more than this many, so
# that a burst of short leases can't fill memory; the oldest is forgotten first.
ENDED_REQUESTS_MAX: Final = 1_000_000
