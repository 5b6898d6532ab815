"""What the store's tests share: one record of each table, and batches."""

import hashlib
from pathlib import Path
from typing import Any

from coordd.core import records
from coordd.core.records import Batch, Key, Row, Table
from coordd.store.sqlite import SqliteStore

HISTORY_NS = 1_000


def engagement(token: int, **changes: Any) -> records.Engagement:
    values: dict[str, Any] = {
        "token": token,
        "item": "tweet:1",
        "kind": "reply",
        "worker": "w1",
        "outcome": 1,
        "at": token,
        "granted_at": 1,
        "ended_by": 0,
    }
    return records.Engagement(**(values | changes))


def lock(token: int, worker: str = "w1") -> records.Lock:
    return records.Lock(
        token=token,
        item=f"tweet:{token}",
        kind="reply",
        worker=worker,
        granted_at=1,
        expires_at=9,
        ttl_ns=8,
        request_id="ünï code",
    )


def reservation(id: int, type: str = "content", worker: str = "w1") -> records.Reservation:
    return records.Reservation(
        id=id,
        type=type,
        resource_id="r",
        pool="p",
        units=3,
        worker=worker,
        granted_at=1,
        expires_at=9,
        ttl_ns=8,
        is_refilling=True,
        request_id="q",
    )


RECORDS: dict[Table, records.Record] = {
    Table.LOCKS: lock(2**62),
    Table.ENGAGEMENTS: engagement(2, outcome=3, ended_by=1, request_id="q"),
    Table.RESERVATIONS: reservation(3),
    Table.PERMITS: records.Permit(
        id=4, endpoint="search", worker="w1", count=2, granted_at=1, use_by=5, request_id="q"
    ),
    Table.BOOKINGS: records.Booking(
        id=5,
        endpoint="search",
        worker="w1",
        count=2,
        booked_at=1,
        execute_at=5,
        claim_until=6,
        use_by=7,
        request_id="q",
    ),
    Table.CELLS: records.Cell("search", 900, 17, "w1", 3),
    Table.WAITERS: records.WaiterRow(
        id=6,
        order_ns=-5,
        enqueued_at=1,
        times_out_at=9,
        worker="w1",
        request_id="q",
        component="locks",
        command='{"item":"tweet:1"}',
    ),
    Table.HOLD_TIMES: records.HoldTime(subject="lock/reply", mean_ns=17, count=4),
    Table.OVERRIDES: records.Override(subject="search", window_ns=900, value=5, configured=6),
    Table.ENDED_REQUESTS: records.EndedRequest(worker="w1", request_id="q", at=3),
    Table.BUNDLES: records.Bundle(
        id=8, worker="w1", granted_at=1, members="[7, 4]", claims="{}", request_id="q"
    ),
    Table.SESSIONS: records.Session(
        worker="w1",
        id=3,
        worker_class="c",
        weight_milli=1500,
        labels="{}",
        opened_at=1,
        expires_at=9,
        ttl_ns=8,
    ),
    Table.ESCALATIONS: records.Escalation(
        id=9,
        waiter_id=6,
        subject="tweet:1",
        worker="w1",
        priority=2,
        waited_ns=3,
        holder="w2",
        holder_id=7,
        opened_at=1,
        decide_by=9,
        decision=4,
        decided_by="me",
    ),
    Table.GATES: records.Gate(endpoint="search", closed_until=9, strikes=2, struck_at=1, probe_id=4),
    Table.FOREIGN_USAGES: records.ForeignUsage(subject="limit/search", window_ns=60, count=3, until=9),
    Table.LEARNED_LIMITS: records.LearnedLimit(
        subject="limit/search", window_ns=900, value=5, configured=6, at=1
    ),
    Table.EFFICIENCIES: records.Efficiency(subject="limit/search", worker="w1", success_ppm=9, count=4),
    Table.FORECASTS: records.Forecast(
        subject="limit/search", priority=4, level_ppm=17, at=1, hour_count=-1, profile="[1]"
    ),
    Table.CAPACITIES: records.Capacity(pool="p", capacity_milli=1500, at=1, decreased_at=1),
}


def batch(
    sequence: int,
    puts: dict[Table, list[Row]] | None = None,
    deletes: dict[Table, list[Key]] | None = None,
    **changes: Any,
) -> Batch:
    marks = {"instant": sequence * 10, "last_id": sequence * 100} | changes
    return Batch(sequence=sequence, puts=puts or {}, deletes=deletes or {}, **marks)


def digests(directory: Path) -> dict[str, str]:
    """Of all files but the owner file, which anybody who tries to open the store makes."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.suffix != ".owner"
    }


async def reopen(store: SqliteStore, history_ns: int = HISTORY_NS) -> Any:
    """Close and open again; returns what `open` does."""
    await store.close()
    return await store.open(history_ns)
