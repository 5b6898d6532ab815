"""What is durable: every kind of record, its table, its key and its columns.

Owns: the shape of the state that survives. A record is live and mutable in memory; `row()` is what the store
writes, at the moment a batch is closed, in the order of the table's columns, which is that of the record's
first fields: so a row read back makes its record by position. Times are ns since the epoch, lengths are ns.
Must not know: SQL, files, which component keeps it.
"""

from enum import IntEnum
from typing import Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import astuple

Value = str | int | float
Row = tuple[Value, ...]
Key = tuple[Value, ...]


class Record(Protocol):
    """Anything the store can keep."""

    def row(self) -> Row:
        """The columns' values, in the table's order."""
        ...


class Table(IntEnum):
    """The tables, in the order in which they are written and read."""

    LOCKS = 0
    ENGAGEMENTS = 1
    RESERVATIONS = 2
    PERMITS = 3
    BOOKINGS = 4
    CELLS = 5
    WAITERS = 6
    HOLD_TIMES = 7
    OVERRIDES = 8
    ENDED_REQUESTS = 9
    BUNDLES = 10
    SESSIONS = 11
    ESCALATIONS = 12
    GATES = 13
    LEARNED_LIMITS = 14
    EFFICIENCIES = 15
    FORECASTS = 16
    CAPACITIES = 17
    FOREIGN_USAGES = 18


class Outcome(IntEnum):
    """How an engagement ended; numbers as in the protos."""

    SUCCESS = 1
    FAILURE = 2
    UNKNOWN = 3


class EndedBy(IntEnum):
    """What ended a lease."""

    RELEASE = 0
    EXPIRY = 1
    FORCE = 2
    PREEMPTION = 3
    # Its worker has closed its session.
    CLOSE = 4


class Decision(IntEnum):
    """What becomes of an escalation; numbers as in the protos."""

    GRANT = 1
    DENY = 2
    PREEMPT = 3
    WAIT = 4


class Lock(Struct, gc=False):
    """A held lock. `scope` is what it excludes others from: the item, or item and kind.

    `preempt_at`: when it is taken away, 0: it isn't.
    """

    token: int
    item: str
    kind: str
    worker: str
    granted_at: int
    expires_at: int
    ttl_ns: int
    request_id: str = ""
    preempt_at: int = 0
    scope: str = ""
    # When the deadline heap will look at it; 0 once it has ended.
    scheduled: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)[:-2]


class Engagement(Struct, gc=False, frozen=True):
    """One entry of the history: how the lock `token` ended, at `at`."""

    token: int
    item: str
    kind: str
    worker: str
    outcome: int
    at: int
    granted_at: int
    ended_by: int
    request_id: str = ""

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Reservation(Struct, gc=False):
    """A held resource and/or units of a pool.

    `is_refilling`: the units are charged to windows and never come back. `preempt_at`: as of a lock.
    """

    id: int
    type: str
    resource_id: str
    pool: str
    units: int
    worker: str
    granted_at: int
    expires_at: int
    ttl_ns: int
    is_refilling: bool = False
    request_id: str = ""
    preempt_at: int = 0
    # The class it was asked for in.
    priority: int = 2
    scheduled: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)[:-1]


class Permit(Struct, gc=False):
    """The right to make `count` calls by `use_by`, at which instant they are charged until it is settled."""

    id: int
    endpoint: str
    worker: str
    count: int
    granted_at: int
    use_by: int
    request_id: str = ""
    # The class it was asked for in: MEDIUM where nobody said.
    priority: int = 2

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Booking(Struct, gc=False):
    """`count` calls promised from `execute_at` until `claim_until`.

    A call claimed then may be made until `use_by`.
    """

    id: int
    endpoint: str
    worker: str
    count: int
    booked_at: int
    execute_at: int
    claim_until: int
    use_by: int
    request_id: str = ""
    scheduled: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)[:-1]


