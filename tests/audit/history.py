"""What happened to a daemon: the one form in which clients, simulated or real, write it down for judges.

Owns: the records, and that they can be saved as JSON lines and judged again (`python -m audit FILE`).
Rules: every instant is in ns on the observer's one true clock, but for the fields whose name begins with
`daemon_`: those are the daemon's own stamps, as it told them. An operation that has no answer may have been
carried out at any time since it was asked, or never. An operation is one attempt: a repeat is another one.
Names of enum values are the protos', without their prefix. Must not know: coordd.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

SECOND = 1_000_000_000


class Table(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table of the configuration, as far as it matters to a judge."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, tag=str.lower):
    """Anything else."""


# -- what the daemon was configured to, see docs/configuration.md --------------------------------------------


class Kind(Table):
    """`[kinds.NAME]`."""

    enabled: bool = True
    ttl_ns: int = 900 * SECOND
    lock_delay_ns: int = 15 * SECOND
    min_interval_ns: int = 0
    min_interval_after: dict[str, int] = {}
    quality_discount: float = 0.0
    bypass_quality: float | None = None
    on_conflict: str = "wait"
    escalate_after_ns: int = 0


class Pool(Table):
    """`[pools.NAME]`."""

    enabled: bool = True
    capacity: int = 0
    windows: dict[int, int] = {}
    use_within_ns: int = 30 * SECOND
    allocation: str = "priority"
    headroom: dict[str, float] = {}
    capacity_min: int = 0
    capacity_max: int = 0
    overflow: str = "queue"
    borrow_from: str = ""


class Type(Table):
    """`[types.NAME]`."""

    ttl_ns: int = 1800 * SECOND
    pool: str = ""
    pools: dict[str, str] = {}
    on_conflict: str = "wait"
    escalate_after_ns: int = 0


class Limit(Table):
    """`[limits.NAME]`."""

    windows: dict[int, int] = {}
    allocation: str = "priority"
    headroom: dict[str, float] = {}
    forecast_headroom: float = 0.5
    pace: str = "asap"
    credentials: list[str] = []
    use_within_ns: int = 30 * SECOND
    claim_window_ns: int = 30 * SECOND


class Locks(Table):
    """`[locks]`."""

    exclusive: str = "item"


class Aging(Table):
    """`[aging]`."""

    medium_ns: int = 60 * SECOND
    high_ns: int = 120 * SECOND
    critical_ns: int = 365 * 86_400 * SECOND
    quality_ns: int = 30 * SECOND


class Waits(Table):
    """`[waits]`."""

    default_timeout_ns: int = 300 * SECOND
    resume_grace_ns: int = 30 * SECOND
    bundle_patience_ns: int = 10 * SECOND


class Recovery(Table):
    """`[recovery]`."""

    grace_ns: int = 30 * SECOND


class Requests(Table):
    """`[requests]`."""

    memory_ns: int = 600 * SECOND


class Escalation(Table):
    """`[escalation]`. `default`: a name, or the number of the decision in the protos."""

    timeout_ns: int = 60 * SECOND
    default: str | int = "wait"
    preempt_grace_ns: int = 5 * SECOND


class World(Table):
    """The tables that matter to a judge."""

    locks: Locks = Locks()
    kinds: dict[str, Kind] = {}
    pools: dict[str, Pool] = {}
    types: dict[str, Type] = {}
    limits: dict[str, Limit] = {}
    aging: Aging = Aging()
    waits: Waits = Waits()
    recovery: Recovery = Recovery()
    requests: Requests = Requests()
    escalation: Escalation = Escalation()


def world(tables: Mapping[str, Any]) -> World:
    """Return the world of a daemon's settings, dumped: `world(settings.model_dump())`."""
    return msgspec.convert(tables, World)


# -- what clients ask ----------------------------------------------------------------------------------------


class LockClaim(Record):
    """The lock on an item. `ttl_ns` 0 here and below: as configured."""

    item: str
    kind: str
    ttl_ns: int = 0


class UnitsClaim(Record):
    """A resource, units of a pool, or both."""

    of: str
    resource: str = ""
    units: int = 0
    ttl_ns: int = 0


class PermitClaim(Record):
    """Permits to call an endpoint."""

    endpoint: str
    permits: int = 1


Claim: TypeAlias = LockClaim | UnitsClaim | PermitClaim


