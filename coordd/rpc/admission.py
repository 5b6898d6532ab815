"""Admission: whether a call is taken on now, or refused at once because the daemon has too much to do.

Owns: the rule. What ends something, keeps it, or puts things right is always taken on: to refuse a release or
a renewal would only make more work. What begins something or only asks is taken on while fewer of its sort
are in progress than the limit, CRITICAL ones up to half as many again, on a reserve of their own. The limit
follows the delay: from when a call was taken until its handler ran is time spent waiting for others. While
such waits are longer than the target in the mean of an interval, the limit falls; when the limit is what
stood in the way, and the delay did not, it rises. To refuse takes time, too: while calls are late, for every
two that are answered one may be refused, so that refusing can't take all there is. Time is an argument (ns).
Must not know: gRPC, what a call does.
"""

from collections.abc import Callable
from typing import Final

from coordd.core.limits import (
    CALLS_IN_PROGRESS_MIN,
    DELAY_INTERVAL_NS,
    DELAY_TARGET_NS,
    MILLISECOND,
    REFUSALS_AT_ONCE_MAX,
    REFUSALS_PER_SECOND_MIN,
    SECOND,
)
from coordd.rpc.admission_shares import NOBODY, Shares

# Refused ones are told to stay away for a tenth of a second, and for twice as long with each second in which
# there were more; after 6 doublings a fleet of thousands is thin enough.
_AWAY_NS: Final = 100 * MILLISECOND
_DOUBLINGS_MAX: Final = 6
_LEVEL_NS: Final = SECOND
_ANSWERS_PER_REFUSAL: Final = 2
_REFUSAL_NS: Final = SECOND // REFUSALS_PER_SECOND_MIN


class Admission:
    """The calls in progress, and whether one more may come.

    Args: calls_max: the limit never rises above it.  shares: of the namespaces that share the daemon.
    """

    __slots__ = (
        "_credit",
        "_delay_ns",
        "_delays",
        "_interval_ends_at",
        "_is_binding",
        "_is_late",
        "_level_ends_at",
        "_refusal_due_at",
        "calls_max",
        "critical",
        "in_progress",
        "level",
        "limit",
        "on_room",
        "refused",
        "shares",
    )

    def __init__(self, calls_max: int, shares: Shares | None = None) -> None:
        self.calls_max = calls_max
        self.shares = shares or Shares()
        self.limit = calls_max
        # Admitted and not answered yet: on the limit, and on the reserve for CRITICAL.
        self.in_progress = 0
        self.critical = 0
        self.refused = 0
        # Of the present interval: the delays, and whether the limit has stood in the way.
        self._delay_ns = self._delays = 0
        self._is_binding = False
        self._interval_ends_at = 0
        # Called when a place has become free.
        self.on_room: Callable[[], None] | None = None
        # Whether calls wait for each other; how many may be refused while they do, and when one more may be.
        self._is_late = False
        self._credit = 0
        self._refusal_due_at = 0
        # How often the time to stay away is doubled now: see `away_ns`.
        self.level = 0
        self._level_ends_at = 0

    def admit(self, *, is_critical: bool = False, namespace: str = NOBODY) -> "Place | None":
        """Return the place of a call that begins something or asks, or None: there is none."""
        if self.in_progress < self.limit or self.shares.has_room(namespace, self.limit):
            self.in_progress += 1
            self.shares.add(namespace)
            return Place(self, is_reserved=False, namespace=namespace)
        self._is_binding = True
        if is_critical and self.critical < (self.limit + 1) // 2:
            self.critical += 1
            return Place(self, is_reserved=True, namespace=namespace)
        return None

    def refuse(self, now: int) -> None:
        """Count a call that is refused: those after it are told to stay away for longer."""
        self.refused += 1
        if now >= self._level_ends_at:
            # A second in which nobody was refused halves it, and so does each that has passed since.
            quiet = (now - self._level_ends_at) // _LEVEL_NS
            self.level = min(_DOUBLINGS_MAX, max(0, self.level + 1 - quiet)) if self._level_ends_at else 0
            self._level_ends_at = now + _LEVEL_NS

    def may_refuse(self, now: int) -> bool:
        """Whether there is time to say so to one more; if there is, it is taken.

        There is while nothing is late; else for one for every two calls that are answered, and a few besides.
        """
        if not self._is_late:
            return True
        if self._credit >= _ANSWERS_PER_REFUSAL:
            self._credit -= _ANSWERS_PER_REFUSAL
            return True
        if now < self._refusal_due_at:
            return False
        self._refusal_due_at = now + _REFUSAL_NS
        return True

    def leave(self, *, is_reserved: bool, namespace: str) -> None:
        """Let a call's place be another's."""
        if is_reserved:
            self.critical -= 1
        else:
            self.in_progress -= 1
            self.shares.remove(namespace)
        self._credit = min(self._credit + 1, _ANSWERS_PER_REFUSAL * REFUSALS_AT_ONCE_MAX)
        if self.on_room is not None:
            self.on_room()

    def delayed(self, delay_ns: int, now: int) -> None:
        """Take in how long a call, of whatever sort, has waited for its handler to run."""
        self._delay_ns += delay_ns
        self._delays += 1
        if now >= self._interval_ends_at:
            self._adapt()
            self._interval_ends_at = now + DELAY_INTERVAL_NS
            self._delay_ns, self._delays, self._is_binding = 0, 0, False

    # --------------------------------------------------------------------------------------------------------

    def _adapt(self) -> None:
        delay_ns = self._delay_ns // self._delays
        self._is_late = delay_ns > DELAY_TARGET_NS // 2
        if delay_ns > DELAY_TARGET_NS:
            self.limit = max(self._floor, self.limit - self.limit // 5)
        elif self._is_binding:
            self.limit = min(self.calls_max, self.limit + 1 + self.limit // 16)

    @property
    def _floor(self) -> int:
        return min(CALLS_IN_PROGRESS_MIN, self.calls_max)


class Place:
    """A call's place among those in progress; `leave` may be called again."""

    __slots__ = ("_admission", "_namespace", "is_reserved")

    def __init__(self, admission: Admission, *, is_reserved: bool, namespace: str) -> None:
        self._admission: Admission | None = admission
        self._namespace = namespace
        self.is_reserved = is_reserved

    @property
    def is_left(self) -> bool:
        """Whether it is another's."""
        return self._admission is None

    def leave(self) -> None:
        """Let it be another's."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave(is_reserved=self.is_reserved, namespace=self._namespace)


def away_ns(level: int, part: float) -> int:
    """Return how long a refused call is to stay away: 0.1 s x 2^level, and `part` (0..1) of that more."""
    return int((_AWAY_NS << level) * (1 + part))
