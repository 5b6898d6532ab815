"""What others are expected to want of a window, as a claim on its future.

Owns: the arithmetic of calls that come evenly, with a margin since they don't. Rules: whoever takes room now
must leave, at every instant from now on, what will have been asked for by then. So what leaves the window
meanwhile counts towards it, and what nobody came for is set free bit by bit, as the time in which to come
shrinks.
Must not know: windows, classes, where the forecast comes from.
"""

from math import isqrt
from typing import Final, NamedTuple

_PPM: Final = 1_000_000
# Of n calls that know nothing of each other, n + 3 sqrt(n) come but once in a thousand times.
_DEVIATIONS: Final = 3


class Expected(NamedTuple):
    """Calls expected within `length_ns`, evenly, in parts of 10**6; at most `most` whole ones."""

    ppm: int
    length_ns: int
    most: int

    def within(self, ns: int) -> int:
        """Return how many come within so many ns, rounded to the nearest."""
        if ns >= self.length_ns:
            return self.most
        whole = _PPM * self.length_ns
        return min(self.most, (2 * self.ppm * ns + whole) // (2 * whole))

    def clears_at(self, units: int, ends: int, since: int = 0) -> int:
        """Return the first instant at which `units` suffice for what comes until `ends`.

        Args: units: less than `most`. since: they come from then on, whatever happens; 0: from the instant on
        that is asked for, since nobody has come before.
        """
        if since:
            return ends if self.within(ends - since) > units else since
        return ends - (_PPM * self.length_ns * (2 * units + 1) - 1) // (2 * self.ppm)


def expected_of(ppm: int, length_ns: int, most: int) -> Expected | None:
    """Return calls of which `ppm` (in parts of 10**6) are expected, with a margin; or None: hardly one."""
    ppm += _DEVIATIONS * isqrt(ppm * _PPM)
    most = min(most, (ppm + _PPM // 2) // _PPM)
    return Expected(ppm, length_ns, most) if most > 0 else None
