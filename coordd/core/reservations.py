"""ReservationManager: leased holdings, exclusive by resource id or counted in units of a pool.

Owns: who holds which resource, how many units of each pool are held, and the windows of the pools that
refill.
Rules: a pool serves its queue strictly in order; a large request at its head is not overtaken by small ones,
so it can't starve. Reasons are looked at in this order: the resource (HELD, QUEUED_AHEAD), then the pool
(UNITS_TAKEN or WINDOW_FULL, QUEUED_AHEAD). Units of a refilling pool are charged like permits and never come
back, save those reported unused. A pool that overflows lets wait, denies, or borrows: units of another pool
that has some free and nobody waiting for them, and that get back to it when they come back.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from coordd.core.capacity import Capacities
from coordd.core.claims import Blocked
from coordd.core.commands import ReleaseResource, RenewReservation, ReserveResource
from coordd.core.errors import InvalidArgument, OutOfRange
from coordd.core.holders import Holders
from coordd.core.ledger import Ledger, lease_lost, not_holder
from coordd.core.limit_views import is_overridden, window_views
from coordd.core.outcomes import Reason, Renewed, ResourceReleased
from coordd.core.oversized import Oversized
from coordd.core.pools import Pool
from coordd.core.queues import QueueKey, Queues, Rank
from coordd.core.records import Reservation, Table
from coordd.core.rules import BORROW, DENY_OVERFLOW, QUEUE, PoolRule, Rules, TypeRule
from coordd.core.shared_windows import SharedWindows, windows_of
from coordd.core.sharing import Sharing
from coordd.core.views import AvailabilityView, PoolView
from coordd.core.window_blocks import WindowBlocks


class Wanted(NamedTuple):
    """What a command comes down to: an exclusive resource ((): none) and `units` of a pool (None: none)."""

    key: QueueKey
    pool: Pool | None
    units: int


class Reservations:
    """Reservations, resources and pools."""

    __slots__ = (
        "_changed",
        "_held",
        "_ledger",
        "_pools",
        "_queues",
        "_types",
        "borrowers",
        "capacities",
        "count",
    )

    def __init__(self, rules: Rules, ledger: Ledger, queues: Queues, sharing: Sharing) -> None:
        self._ledger = ledger
        self._queues = queues
        self._types = rules.types
        self._changed = ledger.changes.of[Table.RESERVATIONS]
        self._held: Holders[Reservation] = Holders()
        self._pools = {name: _pool(name, rule, ledger) for name, rule in sorted(rules.pools.items())}
        for pool in self._pools.values():
            used = SharedWindows(pool.windows) if pool.windows is not None else pool.units
            rule = pool.rule.limit or pool.rule
            pool.shares = sharing.order(pool.key, rule, pool.headroom, used)
            if pool.windows is not None:
                pool.blocks = WindowBlocks(pool.key, pool.windows, queues, headroom=pool.headroom)
            if pool.adaptive is not None:
                queues.orders[pool.larger_key] = Oversized(pool.is_in_reach)
        self.capacities = Capacities((pool.adaptive for pool in self._pools.values()), ledger)
        # The queue of a pool that lends -> the queues of those that borrow from it.
        self.borrowers: dict[QueueKey, list[QueueKey]] = {}
        for pool in self._pools.values():
            if pool.rule.overflow == BORROW:
                self.borrowers.setdefault(self._pools[pool.rule.borrow_from].key, []).append(pool.key)
        # Live reservations.
        self.count = 0

    def __iter__(self) -> Iterator[Pool]:
        """Every pool, by name."""
        return iter(self._pools.values())

    def pool(self, name: str) -> Pool | None:
        """Return the pool of that name, or None."""
        return self._pools.get(name)

    def wanted(self, command: ReserveResource) -> Wanted:
        """Say what a command comes down to. Raises: InvalidArgument."""
        rule = self._types.get(command.type)
        if rule is None:
            raise InvalidArgument(
                "UNKNOWN_TYPE",
                f"The resource type {command.type!r} is not configured; there are: {', '.join(self._types)}.",
                type=command.type,
            )
        pool = self._pool_of(rule, command)
        is_exclusive = bool(command.resource_id) and not rule.pools
        if pool is None:
            _check_without_pool(command)
            return Wanted(_resource_key(command), None, 0)
        return Wanted(_resource_key(command) if is_exclusive else (), pool, command.units or 1)

    # -- Component -------------------------------------------------------------------------------------------

    def check(self, command: ReserveResource, rank: Rank, now: int) -> Blocked | None:
        """See `Component.check`."""
        key, pool, units = self.wanted(command)
        if pool is not None:
            _check_units(pool, units, command.priority)
        blocked = (
            self._check_resource(key, f"{command.type}/{command.resource_id}", rank, now) if key else None
        )
        if blocked is not None or pool is None:
            return blocked
        return self._check_pool(pool, units, rank, now)

    def take(self, command: ReserveResource, now: int) -> Reservation:
        """See `Component.take`."""
        key, pool, units = self.wanted(command)
        asked = pool
        if pool is not None and pool.rule.overflow == BORROW:
            pool = self._source(pool, units, command.priority)
        ttl_ns = command.ttl_ns or self._types[command.type].ttl_ns
        expires_at = now + ttl_ns
        if pool is not None and pool.windows is not None:
            expires_at = pool.windows.take(command.worker, units, now, command.priority)
        reservation = Reservation(
            id=self._ledger.next_id(),
            type=command.type,
            resource_id=command.resource_id,
            pool=pool.name if pool is not None else "",
            units=units,
            worker=command.worker,
            granted_at=now,
            expires_at=expires_at,
            ttl_ns=expires_at - now,
            is_refilling=pool is not None and pool.windows is not None,
            request_id=command.request_id,
            priority=command.priority,
        )
        self._hold(reservation, key)
        if pool is not None and pool.shares is not None:
            pool.shares.given(command.worker, units, command.priority, now)
        if key and asked is not None:
            # Whoever heads the pool's queue and wants the same resource is to hold it up no longer.
            self._ledger.freed.append(asked.key)
        self._changed[reservation.id] = reservation
        return reservation

    def validate(self, command: ReserveResource) -> None:
        """See `Component.validate`."""
        wanted = self.wanted(command)
        if wanted.pool is not None:
            _check_units(wanted.pool, wanted.units, command.priority)

    def keys(self, command: ReserveResource) -> tuple[QueueKey, ...]:
        """See `Component.keys`."""
        key, pool, _ = self.wanted(command)
        keys = (key,) if key else ()
        if pool is None:
            return keys
        return (*keys, pool.key) if pool.adaptive is None else (*keys, pool.larger_key, pool.key)

    def units(self, command: ReserveResource, key: QueueKey) -> int:
        """See `Component.units`."""
        wanted = self.wanted(command)
        return 1 if key == wanted.key else wanted.units

    def blocked_together(self, commands: Iterable[ReserveResource]) -> Blocked | None:
        """Return what blocks commands that are each free, but not all at once: what is borrowed is short."""
        # Those that borrow last: each of the others has a pool of its own, and room there.
        drawn = sorted(self._drawn(commands), key=lambda each: each[0] is not each[1])
        taken: Counter[str] = Counter()
        for asked, source, units, priority in drawn:
            taken[source.name] += units
            if source.free_for(priority) < taken[source.name]:
                return Blocked(reason=Reason.UNITS_TAKEN, subject=asked.name, key=asked.key)
        return None

    def estimate(self, command: ReserveResource, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.estimate`: the longer of the wait for the resource and that for the units."""
        key, pool, units = self.wanted(command)
        if pool is not None and pool.windows is not None:
            return max(0, blocked.retry_at - now)
        seen = self._ledger.hold_times.get(f"reservation/{command.type}")
        if seen is None:
            return None
        waits_ns = [0]
        if key:
            held = self._held.get(key)
            ends_at = min(held.granted_at + seen.mean_ns, held.expires_at) if held is not None else now
            waits_ns.append(
                max(ends_at - now, 0) + (self._queues.position(key, rank, now) - 1) * seen.mean_ns
            )
        if pool is not None:
            wait_ns = self._units_estimate(pool, units, rank, seen.mean_ns, now)
            if wait_ns is None:
                return None
            waits_ns.append(wait_ns)
        return max(waits_ns)

    def least_wait(self, command: ReserveResource, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.least_wait`: windows are known, hold times are learnt."""
        _, pool, units = self.wanted(command)
        if pool is not None and pool.blocks is not None and blocked.key == pool.key:
            return pool.blocks.least_wait(units, rank, blocked, now)
        is_known = self._ledger.has_observed(f"reservation/{command.type}")
        return self.estimate(command, rank, blocked, now) if is_known else None

    def is_for(self, command: ReserveResource, grant: object) -> bool:
        """See `Component.is_for`."""
        return (
            isinstance(grant, Reservation | ReserveResource)
            and (grant.type, grant.resource_id) == (command.type, command.resource_id)
            and (grant.units or 1) == (command.units or 1)
        )

    # -- commands --------------------------------------------------------------------------------------------

    def renew(self, command: RenewReservation, now: int) -> Renewed:
        """Hold a reservation for its time to live from now."""
        reservation = self._own(command, now)
        if reservation is None:
            raise lease_lost("reservation", command.id)
        if reservation.is_refilling:
            raise InvalidArgument(
                "NOT_RENEWABLE",
                f"Units of the refilling pool {reservation.pool} can't be renewed.",
                id=command.id,
            )
        reservation.ttl_ns = command.ttl_ns or reservation.ttl_ns
        self.extend(reservation, now)
        return Renewed(grant=reservation)

    def extend(self, reservation: Reservation, now: int) -> None:
        """Hold a live reservation for its time to live from now, but not beyond its preemption."""
        reservation.expires_at = now + reservation.ttl_ns
        if reservation.preempt_at:
            reservation.expires_at = min(reservation.expires_at, reservation.preempt_at)
        self._ledger.deadlines.not_after(reservation, reservation.expires_at)
        self._changed[reservation.id] = reservation

    def release(self, command: ReleaseResource, now: int) -> ResourceReleased:
        """Give a reservation back."""
        reservation = self._own(command, now)
        if reservation is None:
            return ResourceReleased(reservation=None)
        if command.unused_units > (reservation.units if reservation.is_refilling else 0):
            raise InvalidArgument(
                "INVALID_COUNT",
                f"{command.unused_units} unused units can't go back: only those of a refilling pool do.",
                field="unused_units",
                units=reservation.units if reservation.is_refilling else 0,
            )
        pool = self._pools.get(reservation.pool)
        if pool is not None and pool.adaptive is not None and (command.result or command.latency_ns):
            self.capacities.learn(
                pool.adaptive,
                granted_at=reservation.granted_at,
                units=reservation.units,
                result=command.result,
                latency_ns=command.latency_ns,
                now=now,
            )
        self._settle(reservation, command.unused_units, now)
        self._drop(reservation)
        self._ledger.end_request(reservation.worker, reservation.request_id, now)
        self._report(reservation, now, is_success=True)
        self._ledger.observe_hold(f"reservation/{reservation.type}", now - reservation.granted_at)
        return ResourceReleased(reservation=reservation)

    def expire(self, reservation: Reservation, now: int) -> bool:
        """End a reservation whose lease has run out, or postpone if it was renewed.

        Say whether it has ended.
        """
        if reservation.expires_at > now:
            self._ledger.deadlines.schedule(reservation, reservation.expires_at)
            return False
        self._report(reservation, now, is_success=False)
        self.force(reservation, now)
        return True

    def force(self, reservation: Reservation, now: int) -> None:
        """End a reservation as if all of its units were used."""
        # Units of a refilling pool stay charged at their latest possible use: their holder may not know yet.
        self._drop(reservation)
        self._ledger.end_request(reservation.worker, reservation.request_id, now)

    def undo(self, reservation: Reservation, now: int) -> None:
        """Take back a grant nobody heard of."""
        self._settle(reservation, reservation.units, now)
        self._drop(reservation)

    def holder(self, key: QueueKey) -> Reservation | None:
        """Return the one holder of an exclusive resource; None: nobody, or several."""
        return self._held.only(key)

    # -- recovery and views ----------------------------------------------------------------------------------

    def load(self, reservation: Reservation) -> None:
        """Take a live reservation in as it was stored."""
        rule = self._types.get(reservation.type)
        is_exclusive = bool(reservation.resource_id) and not (rule is not None and rule.pools)
        self._hold(reservation, _resource_key(reservation) if is_exclusive else ())

    def view(self, pool: Pool, now: int) -> PoolView:
        """Return how full a pool is."""
        windows = window_views(pool.windows, now) if pool.windows is not None else ()
        used = max((window.used for window in windows), default=pool.held)
        free = min((window.remaining for window in windows), default=max(0, pool.capacity - pool.held))
        limit = pool.rule.limit
        return PoolView(
            name=pool.name,
            capacity=pool.capacity if pool.windows is None else pool.units_max(),
            used=used,
            free=free,
            queued=self._queues.length(pool.key) + self._queues.length(pool.larger_key),
            windows=windows,
            is_overridden=(
                _is_changed(pool)
                if pool.windows is None or limit is None
                else is_overridden(pool.windows, limit)
            ),
            capacity_min=pool.rule.capacity_min,
            capacity_max=pool.rule.capacity_max,
            overflow=pool.rule.overflow,
            is_fair=(limit or pool.rule).is_fair,
        )

    def availability(self, command: ReserveResource, rank: Rank, now: int) -> AvailabilityView:
        """Return whether a command of this rank would be granted, and if not, how long it would wait."""
        blocked = self.check(command, rank, now)
        pool = self.wanted(command).pool
        view = self.view(pool, now) if pool is not None else None
        is_of_use = blocked is not None and bool(blocked.key)
        position = self._queues.position(blocked.key, rank, now) if blocked is not None and is_of_use else 0
        return AvailabilityView(
            blocked_by=blocked.refused(position) if blocked is not None else None,
            position=position,
            wait_ns=self.estimate(command, rank, blocked, now) if blocked is not None else 0,
            free_units=view.free if view is not None else 0,
            capacity=view.capacity if view is not None else 0,
        )

    # --------------------------------------------------------------------------------------------------------

    def _check_resource(self, key: QueueKey, subject: str, rank: Rank, now: int) -> Blocked | None:
        held = self._held.get(key)
        if held is not None:
            return Blocked(
                reason=Reason.HELD, subject=subject, key=key, retry_at=held.expires_at, holder=held.worker
            )
        if self._queues.is_claimed(key, rank, now):
            return Blocked(reason=Reason.QUEUED_AHEAD, subject=subject, key=key)
        return None

    def _check_pool(self, pool: Pool, units: int, rank: Rank, now: int) -> Blocked | None:
        blocked = self._check_own(pool, units, rank, now)
        if blocked is None or pool.rule.overflow == QUEUE:
            return blocked
        if pool.rule.overflow == DENY_OVERFLOW:
            return replace(blocked, key=(), frees_at=0)
        return None if self._can_borrow(pool, units, rank, now) else blocked

    def _can_borrow(self, pool: Pool, units: int, rank: Rank, now: int) -> bool:
        """Whether another pool has units that nobody there, and nobody before `rank` here, waits for."""
        lender = self._pools[pool.rule.borrow_from]
        return (
            lender.free_for(rank[2]) >= units
            and lender.key not in self._queues
            and not self._queues.units_aside(lender.key, rank)
            and not self._is_behind(pool, units, rank, now)
        )

    def _source(self, pool: Pool, units: int, priority: int) -> Pool:
        """Return the pool that units come from, of one that may borrow, if they can be had."""
        return pool if pool.free_for(priority) >= units else self._pools[pool.rule.borrow_from]

    def _drawn(self, commands: Iterable[ReserveResource]) -> Iterator[tuple[Pool, Pool, int, int]]:
        """Yield the pool asked, that which the units come from, how many, and the class."""
        for command in commands:
            _, pool, units = self.wanted(command)
            if pool is not None and pool.windows is None:
                yield pool, self._source(pool, units, command.priority), units, command.priority

    def _units_estimate(self, pool: Pool, units: int, rank: Rank, mean_ns: int, now: int) -> int | None:
        """Return how long units will take to come back, or None if nobody knows when there are so many."""
        if units > pool.units_of(rank[2]):
            return None
        pools = [pool]
        if pool.rule.overflow == BORROW:
            pools.append(self._pools[pool.rule.borrow_from])
        free = sum(each.free_for(rank[2]) for each in pools)
        ahead = sum(self._queues.units_ahead(each.key, rank, now) for each in pools)
        # The whole capacity comes back once in a mean hold time.
        return max(ahead + units - free, 0) * mean_ns // sum(each.capacity for each in pools)

    def _check_own(self, pool: Pool, units: int, rank: Rank, now: int) -> Blocked | None:
        if pool.blocks is not None:
            return pool.blocks.check(units, rank, now)
        if pool.free_for(rank[2]) < units:
            if units > pool.units_of(rank[2]):
                return Blocked(reason=Reason.UNITS_TAKEN, subject=pool.name, key=pool.larger_key)
            is_kept = pool.capacity - pool.held >= units
            reason = Reason.HEADROOM if is_kept else Reason.UNITS_TAKEN
            return Blocked(reason=reason, subject=pool.name, key=pool.key)
        if self._is_behind(pool, units, rank, now):
            return Blocked(reason=Reason.QUEUED_AHEAD, subject=pool.name, key=pool.key)
        return None

    def _is_behind(self, pool: Pool, units: int, rank: Rank, now: int) -> bool:
        aside = self._queues.units_aside(pool.key, rank, pool.capacity) if self._queues.aside else 0
        if aside and pool.free_for(rank[2]) < units + aside:
            return True
        if not self._queues.is_ahead(pool.key, rank, now):
            return False
        return pool.headroom is None or not pool.may_pass(
            units, self._queues.classes_ahead(pool.key, rank, now), rank[2]
        )

    def _pool_of(self, rule: TypeRule, command: ReserveResource) -> Pool | None:
        if not rule.pools:
            return self._pools[rule.pool] if rule.pool else None
        name = rule.pools.get(command.resource_id)
        if name is None:
            raise InvalidArgument(
                "UNKNOWN_OPERATION",
                f"{command.resource_id!r} is none of {command.type}'s: {', '.join(sorted(rule.pools))}.",
                operation=command.resource_id,
            )
        return self._pools[name]

    def _own(self, command: RenewReservation | ReleaseResource, now: int) -> Reservation | None:
        reservation = self._ledger.live.get(command.id)
        if not isinstance(reservation, Reservation):
            self._ledger.ended(command.id, "reservation")
            return None
        if reservation.worker != command.worker:
            raise not_holder("reservation", command.id, command.worker)
        return reservation if reservation.expires_at > now else None

    def _hold(self, reservation: Reservation, key: QueueKey) -> None:
        self.count += 1
        self._ledger.live[reservation.id] = reservation
        self._ledger.deadlines.schedule(reservation, reservation.expires_at)
        # Units of a refilling pool are used in time or not at all; no session can keep them.
        if self._ledger.sessions and not reservation.is_refilling:
            self._ledger.begin_lease(reservation.id, reservation)
        if key:
            self._held.add(key, reservation)
        pool = self._pools.get(reservation.pool)
        if pool is not None and not reservation.is_refilling:
            pool.hold(reservation, reservation.units)

    def _settle(self, reservation: Reservation, unused: int, now: int) -> None:
        pool = self._pools.get(reservation.pool)
        if pool is not None and pool.windows is not None and reservation.is_refilling:
            used = reservation.units - unused
            pool.windows.settle(
                reservation.worker, used, unused, reservation.expires_at, now, priority=reservation.priority
            )

    def _report(self, reservation: Reservation, now: int, *, is_success: bool) -> None:
        """Say how units of a fair pool came back: by release or, held up until then, by their lease's end."""
        pool = self._pools.get(reservation.pool)
        if pool is not None and pool.shares is not None and not reservation.is_refilling:
            pool.shares.reported(reservation.worker, now, is_success=is_success)

    def _drop(self, reservation: Reservation) -> None:
        self.count -= 1
        self._ledger.deadlines.cancel(reservation)
        del self._ledger.live[reservation.id]
        if self._ledger.sessions:
            self._ledger.end_lease(reservation.id, reservation)
        if self._ledger.members:
            self._ledger.part(reservation.id)
        self._changed[reservation.id] = None
        key = _resource_key(reservation)
        self._held.remove(key, reservation)
        self._ledger.freed.append(key)
        pool = self._pools.get(reservation.pool)
        if pool is not None:
            if not reservation.is_refilling:
                pool.hold(reservation, -reservation.units)
            self._ledger.freed.append(pool.key)


def _pool(name: str, rule: PoolRule, ledger: Ledger) -> Pool:
    limit = rule.limit
    if limit is None:
        return Pool(name, rule, None)
    return Pool(name, rule, windows_of(f"pool/{name}", limit, ledger.changes.cells))


def _is_changed(pool: Pool) -> bool:
    return pool.capacity != pool.rule.capacity if pool.adaptive is None else pool.adaptive.is_pinned


def _check_units(pool: Pool, units: int, priority: int) -> None:
    units_max = pool.units_max_of(priority)
    if units > units_max:
        raise OutOfRange(
            "UNITS_ABOVE_CAPACITY",
            f"{units} units are more than the pool {pool.name} has: {units_max}.",
            pool=pool.name,
            units=units,
            capacity=units_max,
        )


def _resource_key(of: ReserveResource | Reservation) -> QueueKey:
    return ("resource", of.type, of.resource_id)


def _check_without_pool(command: ReserveResource) -> None:
    if command.units:
        raise InvalidArgument(
            "NO_POOL", f"The type {command.type} has no pool, hence no units.", type=command.type
        )
    if not command.resource_id:
        raise InvalidArgument(
            "INVALID_ID",
            f"The type {command.type} has no pool, hence needs a resource_id.",
            field="resource_id",
        )
