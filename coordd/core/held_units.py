"""Who holds units of a fair pool: what `shares.Used` says of units that are held and come back.

Owns: the units by worker, and when each was given some last. Must not know: what a share is.
"""

from collections.abc import Callable

from coordd.core.limits import MINUTE


class HeldUnits:
    """Units held by worker. `capacity` says how many there are now."""

    __slots__ = ("_by_worker", "_capacity", "_given_at", "_touched", "_watched")

    def __init__(self, capacity: Callable[[], int]) -> None:
        self._capacity = capacity
        self._by_worker: dict[str, int] = {}
        self._given_at: dict[str, int] = {}
        self._watched: dict[str, int] = {}
        self._touched: dict[str, None] = {}

    def hold(self, worker: str, units: int, granted_at: int) -> None:
        """Count units as held; below 0: as given back."""
        held = self._by_worker.get(worker, 0) + units
        if held:
            self._by_worker[worker] = held
            self._given_at[worker] = max(self._given_at.get(worker, 0), granted_at)
        else:
            del self._by_worker[worker], self._given_at[worker]
        if worker in self._watched:
            self._touched[worker] = None

    def parts(self, worker: str) -> list[tuple[int, int]]:
        """See `Used.parts`."""
        return [(self._by_worker.get(worker, 0), self._capacity())]

    def limits(self) -> tuple[int, ...]:
        """See `Used.limits`."""
        return (self._capacity(),)

    def watch(self, waiting: dict[str, int], touched: dict[str, None]) -> None:
        """See `Used.watch`."""
        self._watched, self._touched = waiting, touched

    def roll(self, now: int) -> None:
        """See `Used.roll`: nothing comes back by itself."""

    def last_given(self) -> dict[str, int]:
        """See `Used.last_given`."""
        return self._given_at

    def leaves_at(self) -> int:
        """See `Used.leaves_at`: never by itself."""
        return 0

    @property
    def memory_ns(self) -> int:
        """See `Used.memory_ns`: once it holds nothing."""
        return MINUTE
