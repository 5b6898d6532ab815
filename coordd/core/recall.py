"""What is remembered for a fixed time, then forgotten, first in first out.

Owns: the order of forgetting. One deadline serves any number of memories: a little after that of the oldest,
so that many are forgotten at once; forgetting each at its own instant costs more than remembering it. So
whoever needs the exact end compares instants, and takes this for what frees the memory.
Must not know: what is remembered.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from coordd.core.deadlines import Deadlines
from coordd.core.limits import FORGOTTEN_PER_SWEEP_MAX

T = TypeVar("T")


class Recall(Generic[T]):
    """A queue of things to forget `keep_ns` (or up to 0.1 % more) after they were remembered, by `forget`."""

    __slots__ = ("_deadlines", "_entries", "_forget", "_keep_ns", "_sweep_after_ns", "scheduled")

    def __init__(self, deadlines: Deadlines, keep_ns: int, forget: Callable[[T], None]) -> None:
        self._deadlines = deadlines
        self._keep_ns = keep_ns
        self._sweep_after_ns = keep_ns + (keep_ns >> 10)
        self._forget = forget
        self._entries: deque[tuple[int, T]] = deque()
        self.scheduled = 0

    def __len__(self) -> int:
        """Things remembered."""
        return len(self._entries)

    def remember(self, thing: T, now: int) -> None:
        """Forget `thing` `keep_ns` from `now`, which is never less than at the last call."""
        self._entries.append((now, thing))
        if not self.scheduled:
            self._deadlines.schedule(self, now + self._sweep_after_ns)

    def forget_oldest(self) -> None:
        """Forget the oldest at once."""
        self._forget(self._entries.popleft()[1])

    def sweep(self, now: int) -> None:
        """Forget what is due, at most `FORGOTTEN_PER_SWEEP_MAX` of it; the rest is due at once."""
        for _ in range(FORGOTTEN_PER_SWEEP_MAX):
            if not self._entries:
                return
            if self._entries[0][0] + self._keep_ns > now:
                self._deadlines.schedule(self, self._entries[0][0] + self._sweep_after_ns)
                return
            self.forget_oldest()
        self._deadlines.schedule(self, now)
