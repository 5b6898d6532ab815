"""A rolling window that also knows who uses it: by class, for headroom, and by worker, for fair shares.

Owns: what each class and each worker is charged with, kept up with every charge so that asking costs nothing.
Must not know: what a share or a headroom is. Windows whose limit has neither are plain ones and pay nothing.
"""

from collections.abc import Iterator

from coordd.core.records import Cell
from coordd.core.rules import LOW, MEDIUM, PRIORITIES, LimitRule
from coordd.core.window import Bucket, Window, begins_at, ends_at
from coordd.core.windows import Windows

_CLASSES = len(PRIORITIES) + 1


class _SharedBucket(Bucket):
    """A bucket that knows its parts by class: index = priority."""

    __slots__ = ("by_class",)

    def __init__(self) -> None:
        super().__init__()
        self.by_class = [0] * _CLASSES


class SharedWindow(Window):
    """A window that keeps its charges by class (index = priority) and by worker.

    `touched`: those of the workers in `watched` whose usage has changed since somebody last took them out.
    """

    __slots__ = ("by_class", "by_worker", "touched", "watched")

    def __init__(self, name: str, length_ns: int, limit: int, changed: dict[Cell, None]) -> None:
        super().__init__(name, length_ns, limit, changed)
        self.by_class = [0] * _CLASSES
        self.by_worker: dict[str, int] = {}
        self.watched: dict[str, int] = {}
        self.touched: dict[str, None] = {}

    def charge(self, worker: str, count: int, at: int, priority: int = MEDIUM) -> None:
        """See `Window.charge`."""
        super().charge(worker, count, at)
        bucket = self._bucket(at // self.width_ns)
        classes = _classes(bucket.cells[worker], count)
        classes[priority] += count
        bucket.by_class[priority] += count
        self._count(worker, priority, count)

    def refund(self, worker: str, count: int, at: int, priority: int = MEDIUM) -> int:
        """See `Window.refund`."""
        refunded = super().refund(worker, count, at)
        if refunded:
            bucket = self._bucket(at // self.width_ns)
            classes = _classes(bucket.cells[worker], -refunded)
            for class_, part in _parts(classes, refunded, priority):
                classes[class_] -= part
                bucket.by_class[class_] -= part
                self._count(worker, class_, -part)
        return refunded

    def take_over(self, cell: Cell) -> None:
        """See `Window.take_over`."""
        for class_, count in enumerate(_classes(cell, 0)):
            if count:
                self.charge(cell.worker, count, ends_at(cell), class_)

    def load(self, cell: Cell) -> None:
        """See `Window.load`. What is stored without its class counts as of the lowest."""
        super().load(cell)
        bucket = self._bucket(cell.bucket)
        for class_, count in enumerate(_classes(cell, 0)):
            bucket.by_class[class_] += count
            self._count(cell.worker, class_, count)

    def used_by(self, worker: str) -> int:
        """See `Window.used_by`. Cost: O(1)."""
        return self.by_worker.get(worker, 0)

    def workers(self) -> set[str]:
        """See `Window.workers`. Cost: O(workers)."""
        return set(self.by_worker)

    def watch(self, waiting: dict[str, int], touched: dict[str, None]) -> None:
        """See `Window.watch`."""
        self.watched, self.touched = waiting, touched

    def used_above(self, priority: int) -> int:
        """See `Window.used_above`."""
        return sum(self.by_class[priority + 1 :])

    def _leavings_above(self, priority: int) -> Iterator[tuple[int, int, int]]:
        for number, bucket in self._buckets.items():
            above = sum(self._bucket(number).by_class[priority + 1 :])
            yield self._left_at(number), -bucket.total, above

    def _bucket(self, number: int) -> _SharedBucket:
        return self._buckets[number]  # type: ignore[return-value]

    def _open(self, number: int) -> Bucket:
        bucket = self._buckets[number] = _SharedBucket()
        return bucket

    def _drop(self, bucket: Bucket) -> None:
        for cell in bucket.cells.values():
            for class_, count in enumerate(_classes(cell, 0)):
                self._count(cell.worker, class_, -count)
        super()._drop(bucket)

    def _count(self, worker: str, class_: int, count: int) -> None:
        self.by_class[class_] += count
        used = self.by_worker.get(worker, 0) + count
        if used:
            self.by_worker[worker] = used
        else:
            self.by_worker.pop(worker, None)
        if worker in self.watched:
            self.touched[worker] = None


class SharedWindows:
    """What `shares.Used` says of a limit: its windows are shared."""

    __slots__ = ("_windows",)

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def parts(self, worker: str) -> list[tuple[int, int]]:
        """See `Used.parts`."""
        return [(window.used_by(worker), window.limit) for window in self._windows.of]

    def limits(self) -> tuple[int, ...]:
        """See `Used.limits`."""
        return tuple(window.limit for window in self._windows.of)

    def watch(self, waiting: dict[str, int], touched: dict[str, None]) -> None:
        """See `Used.watch`."""
        for window in self._windows.of:
            window.watch(waiting, touched)

    def roll(self, now: int) -> None:
        """See `Used.roll`."""
        self._windows.roll(now)

    def last_given(self) -> dict[str, int]:
        """See `Used.last_given`: the begin of the last bucket in which it is charged. Cost: O(cells)."""
        last: dict[str, int] = {}
        for window in self._windows.of:
            for cell in window.cells():
                last[cell.worker] = max(last.get(cell.worker, 0), begins_at(cell))
        return last

    def leaves_at(self) -> int:
        """See `Used.leaves_at`."""
        return self._windows.leaves_at()

    @property
    def memory_ns(self) -> int:
        """See `Used.memory_ns`."""
        longest = self._windows.of[-1]
        return self._windows.use_within_ns + longest.length_ns + 2 * longest.width_ns


def windows_of(name: str, rule: LimitRule, changed: dict[Cell, None]) -> Windows:
    """Return the windows of a rule; such as know who uses them, if that is asked for."""
    is_shared = rule.is_fair or bool(rule.headroom)
    window_type = SharedWindow if is_shared else Window
    return Windows(name, rule.windows, rule.use_within_ns, changed, window_type)


def _classes(cell: Cell, just_counted: int) -> list[int]:
    """Return a cell's parts by class, as of before the `just_counted` was."""
    if cell.classes is None:
        cell.classes = [0] * _CLASSES
        cell.classes[LOW] = cell.count - just_counted
    return cell.classes


def _parts(classes: list[int], count: int, priority: int) -> Iterator[tuple[int, int]]:
    """Yield (class, part) of what is taken back: of its own class, then, where that has less, of the others.

    It has less where the charge was made before the window kept classes.
    """
    for class_ in (priority, *PRIORITIES):
        part = min(count, classes[class_])
        count -= part
        yield class_, part
