"""What a live lock and a waiter cost in memory: growth of a process that makes nothing else.

`python -m bench.memory WHAT COUNT` prints bytes for each of COUNT; every measurement is a process of its own.
"""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Final

import psutil

from bench import workload
from bench.figures import Figure, figure
from bench.workload import START
from coordd.core.commands import RequestLock
from coordd.core.limits import COMMANDS_PER_BATCH_MAX, HOUR
from coordd.core.machine import Machine

LOCK_BYTES_MAX: Final = 1_024
WAITER_BYTES_MAX: Final = 1_536


def bytes_each(locks: int, waiters: int, runs: int) -> dict[str, Figure]:
    """Return bytes per live lock and per waiter, at these numbers."""
    figures = {f"bytes_per_lock_of_{locks}": _each("locks", locks, runs, LOCK_BYTES_MAX)}
    for what, name in (("waiters", "one_queue"), ("scattered", "many_queues")):
        figures[f"bytes_per_waiter_of_{waiters}_in_{name}"] = _each(what, waiters, runs, WAITER_BYTES_MAX)
    return figures


def _each(what: str, count: int, runs: int, at_most: int) -> Figure:
    return figure([_measured(what, count) for _ in range(runs)], "bytes", at_most=at_most)


def _measured(what: str, count: int) -> float:
    command = [sys.executable, "-m", "bench.memory", what, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# -- in the process that is measured -------------------------------------------------------------------------


def _locks(count: int) -> Iterator[RequestLock]:
    return workload.lock_requests(0, count, kind=workload.PLAIN_KIND, has_ids=True)


def _waiters(count: int) -> Iterator[RequestLock]:
    yield _waiter("tweet:1700000000000000000", count, wait_ns=0)
    for index in range(count):
        yield _waiter("tweet:" + str(1_700_000_000_000_000_000), index, wait_ns=HOUR)


def _scattered(count: int) -> Iterator[RequestLock]:
    """Waiters for a tenth as many items, held by somebody."""
    items = count // 10
    for index in range(items):
        yield _waiter(f"tweet:{1_700_000_000_000_000_000 + index}", count + index, wait_ns=0)
    for index in range(count):
        yield _waiter(f"tweet:{1_700_000_000_000_000_000 + index % items}", index, wait_ns=HOUR)


def _waiter(item: str, index: int, *, wait_ns: int) -> RequestLock:
    return RequestLock(
        item=item,
        kind=workload.PLAIN_KIND,
        worker=f"worker-{index % workload.WORKERS}",
        request_id=workload.request_id(index),
        wait_ns=wait_ns,
    )


_WORKLOADS: Final[dict[str, Callable[[int], Iterator[RequestLock]]]] = {
    "locks": _locks,
    "waiters": _waiters,
    "scattered": _scattered,
}


def _grow(machine: Machine, commands: Iterator[RequestLock]) -> None:
    for index, command in enumerate(commands):
        machine.apply(command, START)
        if index % COMMANDS_PER_BATCH_MAX == 0:
            machine.take_changes()
            machine.take_notices()
    machine.take_changes()


def main(what: str, count: int) -> None:
    """Print bytes for each."""
    process = psutil.Process()
    machine = workload.new_machine()
    _grow(machine, _WORKLOADS[what](20))
    gc.collect()
    before = process.memory_info().rss
    machine = workload.new_machine()
    _grow(machine, _WORKLOADS[what](count))
    gc.collect()
    print((process.memory_info().rss - before) / count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
