"""A judge of everything at once, by brute force, from outcomes and notices only.

It keeps who was told to hold what until when, every charge at its latest possible arrival, what each endpoint
was refused, and who was told to wait. It shares no line with core, and knows nothing of queues, shares,
forecasts or pace: whoever is next, it says whether a grant can be right.
"""

from dataclasses import dataclass, field
from typing import Any

from coordd.core.commands import AcquireBundle, RecordUsage, RequestLock, ReserveResource
from coordd.core.limits import SECOND
from coordd.core.outcomes import grant_id
from coordd.core.records import Booking, Bundle, Lock, Permit, Reservation
from coordd.core.rules import Rules


@dataclass
class Held:
    """A grant, as it was told. `bundle` 0: alone. `preempt_at` 0: it is not being taken."""

    id: int
    record: Any
    worker: str
    ends_at: int
    ttl_ns: int = 0
    preempt_at: int = 0
    bundle: int = 0


@dataclass
class Waiting:
    """A waiter, as it was told. `away_until` 0: it is there."""

    id: int
    command: Any
    times_out_at: int
    away_until: int = 0


@dataclass
class Shut:
    """An endpoint whose upstream has refused a call. `until`: nobody may call; then one at a time."""

    until: int = 0
    struck_id: int = 0
    is_shut: bool = False


@dataclass
class Charge:
    """Calls, or units of a refilling pool, that may arrive upstream as late as at `at`."""

    id: int
    name: str
    count: int
    at: int