class Condition(Record):
    """Nobody has acted on the item within that time."""

    item: str
    within_ns: int
    kinds: list[str] = []


class Acquire(Record):
    """Asks for locks, reservations, permits: one, or a bundle; at once, or waiting for it.

    `wait_ns` None: it does not wait; 0: as long as is configured. `booking`: the booking that it claims.
    """

    claims: list[Claim]
    is_bundle: bool = False
    conditions: list[Condition] = []
    wait_ns: int | None = None
    priority: str = "MEDIUM"
    quality: float = 0.0
    on_conflict: str = ""
    booking: int = 0


class Renew(Record):
    """Extends a lock, a reservation or a bundle. `ttl_ns` 0: its own time."""

    of: Literal["lock", "reservation", "bundle"]
    id: int
    item: str = ""
    ttl_ns: int = 0


class Usage(Record):
    """What became of a permit."""

    endpoint: str
    id: int
    result: str
    status: int = 0


class Release(Record):
    """Gives a lock, a reservation or a bundle back. `outcomes`: of single locks of a bundle."""

    of: Literal["lock", "reservation", "bundle"]
    id: int
    item: str = ""
    outcome: str = ""
    outcomes: dict[int, str] = {}
    usages: list[Usage] = []
    unused: int = 0


class Report(Record):
    """Reports on a permit."""

    usage: Usage


class Book(Record):
    """Books permits for later."""

    endpoint: str
    permits: int = 1
    priority: str = "MEDIUM"
    not_before_ns: int = 0


class Cancel(Record):
    """Gives a booking back."""

    booking: int


class Register(Record):
    """Opens or resumes a session, as the first message of a stream. `ttl_ns` 0: as configured."""

    session: int = 0
    ttl_ns: int = 0
    take_over: bool = False


class Keepalive(Record):
    """Keeps a session. `session` as it was told to the stream; 0: not told yet."""

    session: int = 0


class Goodbye(Record):
    """Closes a session."""

    session: int = 0


class SetPool(Record):
    """An operator changes a pool. `capacity` 0: not."""

    pool: str
    capacity: int = 0
    windows: dict[int, int] = {}
    unpin: bool = False


class SetLimit(Record):
    """An operator changes a limit's windows."""

    endpoint: str
    windows: dict[int, int] = {}


class Force(Record):
    """An operator takes a lock, reservation or anything else by its id."""

    id: int


class Drain(Record):
    """An operator lets the daemon take nothing new, or again."""

    undo: bool = False


class Decide(Record):
    """A coordination worker decides an escalation."""

    escalation: int
    decision: str


class ReadItem(Record):
    """GetLock."""

    item: str
    kind: str = ""


class ReadRecent(Record):
    """HasRecentEngagement."""

    item: str
    kinds: list[str] = []
    within_ns: int = 86_400 * SECOND
    include_failures: bool = False


class Other(Record):
    """Any other question: only whether, and how, it is answered is judged."""


Ask: TypeAlias = (
    Acquire
    | Renew
    | Release
    | Report
    | Book
    | Cancel
    | Register
    | Keepalive
    | Goodbye
    | SetPool
    | SetLimit
    | Force
    | Drain
    | Decide
    | ReadItem
    | ReadRecent
    | Other
)

# -- what they are answered ----------------------------------------------------------------------------------


class Lock(Record):
    """A lock, as told."""

    item: str
    kind: str
    worker: str
    id: int
    daemon_granted_at: int
    daemon_until: int
    is_preempted: bool = False


class Reservation(Record):
    """A reservation, as told."""

    of: str
    worker: str
    id: int
    daemon_granted_at: int
    daemon_until: int
    resource: str = ""
    pool: str = ""
    units: int = 0
    is_preempted: bool = False


class Permit(Record):
    """A permit, as told; `daemon_until` is its `use_by`."""

    endpoint: str
    permits: int
    worker: str
    id: int
    daemon_granted_at: int
    daemon_until: int


Held: TypeAlias = Lock | Reservation | Permit


class Engagement(Record):
    """An entry of the daemon's history, as told."""

    item: str
    kind: str
    worker: str
    outcome: str
    daemon_at: int
    token: int


class Granted(Record):
    """All that was asked for is held. `bundle`: its id, 0 if it is none."""

    held: list[Held]
    bundle: int = 0


