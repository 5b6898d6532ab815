"""The daemon's clock: wall time when it started, plus what has passed since on the monotonic clock.

Owns: the promise that time never runs backwards, whatever happens to the machine's wall clock, also across
restarts.
"""

import time
from collections.abc import Callable


class Clock:
    """Gives ns since the epoch, never less than before and never below `floor`. Tests replace its sources."""

    __slots__ = ("_monotonic_ns", "_offset_ns", "_wall_ns")

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._offset_ns = wall_ns() - monotonic_ns()

    def start(self, floor: int) -> int:
        """Begin at wall time, or just above `floor` (ns, the last committed instant) if that is later."""
        start = max(self._wall_ns(), floor + 1)
        self._offset_ns = start - self._monotonic_ns()
        return start

    def now(self) -> int:
        """Return the instant, in ns since the epoch."""
        return self._monotonic_ns() + self._offset_ns