class Cell:
    """What one worker is charged within one bucket of one window.

    Compared and hashed by identity, as it is counted up. `classes`: the parts of `count` by class, where the
    window keeps them: index = priority; else None. The columns after `count` are those of all but LOW.
    """

    __slots__ = ("bucket", "classes", "count", "limit", "window_ns", "worker")

    def __init__(  # noqa: PLR0917  -- by position, as rows are
        self,
        limit: str,
        window_ns: int,
        bucket: int,
        worker: str,
        count: int = 0,
        medium: int = 0,
        high: int = 0,
        critical: int = 0,
    ) -> None:
        self.limit = limit
        self.window_ns = window_ns
        self.bucket = bucket
        self.worker = worker
        self.count = count
        self.classes: list[int] | None = None
        if medium or high or critical:
            self.classes = [0, count - medium - high - critical, medium, high, critical]

    def key(self) -> Key:
        """The row's primary key."""
        return (self.limit, self.window_ns, self.bucket, self.worker)

    def row(self) -> Row:
        """See `Record.row`."""
        classes = self.classes
        if classes is None:
            return (self.limit, self.window_ns, self.bucket, self.worker, self.count, 0, 0, 0)
        return (self.limit, self.window_ns, self.bucket, self.worker, self.count, *classes[2:])


class WaiterRow(Struct, gc=False, frozen=True):
    """A waiter as it is kept. `command` is the JSON of the command that waits, `component` its name."""

    id: int
    order_ns: int
    enqueued_at: int
    times_out_at: int
    worker: str
    request_id: str
    component: str
    command: str
    # When somebody is asked about it; 0: never, or somebody is.
    escalate_at: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class HoldTime(Struct, gc=False):
    """Exponentially weighted mean of how long leases of one sort are held, for estimates of waits."""

    subject: str
    mean_ns: int
    count: int

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Override(Struct, gc=False, frozen=True):
    """An operator's change: `value` for the pool or limit `subject`, `window_ns` 0 for a pool's capacity.

    `configured` is the file's value at that time: once the file says something else, the file wins again.
    """

    subject: str
    window_ns: int
    value: int
    configured: int

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class EndedRequest(Struct, gc=False, frozen=True):
    """A request id whose grant is over, remembered so that a late copy of the request is not granted anew."""

    worker: str
    request_id: str
    at: int

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Bundle(Struct, gc=False):
    """What was taken together: the ids of its `members`, and the `claims` it answers, both as JSON.

    It lives as long as any of its members. `held`: the members' records, those that have ended included.
    """

    id: int
    worker: str
    granted_at: int
    members: str
    claims: str
    request_id: str = ""
    held: "tuple[Lock | Reservation | Permit, ...]" = ()

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)[:-1]


class Session(Struct, gc=False):
    """A worker's session: it keeps the leases that its worker has taken since, those with a higher id.

    `weight_milli`: its weight x 1000, 0: as configured; `labels`: JSON. Ends at `expires_at` unless kept.
    """

    worker: str
    id: int
    worker_class: str
    weight_milli: int
    labels: str
    opened_at: int
    expires_at: int
    ttl_ns: int
    # When a keepalive is late; 0: it is, and the worker was told.
    late_at: int = 0
    # What it keeps, by id.
    leases: "dict[int, Lock | Reservation]" = {}
    # The waits that were begun in it, by id.
    waits: dict[int, None] = {}
    scheduled: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)[:-4]


class Escalation(Struct, gc=False):
    """A conflict that somebody is asked to decide until `decide_by`. `decision` 0: nobody has.

    `holder_id` 0: there is no one holder.
    """

    id: int
    waiter_id: int
    subject: str
    worker: str
    priority: int
    waited_ns: int
    holder: str
    holder_id: int
    opened_at: int
    decide_by: int
    decision: int = 0
    decided_by: str = ""
    # Why it was decided so; told, and not kept.
    reason: str = ""
    scheduled: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)[:-2]


