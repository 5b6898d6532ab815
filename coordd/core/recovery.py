"""How what a store has kept becomes a machine's memory again.

Rules: tables are taken in in one order, since what some hold is about what others do. Leases are extended to
at least `recovery_grace` from now, since their holders could not renew while we were down. Waiters are away
until their clients return. What the rules no longer know is dropped, from the store as well.
Must not know: how a store reads its rows, or what a new decision changes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from coordd.core.parts import Parts
from coordd.core.records import (
    Booking,
    Bundle,
    Capacity,
    Cell,
    Efficiency,
    EndedRequest,
    Engagement,
    Escalation,
    Forecast,
    ForeignUsage,
    Gate,
    HoldTime,
    LearnedLimit,
    Lock,
    Override,
    Permit,
    Reservation,
    Row,
    Session,
    Table,
    WaiterRow,
)
from coordd.core.window import left_at


class Recovery:
    """Fills new, empty parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._grace_ns = parts.rules.recovery_grace_ns

    def recover(self, tables: Mapping[Table, Sequence[Row]], last_id: int, now: int) -> None:
        """Take everything in, as it was stored, at `now`. `last_id`: the last one that was given."""
        self._parts.ledger.start_ids(last_id, now)
        self._load(tables, now)

    def _load(self, tables: Mapping[Table, Sequence[Row]], now: int) -> None:
        # What is forgotten first in, first out, is taken in as it came; a store keeps it by worker.
        ended = sorted(tables.get(Table.ENDED_REQUESTS, ()), key=lambda row: int(row[2]))
        tables = {**tables, Table.ENDED_REQUESTS: ended}
        self._load_cells(tables.get(Table.CELLS, ()), now)
        for table, load in self._loaders(now).items():
            for row in tables.get(table, ()):
                load(row)
        self._parts.rate_limits.load_paces(now)
        self._parts.sharing.recover(now)
        self._parts.ledger.freed.clear()

    def _loaders(self, now: int) -> dict[Table, Callable[[Row], None]]:
        """Return how each table's rows are taken in, in the order in which they must be."""
        return {
            Table.OVERRIDES: lambda row: self._parts.overrides.load(Override(*row)),
            # After what is pinned.
            Table.CAPACITIES: lambda row: self._parts.reservations.capacities.load(Capacity(*row)),
            Table.LEARNED_LIMITS: lambda row: self._parts.rate_limits.load_learned(LearnedLimit(*row)),
            Table.FOREIGN_USAGES: lambda row: self._parts.rate_limits.load_foreign(ForeignUsage(*row), now),
            Table.HOLD_TIMES: self._load_hold_time,
            Table.EFFICIENCIES: lambda row: self._parts.sharing.load(Efficiency(*row)),
            Table.ENDED_REQUESTS: lambda row: self._parts.ledger.remember_ended(EndedRequest(*row)),
            Table.ENGAGEMENTS: lambda row: self._parts.locks.load_engagement(Engagement(*row), now),
            # Before what they keep.
            Table.SESSIONS: lambda row: self._load_session(Session(*row), now),
            Table.LOCKS: lambda row: self._load_lock(row, now),
            Table.RESERVATIONS: lambda row: self._load_reservation(row, now),
            Table.PERMITS: self._load_permit,
            # After the permits: a probe that is under way is one of them.
            Table.GATES: lambda row: self._parts.rate_limits.load_gate(Gate(*row)),
            Table.BOOKINGS: self._load_booking,
            Table.FORECASTS: lambda row: self._parts.rate_limits.load_forecast(Forecast(*row)),
            # Their members are there by now.
            Table.BUNDLES: self._load_bundle,
            Table.WAITERS: lambda row: self._load_waiter(row, now),
            # After those they are about.
            Table.ESCALATIONS: lambda row: self._load_escalation(Escalation(*row), now),
        }

    def _load_hold_time(self, row: Row) -> None:
        seen = HoldTime(*row)  # type: ignore[arg-type]
        self._parts.ledger.hold_times[seen.subject] = seen

    def _load_cells(self, rows: Iterable[Row], now: int) -> None:
        cells = sorted((Cell(*row) for row in rows), key=Cell.key)  # type: ignore[arg-type]
        for name, of_name in groupby(cells, key=lambda cell: cell.limit):
            windows = self._parts.overrides.windows(name)
            if windows is not None:
                dropped = windows.load(of_name, now)
            else:
                # Left in the store until they have left their window: the configuration may know them again
                # at the next start, and upstream has counted them all the while.
                dropped = [cell for cell in of_name if left_at(cell) <= now]
            for gone in dropped:
                gone.count = 0
                self._parts.ledger.changes.cells[gone] = None

    def _load_lock(self, row: Row, now: int) -> None:
        lock = Lock(*row)  # type: ignore[arg-type]
        self._extend(lock, now)
        self._parts.locks.load(lock)
        self._bind_request(lock.worker, lock.request_id, lock)

    def _load_reservation(self, row: Row, now: int) -> None:
        reservation = Reservation(*row)  # type: ignore[arg-type]
        # A store has no booleans.
        reservation.is_refilling = bool(reservation.is_refilling)
        if not reservation.is_refilling:
            self._extend(reservation, now)
        self._parts.reservations.load(reservation)
        self._bind_request(reservation.worker, reservation.request_id, reservation)

    def _extend(self, lease: Lock | Reservation, now: int) -> None:
        self._parts.preemption.recover(lease, now)

    def _load_session(self, session: Session, now: int) -> None:
        self._parts.sessions.load(session, now)

    def _load_waiter(self, row: Row, now: int) -> None:
        self._parts.waits.load(WaiterRow(*row), now)  # type: ignore[arg-type]

    def _load_permit(self, row: Row) -> None:
        permit = Permit(*row)  # type: ignore[arg-type]
        if permit.endpoint in self._parts.rate_limits:
            self._parts.rate_limits.load(permit)
            self._bind_request(permit.worker, permit.request_id, permit)
        else:
            self._parts.ledger.changes.of[Table.PERMITS][permit.id] = None

    def _load_booking(self, row: Row) -> None:
        booking = Booking(*row)  # type: ignore[arg-type]
        if booking.endpoint in self._parts.rate_limits:
            self._parts.rate_limits.bookings.load(booking)
            self._bind_request(booking.worker, booking.request_id, booking)
        else:
            self._parts.ledger.changes.of[Table.BOOKINGS][booking.id] = None

    def _load_bundle(self, row: Row) -> None:
        bundle = Bundle(*row)  # type: ignore[arg-type]
        if self._parts.bundles.load(bundle):
            self._bind_request(bundle.worker, bundle.request_id, bundle)

    def _load_escalation(self, escalation: Escalation, now: int) -> None:
        waiter = self._parts.waits.waiters.get(escalation.waiter_id)
        # Nobody could decide while we were down.
        self._parts.escalations.load(escalation, waiter, now + self._grace_ns)

    def _bind_request(self, worker: str, request_id: str, grant: object) -> None:
        if request_id:
            self._parts.ledger.requests[(worker, request_id)] = grant
