"""How long the daemon takes to start on a file of many live records, and to take other rules over."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from bench import workload
from bench.daemon import serving
from bench.figures import Figure, figure
from coordd.core.commands import RequestLock, ReserveResource, TakePermit
from coordd.core.limits import DAY, HOUR, MINUTE
from coordd.core.machine import Command, Machine
from coordd.core.records import Batch
from coordd.core.rules import LimitRule, Rules
from coordd.engine import Engine
from coordd.store.sqlite import SqliteStore
from coordd.v1 import engagement_pb2, engagement_pb2_grpc

START_S_MAX: Final = 10.0
_ROWS_PER_COMMIT: Final = 20_000
_WINDOWS: Final = {15 * MINUTE: 10**9, HOUR: 10**9, DAY: 10**9}


def start_up(folder: Path, records: int, runs: int) -> dict[str, Figure]:
    """Return seconds from the process's start until it says that it serves, and until the first new grant."""
    path = folder / "startup.db"
    held = asyncio.run(_fill(path, records))
    assert held >= records, held  # noqa: S101  -- else the measurement is of fewer
    serving_s, granted_s = [], []
    for _ in range(runs):
        began = time.monotonic()
        with serving(path) as daemon:
            asyncio.run(_first_grant(daemon.address))
            granted_s.append(time.monotonic() - began)
            serving_s.append(daemon.start_s)
    reload_s = [asyncio.run(_reload(path)) for _ in range(runs)]
    return {
        f"reload_with_{records}_records_s": figure(reload_s, "s"),
        f"start_with_{records}_records_s": figure(serving_s, "s", at_most=START_S_MAX),
        f"first_grant_with_{records}_records_s": figure(granted_s, "s"),
        f"data_file_with_{records}_records_mib": figure([path.stat().st_size / 2**20], "MiB"),
    }


async def _first_grant(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = engagement_pb2_grpc.EngagementServiceStub(channel)
        request = engagement_pb2.RequestLockRequest(
            item=f"new:{time.time_ns()}", worker="bench", kind=workload.PLAIN_KIND
        )
        # However long the recovery's own commit takes.
        assert (await stub.RequestLock(request, timeout=300)).HasField("granted")  # noqa: S101


async def _reload(path: Path) -> float:
    """Return how long all calls wait for other rules, in seconds, without any load besides."""
    engine = Engine(_rules(), SqliteStore(path))
    await engine.start()
    try:
        began = time.monotonic()
        await engine.reload(_rules(), history_retention_ns=0)
        return time.monotonic() - began
    finally:
        await engine.stop()


def _rules() -> Rules:
    limits = {"ample": LimitRule(windows=_WINDOWS)}
    return Rules(kinds=workload.RULES.kinds, types=workload.RULES.types, pools={}, limits=limits)


async def _fill(path: Path, records: int) -> int:
    """Write a file as the daemon would have; return how many live records are in it."""
    store = SqliteStore(path)
    await store.open(0)
    try:
        return await _write(store, records)
    finally:
        await store.close()


async def _write(store: SqliteStore, records: int) -> int:
    now = time.time_ns()
    machine = Machine(_rules())
    machine.recover({}, 0, now)
    sequence = 0
    for index, command in enumerate(_commands(records), start=1):
        machine.apply(command, now)
        if index % _ROWS_PER_COMMIT == 0 or index >= records:
            sequence += 1
            await _commit(store, machine, sequence, now)
    counts = machine.counts()
    return counts.locks + counts.reservations + counts.permits + counts.waiters


async def _commit(store: SqliteStore, machine: Machine, sequence: int, now: int) -> None:
    puts, deletes = machine.take_changes()
    batch = Batch(sequence=sequence, instant=now, last_id=machine.last_id, puts=puts, deletes=deletes)
    await store.commit(batch)


def _commands(records: int) -> Iterator[Command]:
    """Yield what makes as many live records: 7 parts locks, 1 each reservations, permits and waiters."""
    part = records // 10
    for request in workload.lock_requests(0, records - 3 * part, kind=workload.PLAIN_KIND, has_ids=True):
        yield RequestLock(
            item=request.item,
            kind=request.kind,
            worker=request.worker,
            request_id=request.request_id,
            ttl_ns=DAY,
        )
    for index in range(part):
        number = 10 * records + index
        worker, request_id = f"worker-{index % workload.WORKERS}", workload.request_id(number)
        yield ReserveResource(
            type="db_connection", resource_id=f"db-{index}", worker=worker, request_id=request_id, ttl_ns=DAY
        )
        yield TakePermit(endpoint="ample", worker=worker, request_id=workload.request_id(number + part))
        yield RequestLock(
            item=f"tweet:{1_700_000_000_000_000_000 + index}",
            kind=workload.PLAIN_KIND,
            worker=worker,
            request_id=workload.request_id(number + 2 * part),
            wait_ns=DAY,
        )