class Gate(Struct, gc=False):
    """An endpoint's gate. `closed_until` 0: open. `probe_id`: the permit under way that will tell, 0: none.

    `strikes`: as of `struck_at`. Ids up to `struck_id` had been given when the last refusal was told: calls
    made under them say nothing new.
    """

    endpoint: str
    closed_until: int = 0
    strikes: int = 0
    struck_at: int = 0
    struck_id: int = 0
    probe_id: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class LearnedLimit(Struct, gc=False, frozen=True):
    """What upstream allows in a window.

    `configured`: the word of the file, or of an operator, when it was learnt.
    """

    subject: str
    window_ns: int
    value: int
    configured: int
    at: int

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class ForeignUsage(Struct, gc=False, frozen=True):
    """What others use of a window of upstream's, as its headers tell, held until the instant `until`."""

    subject: str
    window_ns: int
    count: int
    until: int

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Efficiency(Struct, gc=False):
    """How much of a worker's calls of an endpoint succeed.

    An exponentially weighted mean, in parts of 10**6.
    """

    subject: str
    worker: str
    success_ppm: int
    count: int

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Forecast(Struct, gc=False):
    """What a class asks of an endpoint, calls a second, in parts of 10**6, as of `at`.

    `level_ppm`: as if all hours were the same. `hour_count`: calls asked for in the hour of `at` so far, -1:
    that hour was not seen from its start. `profile`: JSON of the 24 mean rates by hour of the day (UTC), in
    parts of 10**6 likewise, -1: not seen yet.
    """

    subject: str
    priority: int
    level_ppm: int
    at: int
    hour_count: int
    profile: str

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


class Capacity(Struct, gc=False):
    """What an adaptive pool has learnt of its capacity, in thousandths of a unit.

    `at`: since when it has been recovering: its last decrease, or the last unit that time gave back.
    `decreased_at`: its last decrease, 0: none.
    """

    pool: str
    capacity_milli: int
    at: int
    decreased_at: int = 0

    def row(self) -> Row:
        """See `Record.row`."""
        return astuple(self)


# Type of each table's records, and how many leading columns are its key. CELLS' and ENDED_REQUESTS' keys are
# compound.
RECORD_TYPES: Final[dict[Table, Any]] = {
    Table.LOCKS: Lock,
    Table.ENGAGEMENTS: Engagement,
    Table.RESERVATIONS: Reservation,
    Table.PERMITS: Permit,
    Table.BOOKINGS: Booking,
    Table.CELLS: Cell,
    Table.WAITERS: WaiterRow,
    Table.HOLD_TIMES: HoldTime,
    Table.OVERRIDES: Override,
    Table.ENDED_REQUESTS: EndedRequest,
    Table.BUNDLES: Bundle,
    Table.SESSIONS: Session,
    Table.ESCALATIONS: Escalation,
    Table.GATES: Gate,
    Table.LEARNED_LIMITS: LearnedLimit,
    Table.EFFICIENCIES: Efficiency,
    Table.FORECASTS: Forecast,
    Table.CAPACITIES: Capacity,
    Table.FOREIGN_USAGES: ForeignUsage,
}
KEY_COLUMNS: Final[dict[Table, int]] = {
    Table.LOCKS: 1,
    Table.ENGAGEMENTS: 1,
    Table.RESERVATIONS: 1,
    Table.PERMITS: 1,
    Table.BOOKINGS: 1,
    Table.CELLS: 4,
    Table.WAITERS: 1,
    Table.HOLD_TIMES: 1,
    Table.OVERRIDES: 2,
    Table.ENDED_REQUESTS: 2,
    Table.BUNDLES: 1,
    Table.SESSIONS: 1,
    Table.ESCALATIONS: 1,
    Table.GATES: 1,
    Table.LEARNED_LIMITS: 2,
    Table.EFFICIENCIES: 2,
    Table.FORECASTS: 2,
    Table.CAPACITIES: 1,
    Table.FOREIGN_USAGES: 2,
}


class Batch(Struct, kw_only=True, frozen=True):
    """Everything one commit changes; self-contained, and harmless when applied twice.

    sequence: 1 more than the last batch's. instant: no decision in it is later. last_id: no id given is
    higher. puts: whole rows; deletes: primary keys. Within a batch a key is in at most one of the two.
    """

    sequence: int
    instant: int
    last_id: int
    puts: dict[Table, list[Row]]
    deletes: dict[Table, list[Key]]
    # Engagements before this instant may be forgotten; 0: none.
    prune_before: int = 0
