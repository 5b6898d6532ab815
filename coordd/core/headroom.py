"""Headroom: what a class must leave of a limit or a pool to the classes above it.

Owns: how much is kept from whom. Rules: the parts `headroom = {critical = 0.05}` are floors: of every window
(or of the capacity) so much is for that class and those above. What these have used counts towards it, so
nothing stays idle once they have had it, and a class that waits is held up by those above for no more than
their floor. Of an endpoint low and medium classes also leave what the classes above them are expected to ask
for, up to a part of each window; the higher of the two is kept, not their sum. Each class is left at least
one unit, and whoever wants several of what is expected of others only is left as many, so that it can be
served at all.
Must not know: who waits, and how windows are counted.
"""

from collections.abc import Mapping
from typing import Final

from coordd.core.expected import Expected, expected_of
from coordd.core.forecasts import Forecasts, next_bin
from coordd.core.rules import LOW, MEDIUM, PRIORITIES, LimitRule, PoolRule
from coordd.core.window import Window
from coordd.core.windows import Kept, Windows

_PPM: Final = 1_000_000


class Headroom:
    """The floors of one limit or pool, in parts of 10**6, by the class that must leave them.

    `forecasts` None: nothing is expected of anybody. `forecast_max`: the largest part of each window that is
    left to what is.
    """

    __slots__ = ("_basis", "_forecast_ppm", "_forecasts", "_kept_ppm", "_reckoned")

    def __init__(
        self, parts: Mapping[int, float], forecasts: Forecasts | None = None, forecast_max: float = 0.0
    ) -> None:
        self._forecasts = forecasts
        # What is kept from each class that wants one, and what that was reckoned from.
        self._reckoned: dict[int, Kept | None] = {}
        self._basis: tuple[int, ...] = ()
        self._forecast_ppm = round(forecast_max * _PPM)
        self._kept_ppm = {
            priority: sum(round(part * _PPM) for above, part in parts.items() if above > priority)
            for priority in PRIORITIES
        }

    def floor(self, priority: int, limit: int) -> int:
        """Return how many of `limit` units are kept from `priority` by the configuration, rounded up."""
        return min(limit - 1, -(-self._kept_ppm[priority] * limit // _PPM))

    def kept(self, priority: int, windows: Windows, now: int, count: int = 1, at: int = 0) -> Kept | None:
        """Return what is kept of each window from `priority`, which wants `count`; None: nothing.

        Args: at: what is expected in the window that begins then; 0: now.
        Cost: O(1) if no class above has a floor or has ever asked, else O(windows).
        """
        if not self._kept_ppm[priority] and (self._forecasts is None or self._forecasts.highest <= priority):
            return None
        if at > now or count > 1:
            return self._reckon(priority, windows, count, max(at, now), now=now)
        basis = self._forecasts.basis(now) if self._forecasts is not None else ()
        basis += tuple([window.limit for window in windows.of])
        if basis != self._basis:
            self._basis, self._reckoned = basis, {}
        if priority not in self._reckoned:
            self._reckoned[priority] = self._reckon(priority, windows, count, now, now=now)
        return self._reckoned[priority]

    def _reckon(self, priority: int, windows: Windows, count: int, at: int, *, now: int) -> Kept | None:
        units = tuple(self.floor(priority, window.limit) for window in windows.of)
        expected: tuple[Expected | None, ...] = ()
        if self._forecasts is not None and priority <= MEDIUM:
            expected = self._expected(self._forecasts, priority, windows, count, at, now=now)
        return Kept(priority, units, expected) if any(units) or expected else None

    def _expected(
        self, forecasts: Forecasts, priority: int, windows: Windows, count: int, at: int, *, now: int
    ) -> tuple[Expected | None, ...]:
        expected = tuple(
            expected_of(
                forecasts.expected_above(priority, window.length_ns, at, now),
                window.length_ns,
                min(self._forecast_ppm * window.limit // _PPM, window.limit - count),
            )
            for window in windows.of
        )
        return expected if any(expected) else ()

    def kept_for(self, priority: int, window: Window, now: int) -> int:
        """Return how many units of a window lower classes leave now to what a class will want."""
        if self._forecasts is None or priority == LOW:
            return 0
        ppm = self._forecasts.expected_of(priority, window.length_ns, now)
        expected = expected_of(ppm, window.length_ns, self._forecast_ppm * window.limit // _PPM)
        return window.set_aside(expected, now) if expected is not None else 0

    def changes_at(self, now: int) -> int:
        """Return when what is kept may change by the mere passing of time; 0: never."""
        return next_bin(now) if self._forecasts is not None else 0

    def largest(self, priority: int, windows: Windows) -> int:
        """Return the most that `priority` can ever take at once."""
        return min(window.limit - self.floor(priority, window.limit) for window in windows.of)

    def may_pass(
        self, count: int, ahead: Mapping[int, int], priority: int, windows: Windows, now: int
    ) -> bool:
        """Whether `priority` may take `count` though others go first.

        Args: ahead: their classes, and how many the first of each wants.
        """
        windows.roll(now)
        return all(
            class_ < priority and self.is_within(count, class_, wanted, windows, now)
            for class_, wanted in ahead.items()
        )

    def is_within(self, count: int, below: int, wanted: int, windows: Windows, now: int) -> bool:
        """Whether a class above `below` that takes `count` takes only what is kept from `below` anyway.

        Then whoever waits in that class for so many as are `wanted`, though it goes first, does not wait any
        longer for it.
        """
        kept = self.kept(below, windows, now, wanted)
        return kept is not None and (
            _is_within_floors(count, kept, windows) or _is_expected(count, kept, windows, now)
        )


def headroom_of(rule: LimitRule | PoolRule, forecasts: Forecasts | None = None) -> Headroom | None:
    """Return the headroom of a rule, or None if no class must leave anything to others."""
    if not rule.headroom and forecasts is None:
        return None
    forecast_max = rule.forecast_max if isinstance(rule, LimitRule) else 0.0
    return Headroom(rule.headroom, forecasts, forecast_max)


def _is_within_floors(count: int, kept: Kept, windows: Windows) -> bool:
    return any(kept.units) and all(
        window.used_above(kept.priority) + count <= units
        for window, units in zip(windows.of, kept.units, strict=True)
        if units
    )


def _is_expected(count: int, kept: Kept, windows: Windows, now: int) -> bool:
    aside = [
        window.set_aside(expected, now)
        for window, expected in zip(windows.of, kept.expected or (None,) * len(windows.of), strict=True)
        if expected is not None
    ]
    return any(units > 0 for units in aside) and all(count <= units for units in aside if units > 0)
