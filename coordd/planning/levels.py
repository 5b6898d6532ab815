"""Levels: whole numbers that change at instants and hold in between, as the length of a queue does.

Owns: means over time, peaks, and in which stretch of time most of it lies. Must not know: what is counted.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Level", "Span"]

# From an instant to another, ns; the end is not in it.
Span = tuple[int, int]


class Level:
    """A level, never negative: 0 before the first change, and after the last what it then is.

    Args: changes: (instant, by how much), in any order; those at one instant are one change.
    """

    def __init__(self, changes: Iterable[tuple[int, int]]) -> None:
        self._at: list[int] = []
        self._values: list[int] = []
        value = 0
        for at, change in sorted(changes):
            value += change
            if self._at and self._at[-1] == at:
                self._values[-1] = value
            else:
                self._at.append(at)
                self._values.append(value)
        # The value times the time, up to each change.
        self._sums = [0]
        for index in range(len(self._at) - 1):
            held_ns = self._at[index + 1] - self._at[index]
            self._sums.append(self._sums[index] + self._values[index] * held_ns)

    def peak(self) -> tuple[int, int]:
        """Return the highest value and when it was first reached; (0, 0) if it never rose."""
        if not any(self._values):
            return 0, 0
        value = max(self._values)
        return value, self._at[self._values.index(value)]

    def sum_until(self, at: int) -> int:
        """Return the value times the time (ns) until `at`. Cost: O(log changes)."""
        index = bisect_right(self._at, at) - 1
        return 0 if index < 0 else self._sums[index] + self._values[index] * (at - self._at[index])

    def mean(self, spans: Sequence[Span]) -> float | None:
        """Return the mean over time of the value within `spans`; None if they last no time."""
        length = sum(end - begin for begin, end in spans)
        if not length:
            return None
        return sum(self.sum_until(end) - self.sum_until(begin) for begin, end in spans) / length

    def highest(self, begin: int, end: int) -> int:
        """Return the highest value from `begin` until before `end`. Cost: O(changes in it)."""
        first = bisect_right(self._at, begin) - 1
        return max(self._values[max(first, 0) : bisect_left(self._at, end)], default=0) if self._at else 0

    def above_zero(self, until: int) -> Iterator[Span]:
        """Yield when the level is above 0, in order, up to `until`."""
        begin = None
        for at, value in zip(self._at, self._values, strict=True):
            if value and begin is None:
                begin = at
            elif not value and begin is not None:
                yield begin, at
                begin = None
        if begin is not None and begin < until:
            yield begin, until

    def bulk(self, part: float, until: int) -> Span | None:
        """Return the shortest stretch of time, from a change to a change, with `part` of the value x time.

        None where the level is never above 0 before `until`. Cost: O(changes).
        """
        total = self.sum_until(until)
        if not total:
            return None
        at, sums = [*self._at, until], [*self._sums, total]
        best = (at[0], until)
        begin = 0
        for end, sum_ in enumerate(sums):
            while sum_ - sums[begin] >= part * total:
                best = min(best, (at[begin], at[end]), key=lambda span: span[1] - span[0])
                begin += 1
        return best
