"""The figures of a run.

Owns: what each figure means; its shape is also that of `--json`. Must not know: how it is shown.

A *wait* lasts from the demand to the grant of everything that it wants: in the daemon's queues, and before
that for its own worker, where that is at something else. Upstream counts a call at its permit's grant and
has it in a window for the window's length. *Utilisation* is the mean over time of such calls / limit: over
the run, and over the time in which anybody waited in that limit's queue. The first window, which begins
empty, is not left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Final

from msgspec import Struct

from coordd.core.lengths import spell_length
from coordd.core.limits import SECOND
from coordd.core.queues import QueueKey
from coordd.core.rules import Rules
from coordd.planning.demands import CLASSES
from coordd.planning.fleet import Attempt
from coordd.planning.levels import Level, Span
from coordd.planning.log import Log, Use
from coordd.planning.trace import Trace

__all__ = [
    "Figures",
    "Refusals",
    "Resource",
    "Series",
    "Share",
    "Totals",
    "Waiting",
    "Waits",
    "Window",
    "figures_of",
    "shown_of",
]

# Points of each curve: a terminal shows fewer, a picture hardly more.
POINTS: Final = 240
# The curves show the shortest stretch of time with this part of the waiting in it, and something before and
# after: a trace may have silent years.
_BULK: Final = 0.7
_AROUND: Final = 0.1
_PERCENTILES: Final = (50, 90, 99, 100)
_HIGHEST_FIRST: Final = tuple(reversed(list(CLASSES)))


class Totals(Struct, frozen=True, kw_only=True):
    """What there was.

    `demands`: lines of the trace.  `attempts`: demands by worker; each was `granted` or `refused`, or is
    `unended` because the run was stopped before either.  `begins`: RFC 3339, "" where the trace has seconds.
    `seconds`: of virtual time, until the last has ended.
    """

    demands: int
    workers: int
    attempts: int
    granted: int
    refused: int
    unended: int
    begins: str
    seconds: float


class Waits(Struct, frozen=True, kw_only=True):
    """How long those of one class waited that were granted; None where there are none."""

    priority: str
    attempts: int
    granted: int
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    max_s: float | None


class Window(Struct, frozen=True, kw_only=True):
    """How well a window was used, or a pool's capacity: then `window` is "".

    `peak`: the most in any such length of time.  `utilisation_waited`: None where nobody waited.
    """

    window: str
    limit: int
    peak: int
    utilisation: float
    utilisation_waited: float | None


class Resource(Struct, frozen=True, kw_only=True):
    """A limit or a pool.

    `used`: permits or units, `unused`: given back without use.  `waited_s`: how long anybody waited in its
    queue.  `jain`: Jain's index over what each worker used / its weight; None where nothing was.
    """

    name: str
    is_pool: bool
    used: int
    unused: int
    waited_s: float
    jain: float | None
    windows: list[Window]


class Share(Struct, frozen=True, kw_only=True):
    """What one worker got."""

    worker: str
    weight: float
    attempts: int
    granted: int


class Refusals(Struct, frozen=True, kw_only=True):
    """Attempts that ended with `reason`, asking for `what`; "" after the grant: a lease was lost."""

    reason: str
    what: str
    count: int


class Waiting(Struct, frozen=True, kw_only=True):
    """How many waited in the daemon's queues at a time; `max` first after `max_at_s`."""

    mean: float
    max: int
    max_at_s: float


class Series(Struct, frozen=True, kw_only=True):
    """Curves over the shortest time with 70 % of the waiting, in steps of `step_s`, from `from_s` on.

    `waiting`: the most in each step.  `fill`: calls in each window / limit, the mean of each step.
    `quantiles_s`: of the waits of each class, 0 % to 100 %.
    """

    from_s: float
    step_s: float
    waiting: list[int]
    fill: dict[str, list[float]]
    quantiles_s: dict[str, list[float]]


class Figures(Struct, frozen=True, kw_only=True):
    """Everything."""

    totals: Totals
    waits: list[Waits]
    resources: list[Resource]
    refusals: list[Refusals]
    jain: float | None
    workers: list[Share]
    waiting: Waiting
    series: Series


