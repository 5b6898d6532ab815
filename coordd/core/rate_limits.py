"""RateLimiter: permits to call endpoints, in several rolling windows at once.

Owns: each endpoint's limit and open permits. A permit is charged when it is taken; its record only serves to
settle it, so one whose time has passed is simply dropped and stays charged.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from msgspec.structs import replace

from coordd.core.bookings import Bookings
from coordd.core.claims import Blocked
from coordd.core.commands import RecordUsage, TakePermit
from coordd.core.forecasts import Forecasts
from coordd.core.gates import Gates
from coordd.core.headers import NOT_TOLD, parse
from coordd.core.ledger import Ledger, not_holder
from coordd.core.limit import Limit, limit_of
from coordd.core.limit_views import limit_view
from coordd.core.limits import DUE_PER_TICK_MAX
from coordd.core.outcomes import Reason, Refused, UsageRecorded
from coordd.core.queues import QueueKey, Queues, Rank
from coordd.core.records import Forecast, ForeignUsage, Gate, LearnedLimit, Permit, Table
from coordd.core.rules import Rules
from coordd.core.sharing import Sharing
from coordd.core.upstream import Upstream
from coordd.core.views import LimitView

_TOO_MANY_REQUESTS = 429


class RateLimits:
    """The limits by endpoint."""

    __slots__ = (
        "_changed",
        "_gates",
        "_ledger",
        "_limits",
        "_queues",
        "_upstream",
        "bookings",
        "permits",
    )

    def __init__(self, rules: Rules, ledger: Ledger, queues: Queues, sharing: Sharing) -> None:
        self._ledger = ledger
        self._queues = queues
        self._gates = Gates(ledger)
        self._upstream = Upstream(ledger)
        self._changed = ledger.changes.of[Table.PERMITS]
        # Permits not yet settled.
        self.permits = 0
        self._limits = {
            name: Limit(name, rule, ledger, queues, sharing) for name, rule in sorted(rules.limits.items())
        }
        self.bookings = Bookings(rules, ledger, queues, self._limits, self._gates)

    def __iter__(self) -> Iterator[Limit]:
        """Every limit, by name."""
        return iter(self._limits.values())

    def __contains__(self, endpoint: str) -> bool:
        """Whether the endpoint is configured."""
        return endpoint in self._limits

    def limit(self, endpoint: str) -> Limit:
        """Return an endpoint's limit. Raises: InvalidArgument (UNKNOWN_ENDPOINT)."""
        return limit_of(self._limits, endpoint)

    # -- Component -------------------------------------------------------------------------------------------

    def check(self, command: TakePermit, rank: Rank, now: int) -> Blocked | None:
        """See `Component.check`."""
        limit = self._limits.get(command.endpoint) or self.limit(command.endpoint)
        blocked = limit.blocks.check(command.count, rank, now)
        return blocked if limit.gate is None else self._gates.beside(limit, limit.gate, blocked, now)

    def take(self, command: TakePermit, now: int) -> Permit:
        """See `Component.take`."""
        return self._take(self._limits[command.endpoint], command, command.count, now)

    def validate(self, command: TakePermit) -> None:
        """See `Component.validate`."""
        self.limit(command.endpoint).blocks.check_count(command.count, command.priority)

    def keys(self, command: TakePermit) -> tuple[QueueKey, ...]:
        """See `Component.keys`."""
        return (self.limit(command.endpoint).key,)

    def units(self, command: TakePermit, key: QueueKey) -> int:
        """See `Component.units`."""
        return command.count

    def estimate(self, command: TakePermit, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.estimate`: exact for the first in the queue, if nothing comes back early."""
        if blocked.reason is not Reason.HEADROOM:
            return max(0, blocked.retry_at - now)
        # What is kept for others is more likely to be taken by them than to be set free.
        limit = self._limits[command.endpoint]
        start, hold_ns = max(now, blocked.retry_at), limit.rule.use_within_ns
        kept = limit.kept_at(now, command.priority, command.count, now)
        return limit.windows.earliest(command.count, start, hold_ns, now, kept, since=now).at - now

    def least_wait(self, command: TakePermit, rank: Rank, blocked: Blocked, now: int) -> int:
        """See `Component.least_wait`."""
        limit = self._limits[command.endpoint]
        if limit.gate is not None and blocked.reason is Reason.GATE:
            # A probe may be answered at any moment, and those ahead need no longer than the windows do.
            ahead = self._queues.units_ahead(limit.key, rank, now)
            return max(limit.gate.closed_until, limit.windows.no_sooner(ahead + command.count, now)) - now
        return limit.blocks.least_wait(command.count, rank, blocked, now)

    def is_for(self, command: TakePermit, grant: object) -> bool:
        """See `Component.is_for`."""
        return (
            isinstance(grant, Permit | TakePermit)
            and grant.endpoint == command.endpoint
            and (grant.count == command.count or command.booking_id != 0)
        )

    # -- Arrivals, Estimates ---------------------------------------------------------------------------------

    @property
    def counts_arrivals(self) -> bool:
        """Whether any endpoint learns from who comes."""
        return any(limit.forecasts is not None for limit in self)

    def arrived(self, command: TakePermit, now: int) -> None:
        """See `Arrivals.arrived`."""
        forecasts = self._limits[command.endpoint].forecasts
        if forecasts is not None:
            forecasts.count(command.priority, command.count, now)

    def served(self, command: TakePermit, promised_at: int, now: int) -> None:
        """See `Estimates.served`."""
        self._limits[command.endpoint].promises.observe(promised_at, now)

    def end_bin(self, forecasts: Forecasts) -> None:
        """Learn from the demand of a bin that has ended; what is kept from whom may change."""
        forecasts.end_bin()
        self._ledger.freed.append(forecasts.key)

    # -- commands --------------------------------------------------------------------------------------------

    def claim(self, command: TakePermit, now: int) -> Permit | Refused:
        """Turn a booking whose time has come into a permit."""
        booking = self.bookings.claim(command, now)
        if isinstance(booking, Refused):
            return booking
        return self._take(self._limits[booking.endpoint], command, booking.count, now)

    def record_usage(self, command: RecordUsage, now: int) -> UsageRecorded:
        """Settle a permit.

        Charge it now rather than at its latest possible use, or not at all if nothing was sent.
        """
        limit = self.limit(command.endpoint)
        permit = self._ledger.live.get(command.id)
        if not isinstance(permit, Permit):
            self._ledger.ended(command.id, "permit")
        elif (permit.worker, permit.endpoint) != (command.worker, command.endpoint):
            raise not_holder("permit", command.id, command.worker)
        # Also of a report that comes too late to settle anything: just then upstream may be in trouble.
        limit.violations += command.status_code == _TOO_MANY_REQUESTS
        if not isinstance(permit, Permit) or permit.use_by <= now:
            # It may have been used at the last moment, where it is charged.
            self._hear(limit, command, None, now)
            return UsageRecorded(permit=None)
        refunded = 0 if command.is_sent else permit.count
        used = permit.count - refunded
        limit.windows.settle(permit.worker, used, refunded, permit.use_by, now, priority=permit.priority)
        self._end(permit, now)
        self._hear(limit, command, permit, now)
        if limit.shares is not None and command.is_sent:
            limit.shares.reported(permit.worker, now, is_success=command.is_success)
        # Even a permit that was used may have left a window that it would have been in at its use_by.
        self._ledger.freed.append(limit.key)
        return UsageRecorded(permit=permit, refunded=refunded)

    def expire(self, limit: Limit, now: int) -> list[Permit]:
        """Drop the permits whose time has passed, at most `DUE_PER_TICK_MAX`.

        They stay charged. Return them.
        """
        due = [permit for permit in islice(limit.open.values(), DUE_PER_TICK_MAX) if permit.use_by <= now]
        for permit in due:
            self._end(permit, now)
            self._give_up(limit, permit)
        if limit.open:
            oldest = next(iter(limit.open.values()))
            self._ledger.deadlines.schedule(limit, max(oldest.use_by, now))
        return due

    def undo(self, permit: Permit, now: int) -> None:
        """Take back a permit nobody heard of."""
        limit = self._limits[permit.endpoint]
        limit.windows.settle(permit.worker, 0, permit.count, permit.use_by, now, priority=permit.priority)
        self._drop(permit)
        self._give_up(limit, permit)
        self._ledger.freed.append(limit.key)

    # -- recovery and views ----------------------------------------------------------------------------------

    def load(self, permit: Permit) -> None:
        """Take an open permit in as it was stored; permits come in the order in which they were given."""
        self._open(self._limits[permit.endpoint], permit)

    def load_gate(self, gate: Gate) -> None:
        """Take a gate in as it was stored, after the permits."""
        limit = self._limits.get(gate.endpoint)
        if limit is None:
            self._gates.forget(gate.endpoint)
        else:
            self._gates.load(limit, gate)

    def load_learned(self, learned: LearnedLimit) -> None:
        """Take a learnt limit in as it was stored, after operators' changes."""
        self._upstream.load_limit(self._limits.get(_name(learned.subject)), learned)

    def load_foreign(self, usage: ForeignUsage, now: int) -> None:
        """Take in, as it was stored, what others use."""
        self._upstream.load_foreign(self._limits.get(_name(usage.subject)), usage, now)

    def gates(self) -> list[Gate]:
        """Return the gate of every endpoint of which upstream has refused a call."""
        return [limit.gate for limit in self if limit.gate is not None]

    def heed_operator(self, limit: Limit, lengths_ns: Iterable[int], now: int) -> None:
        """Forget what upstream taught of some windows, and let the next call find out anew."""
        self._upstream.forget(limit, lengths_ns)
        if limit.gate is not None:
            self._gates.end_pause(limit.gate, now)

    def shut_gates(self) -> tuple[Gate, ...]:
        """Return copies of the gates that are not open, as they are now."""
        return tuple(replace(gate) for gate in self.gates() if gate.closed_until)

    def learned(self) -> list[LearnedLimit]:
        """Return every limit that upstream tells otherwise than the configuration."""
        return [learned for limit in self for learned in limit.lessons.limits.values()]

    def foreign(self) -> list[ForeignUsage]:
        """Return what others were last seen to use."""
        return [usage for limit in self for usage in limit.lessons.foreign.values()]

    def load_forecast(self, record: Forecast) -> None:
        """Take in what was learnt of a class's demand, as it was stored; drop it where nobody asks for it."""
        limit = self._limits.get(_name(record.subject))
        forecasts = limit.forecasts if limit is not None else None
        if forecasts is not None:
            forecasts.load(record)
        else:
            self._ledger.changes.of[Table.FORECASTS][(record.subject, record.priority)] = None

    def load_paces(self, now: int) -> None:
        """Find where each pace stands, once all charges are taken in."""
        for limit in self:
            if limit.pace is not None:
                limit.pace.load(now)

    def forecasts(self) -> Iterator[Forecast]:
        """Return what was learnt of each endpoint's demand."""
        for limit in self:
            if limit.forecasts is not None:
                yield from limit.forecasts.records()

    def pending(self) -> list[tuple[object, ...]]:
        """Return what decisions depend on and no record holds.

        That is demand not yet learnt from, paces, and what upstream's headers are evidence of.
        """
        return [
            (
                limit.name,
                limit.forecasts.pending() if limit.forecasts is not None else (),
                limit.pace.free_at if limit.pace is not None else 0,
                limit.lessons.evidence(),
            )
            for limit in self
        ]

    def view(self, limit: Limit, now: int) -> LimitView:
        """Return how full an endpoint's windows are."""
        queued, gate = self._queues.length(limit.key), self._gates.view(limit, now)
        return limit_view(limit, now, queued=queued, gate=gate)

    # --------------------------------------------------------------------------------------------------------

    def _take(self, limit: Limit, command: TakePermit, count: int, now: int) -> Permit:
        permit = Permit(
            id=self._ledger.next_id(),
            endpoint=limit.name,
            worker=command.worker,
            count=count,
            granted_at=now,
            use_by=limit.windows.take(command.worker, count, now, command.priority),
            request_id=command.request_id,
            priority=command.priority,
        )
        if limit.pace is not None:
            limit.pace.take(count, now)
        self._open(limit, permit)
        if limit.gate is not None:
            self._gates.let_through(limit.gate, permit)
        self._changed[permit.id] = permit
        if limit.shares is not None:
            limit.shares.given(permit.worker, count, permit.priority, now)
        return permit

    def _give_up(self, limit: Limit, permit: Permit) -> None:
        if limit.gate is not None:
            self._gates.give_up(limit, limit.gate, permit)

    def _hear(self, limit: Limit, command: RecordUsage, permit: Permit | None, now: int) -> None:
        """Take in what upstream answered. Args: permit: that of the call, if it was settled just now."""
        pause_ns = NOT_TOLD
        if command.headers and command.is_sent:
            told = parse(command.headers, now, limit.rule.reset_form)
            pause_ns = self._upstream.learn(limit, told, permit, now)
        if command.status_code or limit.gate is not None:
            self._gates.report(limit, command, pause_ns, now)
        if permit is None:
            # A settled one frees its key anyway; this may have opened the gate, or raised a limit.
            self._ledger.freed.append(limit.key)

    def _open(self, limit: Limit, permit: Permit) -> None:
        self.permits += 1
        self._ledger.live[permit.id] = permit
        limit.open[permit.id] = permit
        limit.in_flight += permit.count
        if not limit.scheduled:
            self._ledger.deadlines.schedule(limit, permit.use_by)

    def _end(self, permit: Permit, now: int) -> None:
        self._drop(permit)
        self._ledger.end_request(permit.worker, permit.request_id, now)

    def _drop(self, permit: Permit) -> None:
        self.permits -= 1
        del self._ledger.live[permit.id]
        limit = self._limits[permit.endpoint]
        del limit.open[permit.id]
        limit.in_flight -= permit.count
        if self._ledger.members:
            self._ledger.part(permit.id)
        self._changed[permit.id] = None


def _name(subject: str) -> str:
    return subject.partition("/")[2]
