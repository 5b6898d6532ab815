"""Pace: calls spread evenly over the window instead of bursting at its start.

Owns: when the next call of an endpoint may begin, and the room between bookings.
Rules: each call takes one interval, the longest of its windows' length / limit, and the next one begins when
it is over: the generic cell rate algorithm (ITU-T I.371, annex A) without a burst. A grant that comes a
little late, since timers and commits take their time, is caught up within `_SLACK_NS`. Critical calls, and
bookings whose time has come, are not held up; but they take their interval all the same, so that the others
make room.
Must not know: who waits, what the windows hold.
"""

from collections.abc import Iterable
from typing import Final

from coordd.core.limits import MILLISECOND
from coordd.core.records import Booking
from coordd.core.rules import CRITICAL
from coordd.core.window import Window
from coordd.core.windows import Windows

# Longer than a timer, a decision and a commit are late; shorter than what upstream would call a burst.
_SLACK_NS: Final = 20 * MILLISECOND


class Pace:
    """One endpoint's pace. `free_at`: when all calls permitted so far have had their interval."""

    __slots__ = ("_windows", "free_at")

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self.free_at = 0

    def interval_ns(self) -> int:
        """Return what one call takes, rounded up: as the windows are now, an operator may change them."""
        return max(map(_interval_ns, self._windows.of))

    def begins_at(self, priority: int, ahead: int = 0) -> int:
        """Return when a call of a class may begin, after `ahead` others; 0: at any time."""
        return self.free_at + ahead * self.interval_ns() if priority < CRITICAL else 0

    def take(self, count: int, now: int) -> None:
        """Let `count` calls take their intervals."""
        self.free_at = max(self.free_at, now - _SLACK_NS) + count * self.interval_ns()

    def slot(self, count: int, start: int) -> int:
        """Return the first instant from `start` on at which `count` fit between the bookings.

        Cost: O(bookings log bookings).
        """
        interval_ns = self.interval_ns()
        bookings = self._windows.bookings.values()
        for begins, ends in sorted(_spans(bookings, interval_ns)):
            if begins < start + count * interval_ns and start < ends:
                start = ends
        return start

    def load(self, now: int) -> None:
        """Begin as if each call that is charged had been permitted as late as it can have been.

        So after a restart the pace is never ahead of what it was. Windows remember all that matters: what has
        left them is further back than all of their calls' intervals.
        """
        paced = max(self._windows.of, key=_interval_ns)
        for at, count in paced.charged():
            self.take(count, min(at, now) + _SLACK_NS)


def _interval_ns(window: Window) -> int:
    return -(-window.length_ns // window.limit)


def _spans(bookings: Iterable[Booking], interval_ns: int) -> Iterable[tuple[int, int]]:
    return ((booking.execute_at, booking.execute_at + booking.count * interval_ns) for booking in bookings)