def figures_of(log: Log, trace: Trace, rules: Rules, *, shown: Span | None = None) -> Figures:
    """Work the figures out. Cost: O(n log n) of all that has happened.

    Args: shown: the time that the curves are of; None: `shown_of(log)`.
    """
    waiting = Level(log.waiting)
    filled = {key: _Filled(key, uses, log, rules) for key, uses in log.uses.items()}
    workers = _shares(log.attempts, rules)
    return Figures(
        totals=_totals(log, trace),
        waits=[_waits(name, log.attempts) for name in _HIGHEST_FIRST if _of_class(log.attempts, name)],
        resources=[each.resource() for each in filled.values()],
        refusals=_refusals(log.attempts),
        jain=jain([share.granted / share.weight for share in workers]),
        workers=workers,
        waiting=_waiting(waiting, log),
        series=_series(waiting, filled.values(), log, shown or shown_of(log)),
    )


def shown_of(log: Log) -> Span:
    """Return the time that the curves are of, ns: where the waiting was, or the whole run."""
    bulk = Level(log.waiting).bulk(_BULK, log.ended_at)
    if bulk is None:
        return log.begun_at, log.ended_at
    around_ns = int((bulk[1] - bulk[0]) * _AROUND)
    return max(bulk[0] - around_ns, log.begun_at), min(bulk[1] + around_ns, log.ended_at)


def jain(parts: Sequence[float]) -> float | None:
    """Return Jain's index: 1 where all have the same, 1/n where one has all. None: nobody has any.

    Source: Jain, Chiu, Hawe, A Quantitative Measure of Fairness, DEC-TR-301, 1984.
    """
    squares = sum(part * part for part in parts)
    return round(sum(parts) ** 2 / (len(parts) * squares), 4) if squares else None


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the nearest-rank percentile of what is in order and not empty."""
    return ordered[max(ceil(len(ordered) * percent / 100) - 1, 0)]


def weight_of(worker: str, rules: Rules) -> float:
    """Return a worker's weight, as configured under [workers]."""
    return rules.worker_weights.get(worker, 1.0)


# -- attempts ------------------------------------------------------------------------------------------------


def _totals(log: Log, trace: Trace) -> Totals:
    granted = sum(attempt.is_granted for attempt in log.attempts)
    refused = sum(bool(attempt.reason) for attempt in log.attempts)
    begins = datetime.fromtimestamp(log.begun_at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Totals(
        demands=len(trace.demands),
        workers=len({attempt.worker for attempt in log.attempts}),
        attempts=len(log.attempts),
        granted=granted,
        refused=refused,
        unended=len(log.attempts) - granted - refused,
        begins=begins if trace.is_dated else "",
        seconds=_seconds(log.ended_at - log.begun_at),
    )


def _of_class(attempts: Iterable[Attempt], name: str) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.demand.priority == CLASSES[name]]


def _waited_ns(attempts: Iterable[Attempt]) -> list[int]:
    return sorted(attempt.wait_ns for attempt in attempts if attempt.is_granted)


def _waits(name: str, attempts: Sequence[Attempt]) -> Waits:
    of_class = _of_class(attempts, name)
    ordered = _waited_ns(of_class)
    p50, p90, p99, most = (
        _seconds(percentile(ordered, percent)) if ordered else None for percent in _PERCENTILES
    )
    return Waits(
        priority=name,
        attempts=len(of_class),
        granted=len(ordered),
        p50_s=p50,
        p90_s=p90,
        p99_s=p99,
        max_s=most,
    )


def _refusals(attempts: Iterable[Attempt]) -> list[Refusals]:
    counts = Counter((attempt.reason, attempt.what) for attempt in attempts if attempt.reason)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Refusals(reason=reason, what=what, count=count) for (reason, what), count in ordered]


def _shares(attempts: Iterable[Attempt], rules: Rules) -> list[Share]:
    asked: Counter[str] = Counter()
    granted: Counter[str] = Counter()
    for attempt in attempts:
        asked[attempt.worker] += 1
        granted[attempt.worker] += attempt.is_granted
    return [
        Share(worker=worker, weight=weight_of(worker, rules), attempts=asked[worker], granted=granted[worker])
        for worker in sorted(asked, key=_natural)
    ]


