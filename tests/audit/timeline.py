"""The daemon's runs, and what can be said of its clock from outside.

Owns: the daemon's clock goes as the true one while it runs, and across a restart never back (semantics 1.4);
a restart gives every live lease its grace (14.2).
Rules: where a thing isn't known, the answer is the bound that accuses nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from audit import history as h

# Later than anything that happens.
NEVER: Final = 1 << 62


@dataclass(frozen=True)
class Run:
    """One run of the daemon: it decides within start .. end only.

    `offset`: the least and the most by which its clock is ahead of ours, or None. `open_by`: when it surely
    had read what was stored. `settled`: what was due by then was done and stored: a later answer says so.
    """

    start: int
    end: int
    world: h.World
    offset: tuple[int, int] | None
    open_by: int
    settled: int

    def true(self, daemon_at: int) -> tuple[int, int] | None:
        """Return within which true instants its clock showed that."""
        if self.offset is None:
            return None
        return daemon_at - self.offset[1], daemon_at - self.offset[0]


class Timeline:
    """All runs, in order."""

    def __init__(self, history: h.History) -> None:
        self.runs = list(_runs(history))

    def worlds(self) -> list[h.World]:
        """Return every configuration that was in force."""
        return [run.world for run in self.runs]

    def during(self, low: int, high: int) -> list[Run]:
        """Return the runs in which something that lies between the two can have been decided."""
        return [run for run in self.runs if run.start <= high and low <= run.end]

    def elapsed(self, since: int, length: int) -> int:
        """Return before which instant the daemon can't have seen `length` pass since then."""
        return self._walk(since, length, is_lease=False, is_least=True)

    def passed(self, since: int, length: int) -> int:
        """Return by when the daemon has seen `length` pass since then."""
        return self._walk(since, length, is_lease=False, is_least=False)

    def lease_end_least(self, low: int, high: int, ttl: int) -> int:
        """Return before when a lease can't end by itself that was taken or renewed between the two.

        Of each run the earliest instant: later ones end later, but those of an earlier run get a grace.
        """
        since = [max(low, run.start) for run in self.during(low, high)]
        return min((self._walk(at, ttl, is_lease=True, is_least=True) for at in since), default=NEVER)

    def lease_end_most(self, low: int, high: int, ttl: int) -> int:
        """Return after when a lease has ended that was taken or renewed between the two."""
        since = [min(high, run.end) for run in self.during(low, high)]
        return max((self._walk(at, ttl, is_lease=True, is_least=False) for at in since), default=NEVER)

    def instant(self, daemon_at: int, low: int, high: int) -> tuple[int, int]:
        """Return within which true instants the daemon's clock can have shown that, between the two."""
        found = []
        for run in self.during(low, high):
            span = run.true(daemon_at) or (low, high)
            sharper = max(low, span[0], run.start), min(high, span[1], run.end)
            if sharper[0] <= sharper[1]:
                found.append(sharper)
        return (min(each[0] for each in found), max(each[1] for each in found)) if found else (low, high)

    def _walk(self, at: int, left: int, *, is_lease: bool, is_least: bool) -> int:
        """Return when `left` has passed by the daemon's clock.

        A restart's grace is for that run: one that is followed by another with less of it is not remembered
        at the least, and is at the most. A lease that ran out, and of whose end a run had stored nothing when
        it died, is live again in the next (14.2): at the most it ends there.
        """
        runs = [run for run in self.runs if run.end >= at]
        grace = 0
        for run, after in zip(runs, [*runs[1:], None], strict=False):
            at = max(at, run.start)
            is_unsettled = is_lease and not is_least and after is not None
            if at + max(left, grace) <= (run.settled if is_unsettled else run.end):
                return at + max(left, grace)
            if after is None:
                return NEVER
            begin = after.start if is_least else after.open_by
            left = self._left(
                run, at + (left if is_least else max(left, grace)), after, begin, is_least=is_least
            )
            grace = after.world.recovery.grace_ns if is_lease else 0
            at = begin
        return NEVER

    @staticmethod
    def _left(run: Run, end: int, after: Run, begin: int, *, is_least: bool) -> int:
        """Return how much of the time until `end`, had the run gone on, the next run still sees."""
        if run.offset is None or after.offset is None:
            return 0 if is_least else NEVER
        ahead = after.offset[1] - run.offset[0] if is_least else after.offset[0] - run.offset[1]
        return end - ahead - begin


def _runs(history: h.History) -> Iterable[Run]:
    bounds = _bounds(history)
    fresh = first_stamps(history)
    for started, end in bounds:
        answered = [
            each
            for each in history.operations
            if each.returned_at is not None and each.called_at >= started.at and each.returned_at <= end
        ]
        done = [each for each in answered if not isinstance(each.answer, h.Failed)]
        offset = started.clock_offset_ns
        yield Run(
            started.at,
            end,
            started.world,
            _inferred(fresh, bounds, started.at, end) if offset is None else (offset, offset),
            min((each.returned_at for each in answered if each.returned_at is not None), default=end),
            max((each.called_at for each in done), default=started.at),
        )


def _bounds(history: h.History) -> list[tuple[h.Started, int]]:
    starts: list[h.Started] = history.of(h.Started)
    ends = [*(entry.at for entry in history.of(h.Ended)), NEVER]
    return [(start, min(end for end in ends if end >= start.at)) for start in starts]


def first_stamps(history: h.History) -> list[tuple[int, int, int]]:
    """Return (asked, told, daemon's stamp) of everything granted, once for each id."""
    asked: dict[tuple[str, str], int] = {}
    found: dict[int, tuple[int, int, int]] = {}
    for each in history.operations:
        key = (each.worker, each.request_id)
        since = asked.setdefault(key, each.called_at) if each.request_id else each.called_at
        if isinstance(each.answer, h.Granted) and each.returned_at is not None:
            for held in each.answer.held:
                known = found.get(held.id, (since, each.returned_at, held.daemon_granted_at))
                found[held.id] = (min(since, known[0]), min(each.returned_at, known[1]), known[2])
    return list(found.values())


def _inferred(
    stamps: list[tuple[int, int, int]], bounds: list[tuple[h.Started, int]], start: int, end: int
) -> tuple[int, int] | None:
    """Return what the stamps say of the clock that can only be this run's; None: nothing that agrees."""
    others = [(each.at, until) for each, until in bounds if each.at != start]
    own = [
        (daemon_at - told, daemon_at - asked)
        for asked, told, daemon_at in stamps
        if asked <= end and told >= start and not any(asked <= until and told >= at for at, until in others)
    ]
    if not own:
        return None
    low, high = max(each[0] for each in own), min(each[1] for each in own)
    return (low, high) if low <= high else None
