"""What DESIGN section 3 says, in lists and brute force: a second opinion on every decision.

Shares with coordd.core the vocabulary (commands, reasons, rules), and not one line of its reasoning: no heap,
no queue per resource, no ring of buckets, no index. Everything that can be derived is derived anew each time.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from naive_shares import Contender, NaiveShares

from coordd.core.commands import RequestLock, ReserveResource, TakePermit, WaitableCommand
from coordd.core.outcomes import Reason
from coordd.core.records import EndedBy, Outcome
from coordd.core.rules import Rules

BUCKETS = 500


class Broken(Exception):
    """The model says that a call is broken; the argument is the reason."""


@dataclass
class HeldLock:
    """A live lock."""

    id: int
    item: str
    kind: str
    worker: str
    granted_at: int
    expires_at: int
    ttl_ns: int
    request_id: str


@dataclass
class Holding:
    """A live reservation."""

    id: int
    type: str
    resource_id: str
    pool: str
    units: int
    worker: str
    granted_at: int
    expires_at: int
    ttl_ns: int
    is_refilling: bool
    request_id: str


@dataclass
class OpenPermit:
    """A permit that is neither settled nor past its time."""

    id: int
    endpoint: str
    worker: str
    count: int
    granted_at: int
    use_by: int
    request_id: str


@dataclass
class Slot:
    """An open booking."""

    id: int
    endpoint: str
    worker: str
    count: int
    execute_at: int
    claim_until: int
    use_by: int
    request_id: str


@dataclass
class Waiting:
    """Somebody who waits; `away_until` 0: there."""

    id: int
    command: WaitableCommand
    order: int
    times_out_at: int
    away_until: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return (self.order, self.id)


@dataclass
class Past:
    """One entry of the history."""

    token: int
    item: str
    kind: str
    worker: str
    outcome: int
    at: int
    ended_by: int


@dataclass
class Charge:
    """`count` counted in each of the windows `name`, at the instant `at`, for the grant `id` of `worker`."""

    name: str
    id: int
    worker: str
    count: int
    at: int
    granted_at: int


@dataclass(frozen=True)
class Block:
    """What stands in the way; `key` None: waiting is no use."""

    reason: Reason
    key: Hashable = None
    retry_at: int | None = None
    # One of these, where there may be several.
    holder: str | frozenset[str] = ""


@dataclass
class Model:
    """The state, as lists."""

    rules: Rules
    last_id: int
    locks: list[HeldLock] = field(default_factory=list)
    rests: list[tuple[str, int]] = field(default_factory=list)
    history: list[Past] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    permits: list[OpenPermit] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    ended: list[tuple[str, str, int]] = field(default_factory=list)
    limits: dict[str, dict[int, int]] = field(default_factory=dict)
    capacities: dict[str, int] = field(default_factory=dict)
    shares: NaiveShares = field(init=False)

    def __post_init__(self) -> None:
        self.shares = NaiveShares(self.rules, self.parts, self.share_memory)
        for name, rule in self.rules.limits.items():
            self.limits[f"limit/{name}"] = dict(rule.windows)
        for name, pool in self.rules.pools.items():
            self.capacities[name] = pool.capacity
            if pool.limit is not None:
                self.limits[f"pool/{name}"] = dict(pool.limit.windows)

    # -- what is asked ---------------------------------------------------------------------------------------

    def scope(self, item: str, kind: str) -> str:
        return f"{item} {kind}" if self.rules.is_exclusive_by_kind else item

    def order(self, command: WaitableCommand, now: int) -> int:
        quality = command.quality if isinstance(command, RequestLock) else 0.0
        return now - self.rules.boost_ns[command.priority] - int(quality * self.rules.quality_boost_ns)

    def present(self) -> list[Waiting]:
        return sorted((waiter for waiter in self.waiting if not waiter.away_until), key=lambda w: w.rank)

    def pool_of(self, command: ReserveResource) -> str:
        rule = self.rules.types.get(command.type)
        if rule is None:
            raise Broken("UNKNOWN_TYPE")
        if rule.pools:
            if command.resource_id not in rule.pools:
                raise Broken("UNKNOWN_OPERATION")
            return rule.pools[command.resource_id]
        if not rule.pool and command.units:
            raise Broken("NO_POOL")
        if not rule.pool and not command.resource_id:
            raise Broken("INVALID_ID")
        return rule.pool

    def is_exclusive(self, type_: str, resource_id: str) -> bool:
        return bool(resource_id) and not self.rules.types[type_].pools

    def keys(self, command: WaitableCommand) -> set[Hashable]:
        """Everything that a command needs."""
        if isinstance(command, RequestLock):
            return {("lock", self.scope(command.item, command.kind))}
        if isinstance(command, TakePermit):
            return {("limit", command.endpoint)}
        keys: set[Hashable] = set()
        if self.is_exclusive(command.type, command.resource_id):
            keys.add(("resource", command.type, command.resource_id))
        pool = self.pool_of(command)
        return keys | {("pool", pool)} if pool else keys

    def same(self, command: WaitableCommand, other: Any) -> bool:
        """Whether `other`, a command or a grant, is what `command` asks for."""
        if isinstance(command, RequestLock):
            return isinstance(other, RequestLock | HeldLock) and (command.item, command.kind) == (
                other.item,
                other.kind,
            )
        if isinstance(command, TakePermit):
            return (
                isinstance(other, TakePermit | OpenPermit)
                and command.endpoint == other.endpoint
                and (command.booking_id != 0 or command.count == other.count)
            )
        return isinstance(other, ReserveResource | Holding) and (
            command.type,
            command.resource_id,
            command.units or 1,
        ) == (other.type, other.resource_id, other.units or 1)

    def live(self) -> list[Any]:
        """Every live grant and booking."""
        return [*self.locks, *self.holdings, *self.permits, *self.slots]

    def earlier(self, worker: str, request_id: str, now: int) -> Any:
        """What the request id was given, the string "ended", or None."""
        if not request_id:
            return None
        for grant in self.live():
            if (grant.worker, grant.request_id) == (worker, request_id):
                return grant
        for waiter in self.waiting:
            if (waiter.command.worker, waiter.command.request_id) == (worker, request_id):
                return waiter
        for ended_worker, ended_id, at in self.ended:
            if (ended_worker, ended_id) == (worker, request_id) and self.is_remembered(at, now):
                return "ended"
        return None

    def is_remembered(self, at: int, now: int) -> bool:
        return at + self.rules.request_memory_ns > now

    # -- windows ---------------------------------------------------------------------------------------------

    def level(self, name: str, length: int, at: int) -> int:
        """What is counted in one window at an instant, bookings included; each for its whole bucket."""
        width = -(-length // BUCKETS)
        bucket = at // width
        charged = sum(c.count for c in self.charges if c.name == name and c.at // width + BUCKETS >= bucket)
        booked = sum(
            slot.count
            for slot in self.slots
            if f"limit/{slot.endpoint}" == name
            and slot.execute_at // width <= bucket <= slot.use_by // width + BUCKETS
        )
        return charged + booked

    def fits(self, name: str, count: int, at: int, hold: int) -> bool:
        """Whether `count` more fit from `at` until they have left again when used `hold` later."""
        limits = self.limits[name].items()
        return all(self.peak(name, length, at, hold) + count <= limit for length, limit in limits)

    def peak(self, name: str, length: int, at: int, hold: int) -> int:
        """The highest level that a call made at `at`, or up to `hold` later, meets before it has left."""
        width = -(-length // BUCKETS)
        last = (at + hold) // width + BUCKETS
        begins = [slot.execute_at // width * width for slot in self.slots]
        instants = [at] + [b for b in begins if at < b and b // width <= last]
        return max(self.level(name, length, instant) for instant in instants)

    def earliest(self, name: str, count: int, start: int, hold: int) -> int:
        """The first instant from `start` at which `count` fit, of all at which anything leaves."""
        candidates = {start}
        for length in self.limits[name]:
            width = -(-length // BUCKETS)
            ends = [c.at for c in self.charges if c.name == name] + [slot.use_by for slot in self.slots]
            candidates |= {(end // width + BUCKETS + 1) * width for end in ends}
        return next(at for at in sorted(candidates) if at >= start and self.fits(name, count, at, hold))

    def use_within(self, name: str) -> int:
        sort, _, base = name.partition("/")
        if sort == "limit":
            return self.rules.limits[base].use_within_ns
        limit = self.rules.pools[base].limit
        assert limit is not None
        return limit.use_within_ns

    # -- decisions -------------------------------------------------------------------------------------------

    def recent(self, item: str, kind: str, quality: float, now: int) -> tuple[frozenset[str], int] | None:
        """Whose engagements forbid another one for longest, and until when."""
        rule = self.rules.kinds[kind]
        found: list[tuple[int, str]] = []
        for entry in self.history:
            if entry.item != item or entry.outcome == Outcome.FAILURE:
                continue
            interval = Fraction(rule.min_interval_after_ns.get(entry.kind, 0))
            if entry.kind == kind:
                interval = max(interval, Fraction(rule.min_interval_ns))
            if entry.outcome == Outcome.SUCCESS:
                interval *= 1 - Fraction(quality) * Fraction(rule.quality_discount)
                if quality >= rule.bypass_quality:
                    interval = Fraction(0)
            if entry.at + interval > now:
                found.append((math.ceil(entry.at + interval), entry.worker))
        if not found:
            return None
        until, _ = max(found)
        return frozenset(worker for each, worker in found if each == until), until

    def block(
        self, command: WaitableCommand, ahead: set[Hashable], now: int, *, is_waiting: bool = False
    ) -> Block | None:
        """What blocks a command. `ahead`: what others want who go before it.

        `is_waiting`: it waits already, so a recent engagement is found when its turn comes.
        """
        if isinstance(command, RequestLock):
            return self._block_lock(command, ahead, now, is_waiting=is_waiting)
        if isinstance(command, ReserveResource):
            return self._block_reservation(command, ahead, now)
        if command.endpoint not in self.rules.limits:
            raise Broken("UNKNOWN_ENDPOINT")
        name = f"limit/{command.endpoint}"
        return self._block_windows(name, command.count, ("limit", command.endpoint), ahead, now)

    def _block_lock(
        self, command: RequestLock, ahead: set[Hashable], now: int, *, is_waiting: bool
    ) -> Block | None:
        if command.kind not in self.rules.kinds:
            raise Broken("UNKNOWN_KIND")
        recent = self.recent(command.item, command.kind, command.quality, now)
        engaged: Block | None = None
        if recent is not None:
            engaged = Block(Reason.RECENTLY_ENGAGED, None, recent[1], recent[0])
        scope = self.scope(command.item, command.kind)
        key = ("lock", scope)
        busy: Block | None = None
        for lock in self.locks:
            if self.scope(lock.item, lock.kind) == scope:
                busy = Block(Reason.HELD, key, lock.expires_at, lock.worker)
        for rest_scope, until in self.rests:
            if busy is None and rest_scope == scope and until > now:
                busy = Block(Reason.LOCK_DELAY, key, until)
        if busy is None and key in ahead:
            busy = Block(Reason.QUEUED_AHEAD, key)
        return (busy or engaged) if is_waiting else (engaged or busy)

    def _block_reservation(self, command: ReserveResource, ahead: set[Hashable], now: int) -> Block | None:
        pool = self.pool_of(command)
        if pool and (command.units or 1) > self._units_max(pool):
            raise Broken("UNITS_ABOVE_CAPACITY")
        if self.is_exclusive(command.type, command.resource_id):
            key = ("resource", command.type, command.resource_id)
            for held in self.holdings:
                if (held.type, held.resource_id) == (command.type, command.resource_id):
                    return Block(Reason.HELD, key, held.expires_at, held.worker)
            if key in ahead:
                return Block(Reason.QUEUED_AHEAD, key)
        return self._block_pool(pool, command.units or 1, ahead, now) if pool else None

    def _units_max(self, pool: str) -> int:
        windows = self.limits.get(f"pool/{pool}")
        return min(windows.values()) if windows is not None else self.capacities[pool]

    def _block_pool(self, pool: str, units: int, ahead: set[Hashable], now: int) -> Block | None:
        if f"pool/{pool}" in self.limits:
            return self._block_windows(f"pool/{pool}", units, ("pool", pool), ahead, now)
        if self.units_held(pool) + units > self.capacities[pool]:
            return Block(Reason.UNITS_TAKEN, ("pool", pool))
        return Block(Reason.QUEUED_AHEAD, ("pool", pool)) if ("pool", pool) in ahead else None

    def units_held(self, pool: str) -> int:
        return sum(h.units for h in self.holdings if h.pool == pool and not h.is_refilling)

    def _block_windows(
        self, name: str, count: int, key: Hashable, ahead: set[Hashable], now: int
    ) -> Block | None:
        if count > min(self.limits[name].values()) and (
            key in ahead or not self.fits(name, count, now, self.use_within(name))
        ):
            raise Broken("PERMITS_ABOVE_LIMIT")
        at = self.earliest(name, count, now, self.use_within(name))
        if key in ahead:
            return Block(Reason.WINDOW_FULL if at > now else Reason.QUEUED_AHEAD, key)
        return Block(Reason.WINDOW_FULL, key, at) if at > now else None

    def ahead_of(self, command: WaitableCommand, rank: tuple[int, int], now: int) -> set[Hashable]:
        """Each thing that somebody who goes before `command`, of this rank, waits for first."""
        ahead: set[Hashable] = set()
        for waiter in self.present():
            if waiter.rank < rank:
                block = self.block(waiter.command, ahead, now, is_waiting=True)
                if block is not None and block.key is not None:
                    ahead.add(block.key)
        shared = {key for key in self.keys(command) if self.shares.rule(key) is not None}
        return (ahead - shared) | {key for key in shared if not self._is_first(key, command, rank, now)}

    def _is_first(self, key: Hashable, command: WaitableCommand, rank: tuple[int, int], now: int) -> bool:
        """Whether `command` goes first where workers share; it wants nothing else before that."""
        me = Contender(rank, command.worker, command.priority)
        others = [
            Contender(waiter.rank, waiter.command.worker, waiter.command.priority)
            for waiter in self.present()
            if key in self.keys(waiter.command) and waiter.rank != rank
        ]
        return self.shares.first(key, [me, *others], now) is me

    def parts(self, key: Any, worker: str, now: int) -> list[tuple[int, int]]:
        """(Used by the worker, limit) of each window of what is shared, or of the pool."""
        name = "/".join(key)
        if name not in self.limits:
            held = sum(h.units for h in self.holdings if h.pool == key[1] and h.worker == worker)
            return [(held, self.capacities[key[1]])]
        charges = [charge for charge in self.charges if (charge.name, charge.worker) == (name, worker)]
        return [
            (
                sum(
                    c.count for c in charges if c.at // -(-n // BUCKETS) + BUCKETS >= now // -(-n // BUCKETS)
                ),
                limit,
            )
            for n, limit in sorted(self.limits[name].items())
        ]

    def share_memory(self, key: Any) -> int:
        """How long a worker that uses nothing of what is shared is known after its last sign of life."""
        name = "/".join(key)
        if name not in self.limits:
            return 60_000_000_000
        longest = max(self.limits[name])
        return self.use_within(name) + longest + 2 * -(-longest // BUCKETS)

    def shared(self, command: WaitableCommand) -> Hashable:
        """What is shared of all that a command wants, or None. No rule here shares more than one of them."""
        return next((key for key in self.keys(command) if self.shares.rule(key) is not None), None)

    def note_presence(self, now: int) -> None:
        """Take in who waits for what is shared now."""
        waiting = {
            waiter.id: (key, waiter.command.worker)
            for waiter in self.present()
            if (key := self.shared(waiter.command)) is not None
        }
        self.shares.note_presence(waiting, now)

    def last_given(self, now: int) -> dict[tuple[Hashable, str], int]:
        """When each worker was given something shared last, as far as what it uses still tells."""
        last: dict[tuple[Hashable, str], int] = {}
        for holding in self.holdings:
            key = ("pool", holding.pool)
            if holding.pool and self.shares.rule(key) is not None:
                last[key, holding.worker] = max(last.get((key, holding.worker), 0), holding.granted_at)
        for charge in self.charges:
            key = tuple(charge.name.split("/", 1))
            widths = [-(-length // BUCKETS) for length in self.limits[charge.name]]
            for width in widths if self.shares.rule(key) is not None else ():
                if charge.count and charge.at // width + BUCKETS >= now // width:
                    begins = min(now, charge.at // width * width)
                    last[key, charge.worker] = max(last.get((key, charge.worker), 0), begins)
        return last

    def servable(self, now: int) -> list[tuple[Waiting, Block | None]]:
        """Who of those who wait must be answered now: granted (None), or refused by the Block."""
        found = []
        for waiter in self.present():
            block = self.block(
                waiter.command, self.ahead_of(waiter.command, waiter.rank, now), now, is_waiting=True
            )
            if block is None or block.key is None:
                found.append((waiter, block))
        return found

    # -- what happens ----------------------------------------------------------------------------------------

    def grant_lock(self, command: RequestLock, id: int, now: int) -> HeldLock:
        assert all(
            self.scope(lock.item, lock.kind) != self.scope(command.item, command.kind) for lock in self.locks
        ), "two holders"
        ttl_ns = command.ttl_ns or self.rules.kinds[command.kind].ttl_ns
        lock = HeldLock(
            id, command.item, command.kind, command.worker, now, now + ttl_ns, ttl_ns, command.request_id
        )
        self.locks.append(lock)
        return lock

    def grant_reservation(self, command: ReserveResource, id: int, now: int) -> Holding:
        pool = self.pool_of(command)
        units = (command.units or 1) if pool else 0
        ttl_ns = command.ttl_ns or self.rules.types[command.type].ttl_ns
        refills = f"pool/{pool}" in self.limits
        if refills:
            ttl_ns = self.use_within(f"pool/{pool}")
            self.charges.append(Charge(f"pool/{pool}", id, command.worker, units, now + ttl_ns, now))
            self.audit(f"pool/{pool}", now)
        holding = Holding(
            id,
            command.type,
            command.resource_id,
            pool,
            units,
            command.worker,
            now,
            now + ttl_ns,
            ttl_ns,
            refills,
            command.request_id,
        )
        self.holdings.append(holding)
        if pool and not refills:
            assert self.units_held(pool) <= self.capacities[pool], "more units than there are"
        return holding

    def grant_permit(
        self, endpoint: str, worker: str, count: int, *, request_id: str, id: int, now: int
    ) -> OpenPermit:
        name = f"limit/{endpoint}"
        use_by = now + self.use_within(name)
        self.charges.append(Charge(name, id, worker, count, use_by, now))
        self.audit(name, now)
        permit = OpenPermit(id, endpoint, worker, count, now, use_by, request_id)
        self.permits.append(permit)
        return permit

    def audit(self, name: str, now: int) -> None:
        """Check what upstream may count, in true windows, however unlucky the calls' arrivals.

        A call may arrive at any instant from its grant to what it is charged at: so within (now - length,
        now] may be every call granted by now and charged later than now - length. Only a grant raises that
        number.
        """
        for length, limit in self.limits[name].items():
            arrivals = sum(
                charge.count
                for charge in self.charges
                if charge.name == name and charge.granted_at <= now and charge.at > now - length
            )
            assert arrivals <= limit, f"{arrivals} may arrive at {name} within {length} ns; {limit} may"

    def settle(self, id: int, unused: int, now: int) -> None:
        """Move the charge of the grant `id` to now, less what was not used."""
        for charge in self.charges:
            if charge.id == id:
                charge.count -= unused
                charge.at = now

    def end_lock(self, lock: HeldLock, outcome: int, ended_by: EndedBy, now: int) -> None:
        self.locks.remove(lock)
        self.history.append(Past(lock.id, lock.item, lock.kind, lock.worker, outcome, now, ended_by))
        self.end_request(lock, now)
        if ended_by == EndedBy.EXPIRY:
            delay = self.rules.kinds[lock.kind].lock_delay_ns
            self.rests.append((self.scope(lock.item, lock.kind), now + delay))

    def end_request(self, grant: HeldLock | Holding | OpenPermit | Slot, now: int) -> None:
        if grant.request_id:
            self.ended.append((grant.worker, grant.request_id, now))

    def forget_the_past(self, now: int) -> None:
        """Drop what can matter no longer, so that the lists stay short."""
        longest = max(length for windows in self.limits.values() for length in windows)
        self.charges = [c for c in self.charges if c.at + 2 * longest > now and c.count]
        self.rests = [(scope, until) for scope, until in self.rests if until > now]
