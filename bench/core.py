"""The state machine alone, on one core: decisions a second, and what a grant costs with many waiting.

The machine is driven as the engine drives it: what is due first, then the command; notices and changes taken
as often as at full load. Time is the process's own CPU time, so that what else runs on the machine does not
count.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Final

from bench import workload
from bench.figures import Figure, figure
from bench.workload import START
from coordd.core.commands import RequestLock
from coordd.core.limits import COMMANDS_PER_BATCH_MAX, DAY, HOUR, MILLISECOND, SECOND
from coordd.core.machine import Command, Machine
from coordd.core.outcomes import Grant, Granted, Notice, Outcome, Queued, Refused, WaitGranted

Follow = Callable[[Outcome], Command]

LOCK_PAIRS_MIN: Final = 150_000
PERMITS_MIN: Final = 300_000
# What a logarithm grows by from 10^3 to 10^5.
GROWTH_MAX: Final = 5 / 3
_MEMORY_NS: Final = workload.RULES.request_memory_ns


class Drive:
    """A machine and its time, which goes on by `step_ns` with each command."""

    def __init__(self, step_ns: int) -> None:
        self.machine = workload.new_machine()
        self.now = START
        self.step_ns = step_ns

    def run(self, commands: Iterable[Command], follow: Follow | None = None) -> int:
        """Decide the commands, each with what follows from its outcome; return the CPU time taken, ns."""
        machine, now, step_ns = self.machine, self.now, self.step_ns
        open_commands = 0
        commands = list(commands)
        gc.collect()
        began = time.process_time_ns()
        for command in commands:
            now += step_ns
            due_at = machine.next_deadline()
            if due_at is not None and due_at <= now:
                machine.tick(now)
            outcome = machine.apply(command, now)
            if follow is not None:
                machine.apply(follow(outcome), now)
                open_commands += 1
            open_commands += 1
            if open_commands >= COMMANDS_PER_BATCH_MAX:
                _take(machine)
                open_commands = 0
        took = time.process_time_ns() - began
        self.now = now
        return took

    def settle(self) -> None:
        """Do all that is due now, at no cost to the measurement."""
        while (due_at := self.machine.next_deadline()) is not None and due_at <= self.now:
            self.machine.tick(self.now)
        _take(self.machine)


def _take(machine: Machine) -> None:
    machine.take_changes()
    machine.take_notices()


# -- locks ---------------------------------------------------------------------------------------------------


def lock_pairs(count: int, runs: int) -> dict[str, Figure]:
    """Return pairs of RequestLock and ReleaseLock a second."""
    plain, spaced = workload.PLAIN_KIND, workload.SPACED_KIND
    return {
        "core_lock_pairs_per_s": _pairs(count, runs, kind=plain, has_ids=False, target=LOCK_PAIRS_MIN),
        "core_lock_pairs_with_request_id_per_s": _pairs(
            count, runs, kind=plain, has_ids=True, target=LOCK_PAIRS_MIN
        ),
        "core_lock_pairs_with_min_interval_per_s": _pairs(
            count, runs, kind=spaced, has_ids=True, target=None
        ),
    }


def _pairs(count: int, runs: int, *, kind: str, has_ids: bool, target: float | None) -> Figure:
    # At this pace the memory of what has ended is full after the first round; from then on each pair that
    # comes makes one be forgotten, which is part of what it costs.
    drive = Drive(_MEMORY_NS // count)
    drive.run(workload.lock_requests(0, count, kind=kind, has_ids=has_ids), workload.release)
    rates = []
    for run in range(1, runs + 1):
        requests = workload.lock_requests(run * count, count, kind=kind, has_ids=has_ids)
        rates.append(count * SECOND / drive.run(requests, workload.release))
    return figure(rates, "pairs/s", at_least=target)


# -- permits -------------------------------------------------------------------------------------------------


def permit_decisions(count: int, runs: int) -> dict[str, Figure]:
    """Return decisions on TakePermit a second, three windows each."""
    # As much time passes as would at the target.
    pace = SECOND // PERMITS_MIN
    return {
        "core_permits_per_s": _permits(count, runs, step_ns=pace, has_ids=False, target=PERMITS_MIN),
        "core_permits_with_request_id_per_s": _permits(
            count, runs, step_ns=pace, has_ids=True, target=PERMITS_MIN
        ),
        "core_permits_sparse_per_s": _permits(count, runs, step_ns=MILLISECOND, has_ids=True, target=None),
        "core_permit_refusals_per_s": _refusals(max(count // 10, 1), runs),
    }


def _permits(count: int, runs: int, *, step_ns: int, has_ids: bool, target: float | None) -> Figure:
    drive = Drive(step_ns)
    rates = []
    for run in range(runs):
        requests = workload.permit_requests(run * count, count, endpoint="ample", has_ids=has_ids)
        rates.append(count * SECOND / drive.run(requests))
    return figure(rates, "decisions/s", at_least=target)


def _refusals(count: int, runs: int) -> Figure:
    """Return the rate where a day of traffic has left charges all over the windows, and none has room."""
    day = 2 * 17_280
    drive = Drive(DAY // day)
    drive.run(workload.permit_requests(0, day, endpoint="tight", has_ids=False))
    drive.settle()
    drive.step_ns = 1
    while isinstance(_take_one(drive), Granted):
        pass
    rates = []
    for run in range(runs):
        requests = workload.permit_requests(run * count, count, endpoint="tight", has_ids=False)
        rates.append(count * SECOND / drive.run(requests))
        assert isinstance(_take_one(drive), Refused)  # noqa: S101  -- else it measured something else
    return figure(rates, "decisions/s")


def _take_one(drive: Drive) -> Outcome:
    [request] = workload.permit_requests(0, 1, endpoint="tight", has_ids=False)
    return drive.machine.apply(request, drive.now)


# -- waiters -------------------------------------------------------------------------------------------------


def grant_costs(counts: tuple[int, ...], grants: int, runs: int) -> dict[str, Figure]:
    """Return what a release costs that grants to the next of `counts` waiters, and how that grows."""
    costs = {count: [_grant_cost(count, grants) for _ in range(runs)] for count in counts}
    figures = {f"core_grant_us_with_{count}_waiters": figure(costs[count], "us") for count in counts}
    few, many = counts[-2:]
    growth = statistics.median(costs[many]) / statistics.median(costs[few])
    figures["core_grant_growth"] = figure(
        [growth], f"cost with {many} waiters / with {few}", at_most=GROWTH_MAX
    )
    return figures


def _grant_cost(waiters: int, grants: int) -> float:
    """Return the median of `grants` releases, us. For each waiter that is granted another one comes."""
    drive = Drive(0)
    machine, now = drive.machine, drive.now
    granted = machine.apply(_request(0, wait_ns=0), now)
    for index in range(1, waiters + 1):
        assert isinstance(machine.apply(_request(index, wait_ns=HOUR), now), Queued)  # noqa: S101
    _take(machine)
    gc.collect()
    release = workload.release(granted)
    took = []
    for index in range(waiters + 1, waiters + 1 + grants):
        now += MILLISECOND
        began = time.perf_counter_ns()
        machine.apply(release, now)
        took.append(time.perf_counter_ns() - began)
        [notice] = machine.take_notices()
        release = workload.release(Granted(grant=_granted(notice)))
        machine.apply(_request(index, wait_ns=HOUR), now)
        machine.take_changes()
    return statistics.median(took) / 1_000


def _granted(notice: Notice) -> Grant:
    assert isinstance(notice, WaitGranted)  # noqa: S101  -- else it measured something else
    return notice.grant


def _request(index: int, *, wait_ns: int) -> RequestLock:
    return RequestLock(
        item="tweet:1",
        kind=workload.PLAIN_KIND,
        worker=f"worker-{index}",
        request_id=workload.request_id(index),
        wait_ns=wait_ns,
    )
