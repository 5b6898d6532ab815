"""ReservationManager: leased holdings, exclusive by resource id or counted in units of a pool.

Owns: who holds which resource, how many units of each pool are held, and the windows of the pools that
refill.
Rules: a pool serves its queue strictly in order; a large request at its head is not overtaken by small ones,
so it can't starve. Reasons are looked at in this order: the resource (HELD, QUEUED_AHEAD), then the pool
(UNITS_TAKEN or WINDOW_FULL, QUEUED_AHEAD). Units of a refilling pool are charged like permits and never come
back, save those reported unused.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coordd.core.claims import Blocked
from coordd.core.commands import ReleaseResource, RenewReservation, ReserveResource
from coordd.core.errors import InvalidArgument, OutOfRange
from coordd.core.held_units import HeldUnits
from coordd.core.holders import Holders
from coordd.core.ledger import Ledger, lease_lost, not_holder
from coordd.core.outcomes import Reason, Renewed, ResourceReleased
from coordd.core.queues import QueueKey, Queues, Rank
from coordd.core.rate_limits import (
    blocked_by_windows,
    headroom_of,
    is_overridden,
    order_of,
    window_views,
    windows_of,
)
from coordd.core.records import Reservation, Table
from coordd.core.rules import PRIORITIES, PoolRule, Rules, TypeRule
from coordd.core.shared_windows import SharedWindows
from coordd.core.shares import Shares
from coordd.core.sharing import Sharing
from coordd.core.views import AvailabilityView, PoolView
from coordd.core.windows import Windows


class Pool:
    """A pool of units: `held` of `capacity`, or `windows` that refill.

    `held_by_class`: index = priority. `headroom` None: no class must leave anything to others. `shares`
    None: workers do not share it; else `units` has what each holds.
    """

    __slots__ = (
        "capacity",
        "headroom",
        "held",
        "held_by_class",
        "key",
        "name",
        "rule",
        "shares",
        "units",
        "windows",
    )

    def __init__(self, name: str, rule: PoolRule, windows: Windows | None) -> None:
        self.name = name
        self.rule = rule
        self.capacity = rule.capacity
        self.held = 0
        self.held_by_class = [0] * (len(PRIORITIES) + 1)
        self.windows = windows
        self.headroom = headroom_of(rule if rule.limit is None else rule.limit)
        self.key: QueueKey = ("pool", name)
        self.units = HeldUnits(lambda: self.capacity)
        self.shares: Shares | None = None

    def units_max(self) -> int:
        """Return the most that can ever be held at once."""
        return self.capacity if self.windows is None else self.windows.smallest()

    def units_max_of(self, priority: int) -> int:
        """Return the most that a class can ever hold at once."""
        if self.headroom is None:
            return self.units_max()
        if self.windows is not None:
            return self.headroom.largest(priority, self.windows)
        return self.capacity - self.headroom.floor(priority, self.capacity)

    def hold(self, reservation: Reservation, units: int) -> None:
        """Count units as held; below 0: as given back."""
        self.held += units
        self.held_by_class[reservation.priority] += units
        if self.shares is not None:
            self.units.hold(reservation.worker, units, reservation.granted_at)

    def held_above(self, priority: int) -> int:
        """Return what classes above `priority` hold."""
        return sum(self.held_by_class[priority + 1 :])

    def free_for(self, priority: int) -> int:
        """Return how many units a class may take now: what is free, less what classes above are still due."""
        free = self.capacity - self.held
        if self.headroom is None:
            return free
        floor = self.headroom.floor(priority, self.capacity)
        return free - max(0, floor - self.held_above(priority))

    def may_pass(self, units: int, ahead: Sequence[int], priority: int) -> bool:
        """Whether a class takes no more than what all the classes `ahead` must leave to it anyway."""
        headroom = self.headroom
        return headroom is not None and all(
            class_ < priority and self.held_above(class_) + units <= headroom.floor(class_, self.capacity)
            for class_ in ahead
        )


class Wanted(NamedTuple):
    """What a command comes down to: an exclusive resource ((): none) and `units` of a pool (None: none)."""

    key: QueueKey
    pool: Pool | None
    units: int


class Reservations:
    """Reservations, resources and pools."""

    __slots__ = ("_changed", "_held", "_ledger", "_pools", "_queues", "_types", "count")

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
            pool.shares = order_of(pool.key, rule, pool.headroom, used, queues=queues, sharing=sharing)
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
        if key and pool is not None:
            # Whoever heads the pool's queue and wants the same resource is to hold it up no longer.
            self._ledger.freed.append(pool.key)
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
        return tuple(key for key in (key, pool.key if pool is not None else None) if key)

    def units(self, command: ReserveResource, key: QueueKey) -> int:
        """See `Component.units`."""
        wanted = self.wanted(command)
        return 1 if key == wanted.key else wanted.units

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
            free = pool.free_for(command.priority)
            missing = self._queues.units_ahead(pool.key, rank, now) + units - free
            # The whole capacity comes back once in a mean hold time.
            waits_ns.append(max(missing, 0) * seen.mean_ns // pool.capacity)
        return max(waits_ns)

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
            capacity=pool.units_max(),
            used=used,
            free=free,
            queued=self._queues.length(pool.key),
            windows=windows,
            is_overridden=(
                pool.capacity != pool.rule.capacity
                if pool.windows is None or limit is None
                else is_overridden(pool.windows, limit)
            ),
        )

    def availability(self, command: ReserveResource, rank: Rank, now: int) -> AvailabilityView:
        """Return whether a command of this rank would be granted, and if not, how long it would wait."""
        blocked = self.check(command, rank, now)
        pool = self.wanted(command).pool
        view = self.view(pool, now) if pool is not None else None
        position = self._queues.position(blocked.key, rank, now) if blocked is not None else 0
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
        if pool.windows is not None:
            return blocked_by_windows(
                pool.windows, pool.headroom, units, rank, now, key=pool.key, queues=self._queues
            )
        if pool.free_for(rank[2]) < units:
            is_kept = pool.capacity - pool.held >= units
            reason = Reason.HEADROOM if is_kept else Reason.UNITS_TAKEN
            return Blocked(reason=reason, subject=pool.name, key=pool.key)
        if self._is_behind(pool, units, rank, now):
            return Blocked(reason=Reason.QUEUED_AHEAD, subject=pool.name, key=pool.key)
        return None

    def _is_behind(self, pool: Pool, units: int, rank: Rank, now: int) -> bool:
        aside = self._queues.units_aside(pool.key, rank) if self._queues.aside else 0
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
    return Pool(name, rule, windows_of(f"pool/{name}", limit, ledger))


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
