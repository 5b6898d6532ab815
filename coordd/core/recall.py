"""What is remembered for a fixed time, then forgotten, first in first out.

Owns: the order of forgetting. One deadline serves any number of memories: that of the oldest.
Must not know: what is remembered.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from coordd.core.deadlines import Deadlines
from coordd.core.limits import DUE_PER_TICK_MAX

T = TypeVar("T")


class Recall(Generic[T]):
    """A queue of things to forget `keep_ns` after they were remembered, by calling `forget` with each."""

    __slots__ = ("_deadlines", "_entries", "_forget", "_keep_ns", "scheduled_at")

    def __init__(self, deadlines: Deadlines, keep_ns: int, forget: Callable[[T], None]) -> None:
        self._deadlines = deadlines
        self._keep_ns = keep_ns
        self._forget = forget
        self._entries: deque[tuple[int, T]] = deque()
        self.scheduled_at = 0

    def __len__(self) -> int:
        """Things remembered."""
        return len(self._entries)

    def remember(self, thing: T, now: int) -> None:
        """Forget `thing` `keep_ns` from `now`, which is never less than at the last call."""
        self._entries.append((now, thing))
        if not self.scheduled_at:
            self._deadlines.schedule(self, now + self._keep_ns)

    def forget_oldest(self) -> None:
        """Forget the oldest at once."""
        self._forget(self._entries.popleft()[1])

    def sweep(self, now: int) -> None:
        """Forget what is due, at most `DUE_PER_TICK_MAX` of it; the rest is due at once."""
        for _ in range(DUE_PER_TICK_MAX):
            if not self._entries or self._entries[0][0] + self._keep_ns > now:
                break
            self.forget_oldest()
        if self._entries:
            self._deadlines.schedule(self, self._entries[0][0] + self._keep_ns)
