"""What of a fair limit each worker may count on, told to those who ask. No decision depends on it.

Owns: max-min fairness over what each active worker is expected to want: nobody has less than its own part if
it wants that much, and what some leave is shared by those who want more, by weight.
Must not know: who is first, or what is granted when.
Source: weighted max-min fairness by water-filling, Bertsekas and Gallager, Data Networks, section 6.5.
"""

from bisect import bisect_left
from itertools import accumulate
from math import inf
from typing import Final

from coordd.core.limits import SECOND
from coordd.core.shares import PPM, Sharer, Shares
from coordd.core.views import AllocationView, ShareView
from coordd.core.weights import MILLI
from coordd.core.window import Window
from coordd.core.windows import Windows

# Above so many, what all want is reckoned once for all who ask within a second: it takes 3 ms for a thousand.
_FEW: Final = 256
_KEPT_NS: Final = SECOND
# So much of a unit is the rounding of floats.
_ROUNDING: Final = 1e-6


class MaxMin:
    """`capacity` shared by weight among those who want at most their `demands` (inf: all they can get)."""

    def __init__(self, capacity: float, weights: list[int], demands: list[float]) -> None:
        self._capacity = capacity
        self._weights = weights
        self._demands = demands
        order = sorted(range(len(weights)), key=lambda one: demands[one] / weights[one])
        self._places = {one: place for place, one in enumerate(order)}
        # The level at which each has enough, in order; and of all those before, what they want and weigh.
        self._levels = [demands[one] / weights[one] for one in order]
        self._wanted = list(accumulate((demands[one] for one in order), initial=0.0))
        self._weight = list(accumulate((weights[one] for one in order), initial=0))

    def share(self, one: int) -> float:
        """Return what `one` gets if it wants all it can get, the others their demands. Cost: O(log n)."""
        count = len(self._levels)
        satisfied = bisect_left(range(count), self._capacity, key=lambda place: self._filled(place, one))
        wanted, weight = self._below(satisfied, one)
        return (self._capacity - wanted) / weight * self._weights[one]

    def _filled(self, place: int, one: int) -> float:
        """Return what is taken at the level at which the one at `place` has enough."""
        wanted, weight = self._below(place, one)
        return wanted + self._levels[place] * weight

    def _below(self, place: int, one: int) -> tuple[float, int]:
        """Return what those before `place` want, and what all others weigh; `one` is never satisfied."""
        wanted, weight = self._wanted[place], self._weight[-1] - self._weight[place]
        if self._places[one] < place:
            return wanted - self._demands[one], weight + self._weights[one]
        return wanted, weight


class Allocations:
    """The parts of a limit's windows as they stand at `now`, of the active and of `worker`, if that is not.

    Cost: O(active workers x log of those x windows) to make, O(windows x log) for each that is asked for.
    What each has used is as of now, also where it was made before.
    """

    def __init__(self, shares: Shares, windows: Windows, now: int, worker: str = "") -> None:
        windows.roll(now)
        self._shares = shares
        self._windows = windows
        self._now = now
        self.sharers = shares.active()
        self._are_active = True
        if worker and all(sharer.worker != worker for sharer in self.sharers):
            self.sharers.append(shares.sharer(worker))
            self._are_active = False
        self._places = {sharer.worker: place for place, sharer in enumerate(self.sharers)}
        weights = [sharer.weight_milli for sharer in self.sharers]
        self._weight = sum(weights)
        self._demands = [[self._demand(sharer, each) for sharer in self.sharers] for each in windows.of]
        self._fills = [
            MaxMin(window.limit, weights, demands)
            for window, demands in zip(windows.of, self._demands, strict=True)
        ]

    @property
    def is_worth_keeping(self) -> bool:
        """Whether so many share that they are not to be looked through each time that one of them asks."""
        return self._are_active and len(self.sharers) > _FEW

    def is_good_for(self, worker: str, now: int) -> bool:
        """Whether it may be told to `worker` at `now`: what all want is not old. Cost: O(windows)."""
        self._windows.roll(now)
        return worker in self._places and now < self._now + _KEPT_NS

    def of(self, worker: str) -> AllocationView:
        """Return a worker's part: of one of `sharers`."""
        place = self._places[worker]
        sharer = self.sharers[place]
        return AllocationView(
            name=worker,
            windows=tuple(self._share(index, place) for index in range(len(self._windows.of))),
            active_workers=len(self.sharers),
            weight=sharer.weight_milli / MILLI,
            efficiency=sharer.efficiency_ppm / PPM,
            demand_per_s=self._shares.demand_per_s(sharer, self._now),
            queued_units=sharer.wanted,
        )

    def _demand(self, sharer: Sharer, window: Window) -> float:
        """Return what a worker is expected to want of a window: who waits, wants all it can get."""
        if sharer.wanted:
            return inf
        rate = self._shares.demand_per_s(sharer, self._now) * window.length_ns / SECOND
        return max(float(window.used_by(sharer.worker)), rate)

    def _share(self, index: int, place: int) -> ShareView:
        window, sharer = self._windows.of[index], self.sharers[place]
        own = window.limit * sharer.weight_milli // self._weight
        used = window.used_by(sharer.worker)
        allocated = max(own, int(self._fills[index].share(place) + _ROUNDING))
        return ShareView(
            length_ns=window.length_ns,
            allocated=allocated,
            used=used,
            remaining=max(0, min(allocated - used, window.limit - window.used)),
            own=own,
            lent=max(0, own - int(min(own, self._demands[index][place]))),
            borrowed=max(0, used - own),
        )


def undivided(windows: Windows, worker: str, now: int) -> AllocationView:
    """Return a worker's part of a limit that is not shared: all of it."""
    windows.roll(now)
    shares = tuple(
        ShareView(
            length_ns=window.length_ns,
            allocated=window.limit,
            used=window.used_by(worker),
            remaining=max(0, window.limit - window.used),
        )
        for window in windows.of
    )
    active = windows.of[0].workers() | {worker}
    return AllocationView(name=worker, windows=shares, active_workers=len(active))
