"""Promises: how far off the times were that were told.

Owns: the mean error of one endpoint's estimates and bookings. A measurement: nothing is decided by it.
"""

from typing import Final

# As of observed hold times: a new one counts for an eighth.
_WEIGHT: Final = 8


class Promises:
    """Exponentially weighted mean of |actual - promised|, in ns; None: nothing was promised and kept yet."""

    __slots__ = ("_late", "error_ns")

    def __init__(self) -> None:
        self.error_ns: int | None = None
        # Bookings that could not be had at their time, whose error is told already.
        self._late: set[int] = set()

    def observe(self, promised_at: int, at: int) -> None:
        """Take in that what was promised for `promised_at` was to be had at `at`."""
        error_ns = abs(at - promised_at)
        mean_ns = error_ns if self.error_ns is None else self.error_ns
        self.error_ns = mean_ns + (error_ns - mean_ns) // _WEIGHT

    def booking_late(self, id: int, promised_at: int, at: int) -> None:
        """Take in that a booking can be had only at `at`; once, however often its owner asks."""
        if id not in self._late:
            self._late.add(id)
            self.observe(promised_at, at)

    def booking_kept(self, id: int, promised_at: int) -> None:
        """Take in that a booking was claimed: it could be had at its time, unless it is known to be late."""
        if id not in self._late:
            self.observe(promised_at, promised_at)

    def forget(self, id: int) -> None:
        """Forget a booking that has ended."""
        self._late.discard(id)