@dataclass
class Judge:
    """What everybody was told, and what follows."""

    rules: Rules
    last_id: int = 0
    held: dict[int, Held] = field(default_factory=dict)
    bundles: dict[int, str] = field(default_factory=dict)
    slots: dict[int, Booking] = field(default_factory=dict)
    waiting: dict[int, Waiting] = field(default_factory=dict)
    dead: dict[int, Held] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    sessions: dict[str, int] = field(default_factory=dict)
    escalations: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pools = self.rules.pools
        self.capacities = {name: rule.capacity for name, rule in pools.items() if rule.limit is None}
        self.limits = {f"limit/{name}": dict(rule.windows) for name, rule in self.rules.limits.items()}
        for name, rule in pools.items():
            if rule.limit is not None:
                self.limits[f"pool/{name}"] = dict(rule.limit.windows)
        self.learned: dict[tuple[str, int], int] = {}
        self.shut = {name: Shut() for name in self.rules.limits}

    # -- grants ----------------------------------------------------------------------------------------------

    def new_id(self, id: int) -> None:
        assert id > self.last_id, "an id that is not above all others"
        self.last_id = id

    def grant(self, command: Any, grant: Any, now: int) -> None:
        """Judge a grant: all of it, nobody else has it, and no more than there is."""
        members = grant.held if isinstance(grant, Bundle) else (grant,)
        sorts = {RequestLock: Lock, ReserveResource: Reservation}
        expected = [sorts.get(type(claim), Permit) for claim in claims_of(command)]
        assert [type(member) for member in members] == expected, "a part"
        for member in members:
            self.new_id(grant_id(member))
            self._take(member, now)
        if isinstance(grant, Bundle):
            self.new_id(grant.id)
            self.bundles[grant.id] = grant.worker
            for member in members:
                self.held[grant_id(member)].bundle = grant.id

    def _take(self, member: Any, now: int) -> None:
        if isinstance(member, Lock):
            self._take_lock(member)
        elif isinstance(member, Reservation):
            self._take_reservation(member, now)
        else:
            self._take_permit(member, now)
        ends_at = member.use_by if isinstance(member, Permit) else member.expires_at
        assert ends_at > now
        name = grant_id(member)
        self.held[name] = Held(name, member, member.worker, ends_at, getattr(member, "ttl_ns", 0))

    def _take_lock(self, lock: Lock) -> None:
        by_kind = self.rules.is_exclusive_by_kind
        for other in self.of(Lock):
            same = other.record.item == lock.item and (not by_kind or other.record.kind == lock.kind)
            assert not same, f"two hold {lock.item}"

    def _take_reservation(self, taken: Reservation, now: int) -> None:
        rule = self.rules.types[taken.type]
        if taken.resource_id and not rule.pools:
            others = [h.record for h in self.of(Reservation)]
            assert (taken.type, taken.resource_id) not in [(o.type, o.resource_id) for o in others]
        if taken.is_refilling:
            self.charges.append(Charge(taken.id, f"pool/{taken.pool}", taken.units, taken.expires_at))
            self.audit(f"pool/{taken.pool}", now)
        elif taken.pool:
            held = self.units(taken.pool) + taken.units
            assert held <= self.capacities[taken.pool], f"{held} units of {taken.pool} are held"

    def _take_permit(self, permit: Permit, now: int) -> None:
        name = f"limit/{permit.endpoint}"
        self.charges.append(Charge(permit.id, name, permit.count, permit.use_by))
        self.audit(name, now)
        shut = self.shut[permit.endpoint]
        if shut.is_shut:
            assert now >= shut.until, "a permit while the gate is closed"
            probes = [
                h.id
                for h in self.of(Permit)
                if h.record.endpoint == permit.endpoint and h.id > shut.struck_id and h.ends_at > now
            ]
            assert not probes, f"a second probe beside {probes}"

    def of(self, sort: type) -> list[Held]:
        return [held for held in self.held.values() if isinstance(held.record, sort)]

    def units(self, pool: str) -> int:
        """Units of a pool that are held and come back."""
        held = [h.record for h in self.of(Reservation)]
        return sum(record.units for record in held if record.pool == pool and not record.is_refilling)

    def audit(self, name: str, now: int) -> None:
        """However late each call arrives, upstream never counts more than it allows, as far as is known."""
        for length, limit in self.limits[name].items():
            arrivals = sum(c.count for c in self.charges if c.name == name and c.at > now - length)
            allowed = min(limit, self.learned.get((name, length), limit))
            assert arrivals <= allowed, f"{name}: {arrivals} of {allowed} in {length // SECOND} s"

    # -- ends ------------------------------------------------------------------------------------------------

    def end(self, id: int) -> Held:
        """A grant is over; its id is dead."""
        held = self.dead[id] = self.held.pop(id)
        return held

    def end_bundle(self, id: int) -> None:
        """A bundle is over; what is left of it lives on alone."""
        self.bundles.pop(id, None)
        for held in self.held.values():
            if held.bundle == id:
                held.bundle = 0

    def settle(self, id: int, count: int, now: int) -> None:
        """Of what was charged for `id`, `count` came until now, the rest never."""
        for charge in self.charges:
            if charge.id == id:
                charge.count, charge.at = count, now

    def undo(self, id: int) -> None:
        """A grant nobody heard of was never given."""
        self.end(id)
        self.charges = [charge for charge in self.charges if charge.id != id]

    def renew(self, id: int, now: int, ttl_ns: int = 0) -> None:
        """A lease is held for its time to live from now, but not beyond its preemption."""
        held = self.held[id]
        held.ttl_ns = ttl_ns or held.ttl_ns
        held.ends_at = min(now + held.ttl_ns, held.preempt_at or now + held.ttl_ns)

    # -- upstream --------------------------------------------------------------------------------------------

    def report(self, command: RecordUsage, retry_ns: int | None, now: int) -> None:
        """Take in what upstream answered. Args: retry_ns: its Retry-After, None: it sent none."""
        if not command.is_sent:
            return
        shut, status = self.shut[command.endpoint], command.status_code
        if status == 429 or (status in (403, 503) and retry_ns is not None):
            pause_ns = min(retry_ns or 0, self.rules.limits[command.endpoint].reset_max_ns)
            if command.id > shut.struck_id:
                shut.is_shut, shut.struck_id, shut.until = True, self.last_id, now + pause_ns
            elif shut.is_shut and shut.until > now:
                shut.until = max(shut.until, now + pause_ns)
        elif command.id > shut.struck_id and (command.is_success or 0 < status < 500):
            shut.is_shut = False

    # -- lookups ---------------------------------------------------------------------------------------------

    def overdue(self, now: int) -> list[Any]:
        """Return whatever should have ended by now."""
        ended: list[Any] = [held for held in self.held.values() if held.ends_at <= now]
        ended += [slot for slot in self.slots.values() if slot.claim_until <= now]
        for waiting in self.waiting.values():
            if waiting.times_out_at <= now or 0 < waiting.away_until <= now:
                ended.append(waiting)
        return ended


def claims_of(command: Any) -> list[Any]:
    """Return what a command takes, in the order in which it is taken."""
    if isinstance(command, AcquireBundle):
        return [*command.locks, *command.reservations, *command.permits]
    return [command]
