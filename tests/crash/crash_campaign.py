"""`make crash`: kills the real daemon again and again under load, on a file of many live records.

Prints JSON. Rules: what clients were told is judged by `tests/audit`, with what the file says after each
kill. A recovery is timed from the process's launch until it says that it serves, and so is a start on an
empty file: what lies between is what the records cost. Exit code 1 if anything was violated.
"""

import argparse
import asyncio
import json
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final, NamedTuple

import crash_audit as judge
import psutil
from crash_daemon import KIND, Daemon
from crash_history import engaged, held, settled, violations
from crash_rig import Fleet

from coordd.config import load
from coordd.core.commands import RequestLock
from coordd.core.limits import DAY
from coordd.core.machine import Machine
from coordd.core.records import Batch
from coordd.store.sqlite import SqliteStore

_EMPTY_STARTS: Final = 7
_ROWS_PER_COMMIT: Final = 20_000
_BYSTANDER: Final = "bystander"


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[2])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**9))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(Campaign(Path(folder), options).run())
    print(json.dumps(report, indent=2))  # noqa: T201
    wrong = ("violations", "bystanders_lost", "acknowledged_lost_or_undone", "given_twice", "held_by_two")
    return 1 if any(report[name] for name in wrong) else 0


class Start(NamedTuple):
    """How long a start took, and how much of it was its own work: on a busy machine the rest is others'."""

    seconds: float
    cpu_s: float


class Campaign:
    """One run on one file."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._options = options
        self._folder = folder
        self._daemon = Daemon(folder)
        self._fleet = Fleet(Random(options.seed))
        self._recoveries: list[Start] = []
        self._bystanders_lost = self._lost = 0

    async def run(self) -> dict[str, Any]:
        """Return what came of it."""
        starts = await self._empty_starts()
        await fill(self._daemon, self._options.records)
        self._fleet.start(self._options.clients)
        try:
            for _ in range(self._options.kills):
                await self._round()
            await self._end()
        finally:
            await self._fleet.close()
            await self._daemon.close()
        return self._report(starts)

    async def _empty_starts(self) -> list[Start]:
        (self._folder / "empty").mkdir()
        daemon = Daemon(self._folder / "empty")
        starts = []
        for _ in range(_EMPTY_STARTS):
            starts.append(await timed_start(daemon))
            await daemon.end(signal.SIGKILL)
        return starts

    async def _round(self) -> None:
        self._recoveries.append(await timed_start(self._daemon))
        self._fleet.connect(self._daemon.address)
        self._fleet.go_on()
        await asyncio.sleep(self._fleet.random.uniform(0.05, 0.5))
        self._fleet.check()
        self._fleet.disconnect()
        await self._daemon.end(signal.SIGKILL)
        await self._fleet.forget()
        self._look_at_the_file()

    async def _end(self) -> None:
        await self._daemon.start()
        self._fleet.connect(self._daemon.address)
        self._fleet.go_on()
        await self._fleet.stop()
        instant = await settled(self._fleet.stubs)
        await self._daemon.end(signal.SIGTERM)
        self._fleet.recorder.add(engaged(self._daemon.path, *instant))
        self._look_at_the_file()

    def _look_at_the_file(self) -> None:
        there = held(self._daemon.path, but=_BYSTANDER)
        self._fleet.recorder.add(there)
        workers = {each.id: each.worker for each in [*(there.locks or ()), *(there.reservations or ())]}
        self._lost += len(judge.lost(self._fleet.journal, workers))
        with closing(sqlite3.connect(f"{self._daemon.path.as_uri()}?mode=ro", uri=True)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM locks WHERE worker = ?", (_BYSTANDER,))
        self._bystanders_lost += self._options.records - count

    def _report(self, starts: list[Start]) -> dict[str, Any]:
        found = Counter(violation.law for violation in violations(self._fleet.recorder, self._daemon))
        return {
            "seed": self._options.seed,
            "kills": self._options.kills,
            "clients": self._options.clients,
            "live_records": self._options.records,
            "grants_acknowledged": len(self._fleet.journal.ids),
            "calls_repeated_after_a_kill": self._fleet.journal.repeats,
            "bystanders_lost": self._bystanders_lost,
            "acknowledged_lost_or_undone": self._lost,
            "given_twice": len(judge.given_twice(self._fleet.journal.ids)),
            "held_by_two": len(judge.held_by_two(self._fleet.journal.locks)),
            "violations": dict(found),
            "start_on_an_empty_file": spread(starts),
            "recovery": spread(self._recoveries),
        }


def spread(starts: list[Start]) -> dict[str, float]:
    """Return median and most."""
    seconds, cpu = [start.seconds for start in starts], [start.cpu_s for start in starts]
    return {
        "median_s": round(statistics.median(seconds), 3),
        "max_s": round(max(seconds), 3),
        "cpu_median_s": round(statistics.median(cpu), 3),
    }


async def timed_start(daemon: Daemon) -> Start:
    """Return how long it took from the launch until it served."""
    began = time.monotonic()
    await daemon.start()
    seconds = time.monotonic() - began
    cpu = psutil.Process(daemon.pid).cpu_times()
    return Start(seconds, cpu.user + cpu.system)


async def fill(daemon: Daemon, records: int) -> None:
    """Write a file as the daemon would have, with so many locks that their holder keeps for days."""
    store = SqliteStore(daemon.path)
    await store.open(0)
    now = time.time_ns()
    machine = Machine(load(daemon.config, {}).rules())
    machine.recover({}, 0, now)
    for index in range(records):
        machine.apply(
            RequestLock(
                item=f"kept:{index}", kind=KIND, worker=_BYSTANDER, request_id=f"b{index}", ttl_ns=7 * DAY
            ),
            now,
        )
        if index % _ROWS_PER_COMMIT == _ROWS_PER_COMMIT - 1 or index == records - 1:
            puts, deletes = machine.take_changes()
            sequence = index // _ROWS_PER_COMMIT + 1
            await store.commit(
                Batch(sequence=sequence, instant=now, last_id=machine.last_id, puts=puts, deletes=deletes)
            )
    await store.close()


if __name__ == "__main__":
    sys.exit(main())
