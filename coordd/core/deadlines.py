"""Everything that is due by time, in one heap.

Owns: the order in which things fall due. A target is in the heap at most once *validly*: as the entry whose
number its `scheduled` is. Any other entry of it is stale and is dropped when it comes up, or when stale ones
are the majority. The number is of that one entry, not of its instant: a target that is moved away and back
does not make its old entry valid again, whose place among equal instants is another.
Must not know: what is due, or what happens then.
"""

from heapq import heapify, heappop, heappush
from typing import Protocol

# Below this many a heap is not worth rebuilding.
_STALE_MIN = 1_024
# An entry's number is its instant, and below that which entry it is: 2**64 of them are never made.
_TIE_BITS = 64


class Target(Protocol):
    """Something with a deadline; `scheduled` belongs to the heap, 0 means: not in it."""

    scheduled: int


class Deadlines:
    """A heap of targets by instant (ns); equal instants in the order of scheduling."""

    __slots__ = ("_heap", "_stale", "_tie")

    def __init__(self) -> None:
        self._heap: list[tuple[int, Target]] = []
        self._tie = 0
        self._stale = 0

    def __len__(self) -> int:
        """Entries held, stale ones included."""
        return len(self._heap)

    def schedule(self, target: Target, at: int) -> None:
        """Make `target` due at `at`, and no longer at any other instant. Cost: O(log n)."""
        earlier = target.scheduled
        if earlier and earlier >> _TIE_BITS == at:
            return
        self._tie += 1
        target.scheduled = at << _TIE_BITS | self._tie
        if earlier:
            self._leave_stale()
        heappush(self._heap, (target.scheduled, target))

    def not_after(self, target: Target, at: int) -> None:
        """Make `target` due at `at` or earlier: an earlier deadline stands, its handler may postpone.

        Why: a lease that is renewed a hundred times has one entry in the heap, not a hundred.
        """
        if not target.scheduled or at < target.scheduled >> _TIE_BITS:
            self.schedule(target, at)

    def cancel(self, target: Target) -> None:
        """Make `target` never due. Cost: O(1) amortised."""
        if target.scheduled:
            target.scheduled = 0
            self._leave_stale()

    def next_at(self) -> int | None:
        """Return the instant of the next target due, or None. Cost: O(1) amortised."""
        heap = self._heap
        while heap and heap[0][1].scheduled != heap[0][0]:
            heappop(heap)
            self._stale -= 1
        return heap[0][0] >> _TIE_BITS if heap else None

    def pop_due(self, now: int) -> Target | None:
        """Take the next target due at or before `now` out of the heap, or return None."""
        at = self.next_at()
        if at is None or at > now:
            return None
        target = heappop(self._heap)[1]
        target.scheduled = 0
        return target

    def _leave_stale(self) -> None:
        self._stale += 1
        if self._stale > _STALE_MIN and 2 * self._stale > len(self._heap):
            self._compact()

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if entry[1].scheduled == entry[0]]
        heapify(self._heap)
        self._stale = 0