def _natural(name: str) -> tuple[str, int, str]:
    """Order names so that w2 comes before w10."""
    stem = name.rstrip("0123456789")
    return (stem, int(name[len(stem) :] or 0), name)


# -- limits and pools ----------------------------------------------------------------------------------------


class _Filled:
    """How full a limit's windows were, or a pool, over time."""

    def __init__(self, key: QueueKey, uses: Sequence[Use], log: Log, rules: Rules) -> None:
        self._log = log
        self._rules = rules
        self._sort, self.name = key
        self._uses = uses
        self._waited: list[Span] = list(Level(log.queues[key]).above_zero(log.ended_at))
        windows = self._windows()
        self.levels = {
            (length_ns, limit): Level(_counted(uses, length_ns)) for length_ns, limit in windows.items()
        }

    def _windows(self) -> Mapping[int, int]:
        """Return length -> limit; length 0: units that are held and come back."""
        if self._sort == "limit":
            return self._rules.limits[self.name].windows
        pool = self._rules.pools[self.name]
        return pool.limit.windows if pool.limit is not None else {0: pool.capacity}

    def label(self, length_ns: int) -> str:
        return f"{self.name} {spell_length(length_ns)}" if length_ns else self.name

    def resource(self) -> Resource:
        used: Counter[str] = Counter()
        for use in self._uses:
            used[use.worker] += use.count if use.is_used else 0
        return Resource(
            name=self.name,
            is_pool=self._sort == "pool",
            used=used.total(),
            unused=sum(use.count for use in self._uses if not use.is_used),
            waited_s=_seconds(sum(end - begin for begin, end in self._waited)),
            jain=jain([count / weight_of(worker, self._rules) for worker, count in used.items()]),
            windows=[self._window(*window) for window in self.levels],
        )

    def _window(self, length_ns: int, limit: int) -> Window:
        level = self.levels[(length_ns, limit)]
        waited = level.mean(self._waited)
        overall = level.mean([(self._log.begun_at, self._log.ended_at)])
        return Window(
            window=spell_length(length_ns) if length_ns else "",
            limit=limit,
            peak=level.peak()[0],
            utilisation=round((overall or 0) / limit, 4),
            utilisation_waited=None if waited is None else round(waited / limit, 4),
        )


def _counted(uses: Iterable[Use], length_ns: int) -> Iterable[tuple[int, int]]:
    """Yield the changes of what upstream counts, or of what is held."""
    for use in uses:
        if use.is_used or not length_ns:
            yield use.begun_at, use.count
            yield (use.begun_at + length_ns if length_ns else use.ended_at), -use.count


# -- over time -----------------------------------------------------------------------------------------------


def _waiting(level: Level, log: Log) -> Waiting:
    most, at = level.peak()
    mean = level.mean([(log.begun_at, log.ended_at)]) or 0.0
    return Waiting(mean=round(mean, 3), max=most, max_at_s=_seconds(at - log.begun_at) if most else 0.0)


def _series(waiting: Level, filled: Iterable[_Filled], log: Log, shown: Span) -> Series:
    begin, end = shown
    step_ns = max(-(-(end - begin) // POINTS), 1)
    steps = [(at, at + step_ns) for at in range(begin, max(end, begin + 1), step_ns)]
    quantiles = {
        name: [_seconds(percentile(ordered, percent)) for percent in range(101)]
        for name in _HIGHEST_FIRST
        if (ordered := _waited_ns(_of_class(log.attempts, name)))
    }
    return Series(
        from_s=_seconds(begin - log.begun_at),
        step_s=step_ns / SECOND,
        waiting=[waiting.highest(*step) for step in steps],
        fill={
            each.label(length_ns): [round((level.mean([step]) or 0) / limit, 4) for step in steps]
            for each in filled
            for (length_ns, limit), level in each.levels.items()
        },
        quantiles_s=quantiles,
    )


def _seconds(ns: int) -> float:
    return round(ns / SECOND, 3)
