"""One rolling window that never lies: how many permits may be taken now, and if none, exactly when.

Owns: what is charged, by bucket and worker, and the arithmetic of the future.
Rules: a window is cut into `BUCKETS_PER_WINDOW` buckets; a charge counts until its whole bucket has left the
window, so rounding only ever refuses early. A booking is charged from its time on, and whoever takes permits
before that time must leave room for it. What others use of upstream's limit, as its headers tell, is held as
*foreign* usage: it counts like a charge until an instant, at which all of it leaves.
Must not know: other windows, who waits, what is persisted when, what an endpoint is.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import merge

from sortedcontainers import SortedDict

from coordd.core.expected import Expected
from coordd.core.limits import BUCKETS_PER_WINDOW
from coordd.core.records import Booking, Cell
from coordd.core.rules import MEDIUM

_FOREVER = 1 << 63


class Bucket:
    """What is charged within one bucket of a window: each worker's cell, and all of it."""

    __slots__ = ("cells", "total")

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self.total = 0


class Window:
    """One rolling window: at most `limit` charges within any `length_ns`.

    `used` counts the live cells and what is `foreign`, until `foreign_until`. `limit` is what holds,
    `configured` what the file or an operator says: upstream may have taught that it allows less.
    """

    __slots__ = (
        "_booked",
        "_buckets",
        "_changed",
        "_left",
        "_name",
        "configured",
        "foreign",
        "foreign_until",
        "length_ns",
        "limit",
        "rolls_at",
        "used",
        "width_ns",
    )

    def __init__(self, name: str, length_ns: int, limit: int, changed: dict[Cell, None]) -> None:
        self.length_ns = length_ns
        self.limit = limit
        self.configured = limit
        self.width_ns = _width_ns(length_ns)
        self.used = 0
        self.foreign = 0
        self.foreign_until = 0
        # The instant at which the next bucket leaves the window, if there is one then.
        self.rolls_at = 0
        self._name = name
        self._changed = changed
        # In order, so that the oldest is at hand to drop, and the future to walk.
        self._buckets: SortedDict[int, Bucket] = SortedDict()
        # (instant, change) of what is booked, in order.
        self._booked: list[tuple[int, int]] = []
        # (instant, charges) of what has left within about the last length of the window, soonest first.
        self._left: deque[tuple[int, int]] = deque(maxlen=BUCKETS_PER_WINDOW)

    def charge(self, worker: str, count: int, at: int, priority: int = MEDIUM) -> None:
        """Count `count` for `worker` at the instant `at`."""
        number = at // self.width_ns
        bucket = self._buckets.get(number) or self._open(number)
        cell = bucket.cells.get(worker)
        if cell is None:
            cell = bucket.cells[worker] = Cell(self._name, self.length_ns, number, worker)
        cell.count += count
        bucket.total += count
        self.used += count
        self._changed[cell] = None

    def refund(self, worker: str, count: int, at: int, priority: int = MEDIUM) -> int:
        """Take back what was charged at the instant `at`, unless it has left the window; return how much."""
        bucket = self._buckets.get(at // self.width_ns)
        cell = bucket.cells.get(worker) if bucket is not None else None
        if bucket is None or cell is None:
            return 0
        # Less may be there than was taken: where the window is newer than the permit.
        count = min(count, cell.count)
        cell.count -= count
        bucket.total -= count
        self.used -= count
        self._changed[cell] = None
        return count

    def take_over(self, cell: Cell) -> None:
        """Charge what a cell of another window says, at the latest instant it can have been made."""
        self.charge(cell.worker, cell.count, ends_at(cell))

    def watch(self, waiting: dict[str, int], touched: dict[str, None]) -> None:
        """Add to `touched` each worker in `waiting` whose usage changes. Only windows that know it do."""

    def used_above(self, priority: int) -> int:
        """Return what classes above `priority` are charged with. 0 where the window keeps no classes."""
        return 0

    def roll(self, now: int) -> None:
        """Drop what has left the window at `now`. Cost: O(1) a bucket that leaves."""
        number = now // self.width_ns
        self.rolls_at = (number + 1) * self.width_ns
        oldest = number - BUCKETS_PER_WINDOW
        while self._buckets and self._buckets.peekitem(0)[0] < oldest:
            number, bucket = self._buckets.popitem(0)
            if bucket.total:
                self._left.append((self._left_at(number), bucket.total))
            self._drop(bucket)
        if self.foreign:
            self._roll_foreign(now)

    def hold(self, count: int, until: int, now: int) -> None:
        """Count `count` as used by others until the instant `until`, in place of what was held before."""
        self.used += count - self.foreign
        self.foreign = count
        self.foreign_until = until
        self.roll(now)

    def left_since(self, at: int) -> int:
        """Return how many charges have left since the instant `at`. Cost: O(buckets that have)."""
        left = 0
        for left_at, count in reversed(self._left):
            if left_at <= at:
                break
            left += count
        return left

    def is_live(self, at: int, now: int) -> bool:
        """Whether a charge made at `at` still counts at `now`."""
        return at // self.width_ns >= now // self.width_ns - BUCKETS_PER_WINDOW

    def book(self, booking: Booking) -> None:
        """Hold room for a booking from its time until its last use has left. Cost: O(bookings)."""
        for step in self._steps_of(booking):
            insort(self._booked, step)

    def unbook(self, booking: Booking) -> None:
        """Give its room back."""
        for step in self._steps_of(booking):
            self._booked.remove(step)

    def load(self, cell: Cell) -> None:
        """Take a cell in as it was stored."""
        bucket = self._buckets.get(cell.bucket) or self._open(cell.bucket)
        bucket.cells[cell.worker] = cell
        bucket.total += cell.count
        self.used += cell.count

    def used_by(self, worker: str) -> int:
        """Return what `worker` is charged with. Cost: O(cells)."""
        return sum(cell.count for cell in self.cells() if cell.worker == worker)

    def workers(self) -> set[str]:
        """Return who is charged with anything. Cost: O(cells)."""
        return {cell.worker for cell in self.cells() if cell.count}

    def cells(self) -> Iterator[Cell]:
        """Return the live cells."""
        return (cell for bucket in self._buckets.values() for cell in bucket.cells.values())

    def charged(self) -> Iterator[tuple[int, int]]:
        """Yield (the latest instant it can have been at, charges) for each bucket, in order."""
        for number, bucket in self._buckets.items():
            yield (number + 1) * self.width_ns - 1, bucket.total

    def leaves_at(self) -> int:
        """Return when the oldest bucket, or what is foreign, leaves; 0: there is nothing."""
        at = self._left_at(self._buckets.peekitem(0)[0]) if self._buckets else 0
        return min(at or self.foreign_until, self.foreign_until) if self.foreign else at

    def resets_at(self, now: int) -> int:
        """Return when all that is charged or booked now will have left; `now` if nothing is."""
        ends = [self._left_at(number) for number, bucket in self._buckets.items() if bucket.total]
        ends += [at for at, _ in self._booked[-1:]]
        ends += [at for at, _ in self._foreign_leaves()]
        return max(ends, default=now)

    def earliest(
        self, count: int, start: int, hold_ns: int, now: int, *, priority: int = 0, kept: int = 0
    ) -> int:
        """Return the first instant at or after `start` from which `count` more fit for good.

        A permit taken at T is charged until it has left the window after T + hold_ns; so there must be room
        not at T alone but until then, past every booking that begins meanwhile. One pass over the levels of
        the future finds it: where a level leaves no room, nothing that begins before that level's end will
        do.
        Args: count: 1..limit - kept. hold_ns: from taking to latest use. now: at which the window was rolled.
        kept: units kept from the class `priority` for those above it, what these have used included.
        Cost: O(buckets until then), with bookings O(buckets + bookings).
        """
        if not (self._booked or self.foreign or kept):
            return self._first_room(count, start)
        at = start
        for begins, ends, level in self._levels(now, priority, kept):
            is_room = level + count <= self.limit
            # Without bookings levels only fall: where there is room once, there is room from then on.
            if (is_room and not self._booked) or begins >= self._left_at((at + hold_ns) // self.width_ns):
                break
            if not is_room and ends > at:
                at = ends
        return at

    def _first_room(self, count: int, start: int) -> int:
        """Return what `earliest` does where levels only fall and only charges count.

        Why apart: this is what most of those who wait are told, each time.
        """
        missing = self.used + count - self.limit
        if missing <= 0:
            return start
        buckets, leaving = self._buckets, iter(self._buckets)
        number = next(leaving)
        while (missing := missing - buckets[number].total) > 0:
            number = next(leaving)
        return max(start, self._left_at(number))

    def earliest_beside(
        self, expected: Expected, count: int, start: int, hold_ns: int, now: int, *, since: int
    ) -> int:
        """As `earliest`, of one who also leaves room for what others are expected to want.

        Args: since: see `Expected.clears_at`.
        """
        at, most = start, min(expected.most, self.limit - count)
        for begins, ends, level in self._levels(now):
            room = self.limit - level - count
            if (room >= most and not self._booked) or begins >= self._left_at(
                (at + hold_ns) // self.width_ns
            ):
                break
            if room < most:
                at = max(at, ends if room < 0 else expected.clears_at(room, ends, since))
        return at

    def set_aside(self, expected: Expected, now: int) -> int:
        """Return how many units are to be left now for what is expected. Cost: O(buckets + bookings)."""
        return max(level + expected.within(ends - now) for _, ends, level in self._levels(now)) - self.used

    def room(self, hold_ns: int, now: int) -> int:
        """Return how many more fit for good if taken now; below 0 after the limit was lowered."""
        left_at = self._left_at((now + hold_ns) // self.width_ns)
        return self.limit - max(level for begins, _, level in self._levels(now) if begins < left_at)

    def _levels(self, now: int, priority: int = 0, kept: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yield (begin, end, charges) for each stretch of the future, as things stand now.

        Classes above `priority` count for at least the units `kept` for them.
        """
        if kept:
            yield from self._levels_beside(now, priority, kept)
            return
        level, begins = self.used, now
        for at, change in self._changes():
            if at > begins:
                yield begins, at, level
                begins = at
            level += change
        yield begins, _FOREVER, level

    def _levels_beside(self, now: int, priority: int, kept: int) -> Iterator[tuple[int, int, int]]:
        level, unused, begins = self.used, kept - self.used_above(priority), now
        booked = ((at, change, 0) for at, change in merge(self._booked, self._foreign_leaves()))
        for at, change, back in merge(self._leavings_above(priority), booked):
            if at > begins:
                yield begins, at, level + max(0, unused)
                begins = at
            level += change
            unused += back
        yield begins, _FOREVER, level + max(0, unused)

    def _leavings_above(self, priority: int) -> Iterator[tuple[int, int, int]]:
        """Yield (instant, change, what of it is of classes above) for each bucket that leaves."""
        return ((at, change, 0) for at, change in self._leavings())

    def _changes(self) -> Iterable[tuple[int, int]]:
        """Return (instant, change) for all that leaves or begins, soonest first."""
        if self._booked or self.foreign:
            return merge(self._leavings(), self._booked, self._foreign_leaves())
        return self._leavings()

    def _leavings(self) -> Iterator[tuple[int, int]]:
        """Yield (instant, change) for each bucket that leaves, soonest first."""
        buckets, width_ns = self._buckets, self.width_ns
        # In place of a call of _left_at for each: this is the innermost loop of all that looks ahead.
        for number in buckets:
            yield (number + 1 + BUCKETS_PER_WINDOW) * width_ns, -buckets[number].total

    def _foreign_leaves(self) -> tuple[tuple[int, int], ...]:
        return ((self.foreign_until, -self.foreign),) if self.foreign else ()

    def _roll_foreign(self, now: int) -> None:
        if now >= self.foreign_until:
            self.used -= self.foreign
            self.foreign = 0
        else:
            self.rolls_at = min(self.rolls_at, self.foreign_until)

    def _steps_of(self, booking: Booking) -> tuple[tuple[int, int], tuple[int, int]]:
        begins_at = booking.execute_at // self.width_ns * self.width_ns
        return (begins_at, booking.count), (self._left_at(booking.use_by // self.width_ns), -booking.count)

    def _left_at(self, bucket: int) -> int:
        return (bucket + 1 + BUCKETS_PER_WINDOW) * self.width_ns

    def _open(self, number: int) -> Bucket:
        bucket = self._buckets[number] = Bucket()
        return bucket

    def _drop(self, bucket: Bucket) -> None:
        self.used -= bucket.total
        for cell in bucket.cells.values():
            cell.count = 0
            self._changed[cell] = None


def left_at(cell: Cell) -> int:
    """Return when a stored cell has left its window, whether that is still configured or not."""
    return (cell.bucket + 1 + BUCKETS_PER_WINDOW) * _width_ns(cell.window_ns)


def ends_at(cell: Cell) -> int:
    """Return the last instant of a cell's bucket."""
    return (cell.bucket + 1) * _width_ns(cell.window_ns) - 1


def begins_at(cell: Cell) -> int:
    """Return the first instant of a cell's bucket."""
    return cell.bucket * _width_ns(cell.window_ns)


def _width_ns(length_ns: int) -> int:
    # Rounded up: a bucket too wide refuses early, one too narrow would forget a call.
    return -(-length_ns // BUCKETS_PER_WINDOW)
