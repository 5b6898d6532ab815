"""The whole state at one instant: as rows, which is what a store should hold, and as one hash."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

import msgspec

from coordd.core.parts import Parts
from coordd.core.records import (
    Booking,
    Bundle,
    Cell,
    EndedRequest,
    Lock,
    Permit,
    Record,
    Reservation,
    Row,
    Table,
)

_LIVE_TABLES: Final[dict[Table, type]] = {
    Table.LOCKS: Lock,
    Table.RESERVATIONS: Reservation,
    Table.PERMITS: Permit,
    Table.BOOKINGS: Booking,
    Table.BUNDLES: Bundle,
}


def snapshot(parts: Parts, now: int) -> dict[Table, list[Row]]:
    """Return every durable record as it stands, by table, in order.

    What a store should hold, expired charges aside.
    """
    ledger = parts.ledger
    records: dict[Table, Iterable[Record]] = {
        Table.ENGAGEMENTS: parts.locks.engagements(),
        Table.CELLS: _cells(parts, now),
        Table.WAITERS: [waiter for waiter in parts.waits.waiters.values() if waiter.command.request_id],
        Table.HOLD_TIMES: ledger.hold_times.values(),
        Table.EFFICIENCIES: parts.sharing.efficiencies(),
        Table.OVERRIDES: parts.overrides.overrides.values(),
        Table.SESSIONS: ledger.sessions.values(),
        Table.ESCALATIONS: parts.escalations.all(),
        Table.FORECASTS: parts.rate_limits.forecasts(),
        Table.GATES: parts.rate_limits.gates(),
        Table.CAPACITIES: parts.reservations.capacities.records(),
        Table.LEARNED_LIMITS: parts.rate_limits.learned(),
        Table.FOREIGN_USAGES: parts.rate_limits.foreign(),
        Table.ENDED_REQUESTS: [
            ended for ended in ledger.requests.values() if isinstance(ended, EndedRequest)
        ],
    }
    for table, type_ in _LIVE_TABLES.items():
        records[table] = [live for live in ledger.live.values() if isinstance(live, type_)]
    return {table: sorted(record.row() for record in records.get(table, ())) for table in Table}


def digest(parts: Parts, now: int) -> bytes:
    """Return a hash of the whole state as of the last instant seen.

    Durable or not, whatever decisions depend on.
    """
    waits = sorted(
        (waiter.id, waiter.away_until, repr(waiter.key), waiter.order_ns, waiter.escalate_at)
        for waiter in parts.waits.waiters.values()
    )
    late = sorted((session.worker, session.late_at) for session in parts.ledger.sessions.values())
    aside = sorted((key, sorted(marks)) for key, marks in parts.queues.aside.items())
    undurable = (parts.locks.rests(), late, aside, parts.rate_limits.pending(), parts.sharing.state())
    state = (now, parts.ledger.last_id, snapshot(parts, now), waits, undurable)
    return blake2b(msgspec.msgpack.encode(state), digest_size=16).digest()


def _cells(parts: Parts, now: int) -> Iterator[Cell]:
    limits = [limit.windows for limit in parts.rate_limits]
    pools = [pool.windows for pool in parts.reservations if pool.windows is not None]
    for windows in limits + pools:
        windows.roll(now)
        for window in windows.of:
            yield from (cell for cell in window.cells() if cell.count)