class Refused(Record):
    """It is not."""

    reason: str
    subject: str = ""
    holder: str = ""
    daemon_retry_at: int | None = None
    retry_after_ns: int | None = None


class Renewed(Record):
    """The leases with their new ends."""

    held: list[Held]


class Released(Record):
    """What the release did."""

    engagements: list[Engagement] = []
    already: bool = False
    refunded: int = 0


class Settled(Record):
    """What the report did."""

    already: bool = False
    refunded: int = 0


class Booked(Record):
    """A booking."""

    id: int
    daemon_execute_at: int
    daemon_claim_until: int
    permits: int = 1


class Cancelled(Record):
    """What the cancel did."""

    already: bool = False


class Kept(Record):
    """A session is open, and kept: these leases are renewed."""

    session: int = 0
    held: list[int] = []
    is_resumed: bool = False


class Closed(Record):
    """A session is closed."""

    released: int = 0


class Item(Record):
    """What is known of an item."""

    state: str
    lock: Lock | None = None
    last: Engagement | None = None
    daemon_delayed_until: int | None = None


class Recent(Record):
    """The latest engagement that counts."""

    latest: Engagement | None = None


class Decided(Record):
    """What was decided of an escalation."""

    decision: str = ""
    subject: str = ""
    holder_id: int = 0


class Done(Record):
    """It is done, and nothing more is to be said."""


class Failed(Record):
    """A status other than OK. `reason`: of its ErrorInfo; empty where it has none, as gRPC's own have not."""

    code: str
    reason: str = ""


Answer: TypeAlias = (
    Granted
    | Refused
    | Renewed
    | Released
    | Settled
    | Booked
    | Cancelled
    | Kept
    | Closed
    | Item
    | Recent
    | Decided
    | Done
    | Failed
)

# -- the records ---------------------------------------------------------------------------------------------


class Place(Record):
    """A wait stream said that it waits."""

    at: int
    position: int
    reason: str = ""
    subject: str = ""


class Operation(Record):
    """One call, or one message of a session's stream, and its answer.

    `returned_at` and `answer` None: none came, or none that the daemon is sure to have given.
    """

    called_at: int
    method: str
    ask: Ask
    worker: str = ""
    request_id: str = ""
    places: list[Place] = []
    returned_at: int | None = None
    answer: Answer | None = None


class Started(Record):
    """A daemon is about to start: it decides nothing before `at`.

    `clock_offset_ns`: by how much its clock is ahead of the observer's until its end; None: unknown.
    """

    at: int
    world: World
    clock_offset_ns: int | None = None


class Ended(Record):
    """The daemon decides nothing after `at`. `how`: for people."""

    at: int
    how: str = ""


class Arrived(Record):
    """Upstream counts calls: made under a permit, or with units of a refilling pool."""

    at: int
    name: str
    id: int
    of: Literal["limit", "pool"] = "limit"
    calls: int = 1


class Dumped(Record):
    """What the daemon itself says it has, asked at `at`, when nobody else was asking. None: was not asked."""

    at: int
    locks: list[Lock] | None = None
    reservations: list[Reservation] | None = None
    engagements: list[Engagement] | None = None


class Revoked(Record):
    """A session's stream says that a lease is lost, or will be."""

    at: int
    worker: str
    id: int
    reason: str
    within_ns: int = 0


class Calmed(Record):
    """From now on nothing goes wrong, and every operation ends within `patience_ns` beyond its own wait."""

    at: int
    patience_ns: int = 60 * SECOND


class Finished(Record):
    """The observer has stopped looking."""

    at: int


Entry: TypeAlias = Operation | Started | Ended | Arrived | Dumped | Revoked | Calmed | Finished

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def instant(entry: Entry) -> int:
    """Return when it began."""
    return entry.called_at if isinstance(entry, Operation) else entry.at


class History:
    """All that an observer saw, in order of time."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = sorted(entries, key=instant)
        self.operations = [entry for entry in self.entries if isinstance(entry, Operation)]

    def of(self, sort: type[Any]) -> list[Any]:
        """Return the entries of one sort."""
        return [entry for entry in self.entries if isinstance(entry, sort)]

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_bytes(_encoder.encode_lines(self.entries))

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read it back."""
        return cls(_decoder.decode_lines(path.read_bytes()))
