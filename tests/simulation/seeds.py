"""Many seeds, in several processes, and what they add up to.

Rules: a seed is run alone in its process; one that takes too long in real time is a violation, too.
"""

import hashlib
import itertools
import multiprocessing
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Final

from simulation import seed as one
from simulation.seed import Result

# The slowest take a few seconds; one that does not end is a loop without an end.
_SEED_S_MAX: Final = 120
_VIOLATIONS_SHOWN: Final = 5
_PROGRESS_EVERY_S: Final = 10.0


@dataclass
class Report:
    """What seeds have added up to."""

    began_s: float = field(default_factory=time.monotonic)
    seeds: int = 0
    virtual_s: float = 0.0
    calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take one in, and say so if it has failed."""
        self.seeds += 1
        self.virtual_s += result.virtual_s
        self.calls += result.calls
        self.faults.update(result.faults)
        self.digests[result.seed] = result.digest
        if result.violations:
            self.failed.append(result)
            _say(f"seed {result.seed}: VIOLATED; to replay it: make sim SEED={result.seed}")
            for violation in result.violations[:_VIOLATIONS_SHOWN]:
                _say(f"  {violation}")
            for line in result.events:
                _say(f"    {line}")

    def line(self) -> str:
        """Return how it stands, for people."""
        return (
            f"{self.seeds} seeds, {self.virtual_s / 3600:.1f} virtual hours, {self.calls} calls, "
            f"{self.faults.total()} faults, {len(self.failed)} violated"
        )

    def digest(self) -> str:
        """Return what is equal exactly if all histories are."""
        return hashlib.sha256(repr(sorted(self.digests.items())).encode()).hexdigest()[:16]

    def summary(self) -> dict[str, Any]:
        """Return it for programs."""
        minutes = (time.monotonic() - self.began_s) / 60
        return {
            "seeds": self.seeds,
            "digest": self.digest(),
            "violated": {result.seed: result.violations[:10] for result in self.failed},
            "virtual_hours": round(self.virtual_s / 3600, 2),
            "calls": self.calls,
            "faults": dict(sorted(self.faults.items())),
            "real_minutes": round(minutes, 3),
            "virtual_hours_per_minute": round(self.virtual_s / 3600 / minutes, 2),
            "faults_per_minute": {name: round(n / minutes, 1) for name, n in sorted(self.faults.items())},
        }


def fresh(seconds: float, jobs: int) -> Report:
    """Run seeds that nobody has run before, for so long."""
    first = secrets.randbelow(2**40)
    _say(f"fresh seeds from {first} on, in {jobs} processes, for {seconds:g} s")
    end_s = time.monotonic() + seconds
    return _run([_until(end_s, itertools.count(first + job, jobs)) for job in range(jobs)])


def given(seeds: range, jobs: int, history: str | None = None) -> Report:
    """Run these."""
    if jobs == 1:
        report = Report()
        for seed in seeds:
            report.add(_guarded(seed, history))
        return report
    return _run([seeds[job::jobs] for job in range(jobs)])


def _until(end_s: float, seeds: Iterable[int]) -> Iterator[int]:
    return itertools.takewhile(lambda _: time.monotonic() < end_s, seeds)


def _run(parts: list[Iterable[int]]) -> Report:
    context = multiprocessing.get_context("fork")
    results: SimpleQueue[Result | None] = context.SimpleQueue()
    processes = [context.Process(target=_work, args=(part, results)) for part in parts]
    for process in processes:
        process.start()
    report = Report()
    shown_s = time.monotonic()
    under_way = len(processes)
    while under_way:
        result = results.get()
        if result is None:
            under_way -= 1
        else:
            report.add(result)
        if time.monotonic() - shown_s > _PROGRESS_EVERY_S:
            shown_s = time.monotonic()
            _say(report.line())
    for process in processes:
        process.join()
    _say(report.line())
    return report


def _work(seeds: Iterable[int], results: Any) -> None:
    try:
        for seed in seeds:
            results.put(_guarded(seed))
    finally:
        results.put(None)


class _TooLong(Exception):
    """A seed has taken too long in real time."""


def _guarded(seed: int, history: str | None = None) -> Result:
    """Run a seed; whatever is raised is a violation."""

    def too_long(*_: Any) -> None:
        raise _TooLong(f"no end after {_SEED_S_MAX} s of real time")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_SEED_S_MAX)
    try:
        result, record = one.run(seed)
        if history is not None:
            Path(history).write_text("\n".join(record.lines()) + "\n")
        return result
    except Exception as error:  # noqa: BLE001  -- told, with its seed
        return Result(seed, violations=[f"the simulation failed: {error!r}"])
    finally:
        signal.alarm(0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
