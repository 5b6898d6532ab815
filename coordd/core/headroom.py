"""Headroom: what a class must leave of a limit or a pool to the classes above it.

Owns: how much is kept from whom. Rules: the parts `headroom = {critical = 0.05}` are floors: of every window
(or of the capacity) so much is for that class and those above. What these have used counts towards it, so
nothing stays idle once they have had it, and a class that waits is held up by those above for no more than
their floor. Each class is left at least one unit.
Must not know: who waits, and how windows are counted.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from coordd.core.rules import PRIORITIES
from coordd.core.windows import Kept, Window, Windows

_PPM: Final = 1_000_000


class Headroom:
    """The floors of one limit or pool, in parts of 10**6, by the class that must leave them."""

    __slots__ = ("_kept_ppm",)

    def __init__(self, parts: Mapping[int, float]) -> None:
        self._kept_ppm = {
            priority: sum(round(part * _PPM) for above, part in parts.items() if above > priority)
            for priority in PRIORITIES
        }

    def floor(self, priority: int, limit: int) -> int:
        """Return how many of `limit` units are kept from `priority` by the configuration, rounded up."""
        return min(limit - 1, -(-self._kept_ppm[priority] * limit // _PPM))

    def reserve(self, priority: int, window: Window, now: int) -> int:
        """Return how many units of a window are kept from `priority`, what classes above used included.

        0..limit - 1. Here, and only here, what is expected of the classes above is to be added to the floor.
        """
        return self.floor(priority, window.limit)

    def kept(self, priority: int, windows: Windows, now: int) -> Kept | None:
        """Return what is kept of each window from `priority`; None: nothing."""
        units = tuple(self.reserve(priority, window, now) for window in windows.of)
        return Kept(priority, units) if any(units) else None

    def largest(self, priority: int, windows: Windows) -> int:
        """Return the most that `priority` can ever take at once."""
        return min(window.limit - self.floor(priority, window.limit) for window in windows.of)

    def may_pass(self, count: int, ahead: Sequence[int], priority: int, windows: Windows, now: int) -> bool:
        """Whether `priority` may take `count` though others go first, of the classes `ahead`."""
        return all(class_ < priority and self.is_within(count, class_, windows, now) for class_ in ahead)

    def is_within(self, count: int, below: int, windows: Windows, now: int) -> bool:
        """Whether a class above `below` that takes `count` takes only what is kept from `below` anyway.

        Then whoever waits in that class, though it goes first, does not wait any longer for it.
        """
        kept = self.kept(below, windows, now)
        return kept is not None and all(
            window.used_above(below) + count <= units
            for window, units in zip(windows.of, kept.units, strict=True)
            if units
        )
