"""How much of a fair limit or pool each worker has had, and what that makes of its turn.

Owns: who shares each of them now, with which weight, and the *level* of each: its dominant share, the largest
part of any window (or of the capacity) that it uses, per unit of weight. The smallest level goes first.
Rules: a worker is active while its session lives, while it waits, and for `active_window` after it last
waited, was given something or reported (a refusal leaves no trace). Its own part is that of its weight. What
it uses beyond that is borrowed, and counts for more where its calls mostly fail: it is lent less, and never
has less than its own. A worker that waits and was given nothing for `fair_bound` is starved.
Must not know: who waits in which order, and whether anything is free.
Source: dominant resource fairness, Ghodsi et al., NSDI 2011, each window being a resource.
"""

from collections.abc import Iterator
from math import exp
from typing import Final, Protocol

from coordd.core.ledger import Ledger
from coordd.core.limits import SECOND
from coordd.core.queues import QueueKey, Rank
from coordd.core.records import Efficiency, Table
from coordd.core.rules import DYNAMIC, EQUAL, MEDIUM, Rules
from coordd.core.weights import MILLI, Weights

PPM: Final = 1_000_000
PPB: Final = 1_000_000_000
# However much fails, what is borrowed counts for no more than twice: one bad hour must not starve a worker.
_EFFICIENCY_PPM_MIN: Final = PPM // 2
# A new report counts for 1/32: so that one failure is noise, and a hundred are known for what they are.
_EFFICIENCY_WEIGHT: Final = 32
# Up to so much all that the active weigh is exact: 64 workers of weight 1.
_EXACT_MILLI: Final = 64 * MILLI
# A new request's class counts for an eighth.
_URGENCY_WEIGHT: Final = 8


class Used(Protocol):
    """What is shared: the windows of a limit, or the units of a pool."""

    def parts(self, worker: str) -> list[tuple[int, int]]:
        """Return (used by the worker, limit) of each window, or of the pool. Cost: O(windows)."""
        ...

    def limits(self) -> tuple[int, ...]:
        """Return the limit of each window, or of the pool."""
        ...

    def watch(self, waiting: dict[str, int], touched: dict[str, None]) -> None:
        """Add to `touched`, from now on, each worker in `waiting` whose usage changes."""
        ...

    def roll(self, now: int) -> None:
        """Drop what has left the windows at `now`."""
        ...

    def last_given(self) -> dict[str, int]:
        """Return who uses anything, and about when each was given something last; after a restart."""
        ...

    def leaves_at(self) -> int:
        """Return when something leaves next by itself; 0: never."""
        ...

    @property
    def memory_ns(self) -> int:
        """How long a worker that nothing is heard of is remembered: until all it has had has left."""
        ...


class Sharer:
    """One worker in the sharing of one limit or pool.

    `given_at`: when it was last given something, 0: never. `urgency`: mean class of what it was given, in
    thousandths. `rate`: units asked for of late, fading, as of `rate_at`.
    """

    __slots__ = (
        "asked_at",
        "efficiency",
        "given_at",
        "is_active",
        "rate",
        "rate_at",
        "scheduled",
        "shares",
        "urgency",
        "wanted",
        "weight_milli",
        "worker",
    )

    def __init__(self, shares: "Shares", worker: str, weight_milli: int) -> None:
        self.shares = shares
        self.worker = worker
        self.weight_milli = weight_milli
        self.efficiency: Efficiency | None = None
        self.urgency = MEDIUM * MILLI
        self.is_active = False
        self.asked_at = 0
        self.given_at = 0
        # Units that it waits for.
        self.wanted = 0
        self.rate = 0.0
        self.rate_at = 0
        self.scheduled = 0

    @property
    def efficiency_ppm(self) -> int:
        """The part of its calls that succeed; all of them before the first report."""
        return self.efficiency.success_ppm if self.efficiency is not None else PPM


class Shares:
    """The sharing of one limit or pool.

    `waiting`: worker -> how many of its requests wait. `touched`: those of them whose level may have changed.
    """

    __slots__ = (
        "_active_window_ns",
        "_boost_ns",
        "_bound_ns",
        "_changed",
        "_inefficient",
        "_kind",
        "_ledger",
        "_several",
        "_subject",
        "_weights",
        "active_milli",
        "key",
        "sharers",
        "touched",
        "used",
        "waiting",
    )

    def __init__(
        self, key: QueueKey, kind: str, used: Used, *, rules: Rules, ledger: Ledger, weights: Weights
    ) -> None:
        self.key = key
        self.used = used
        self._kind = kind
        self._ledger = ledger
        self._weights = weights
        self._subject = "/".join(key)
        self._changed = ledger.changes.of[Table.EFFICIENCIES]
        self._active_window_ns = rules.active_window_ns
        self._bound_ns = rules.fair_bound_ns
        self._boost_ns = rules.boost_ns
        self.sharers: dict[str, Sharer] = {}
        # The sum of the weights of the active.
        self.active_milli = 0
        self.waiting: dict[str, int] = {}
        self.touched: dict[str, None] = {}
        # How many of those who wait want more than one unit: only then does it matter who is first while
        # nothing is free.
        self._several = 0
        # Those whose level depends on their own part.
        self._inefficient: dict[str, None] = {}
        used.watch(self.waiting, self.touched)

    # -- what the order asks ---------------------------------------------------------------------------------

    def level(self, worker: str) -> tuple[int, int]:
        """Return the dominant share of a worker, and the sum over all windows, which breaks ties.

        In parts of 10**9 of a window per unit of weight, rounded down. Cost: O(windows).
        """
        sharer = self.sharers.get(worker)
        weight_milli = sharer.weight_milli if sharer is not None else self._weight_of(worker)
        dominant = total = 0
        for used, limit in self.used.parts(worker):
            part = used * PPB // limit
            if sharer is not None and worker in self._inefficient:
                part = self._weighed_down(part, sharer)
            part = part * MILLI // weight_milli
            dominant = max(dominant, part)
            total += part
        return dominant, total

    def step(self, worker: str) -> int:
        """Return about how much one more unit adds to a worker's level."""
        sharer = self.sharers.get(worker)
        weight_milli = sharer.weight_milli if sharer is not None else self._weight_of(worker)
        return max(PPB * MILLI // limit // weight_milli for _, limit in self.used.parts(worker)) or 1

    def starves_at(self, rank: Rank) -> int:
        """Return when the worker whose first waiter has this rank is starved, if given nothing till then."""
        if rank[0] < 0:
            # Put first, by decision, before whoever is starved.
            return rank[0]
        sharer = self.sharers.get(rank[3])
        given_at = sharer.given_at if sharer is not None else 0
        return max(given_at, rank[0] + self._boost_ns[rank[2]]) + self._bound_ns

    def changes_at(self) -> int:
        """Return when levels next change by the passing of time alone, if it matters who is first; else 0."""
        return self.used.leaves_at() if self._several else 0

    @property
    def is_mixed(self) -> bool:
        """Whether of those who wait some want more than others: then it matters who is first all the time."""
        return self._several > 0

    # -- what the components tell ----------------------------------------------------------------------------

    def begin(self, rank: Rank, units: int) -> None:
        """A request waits for `units`."""
        sharer = self._sharer(rank[3])
        self.waiting[rank[3]] = self.waiting.get(rank[3], 0) + 1
        sharer.wanted += units
        sharer.asked_at = max(sharer.asked_at, rank[0] + self._boost_ns[rank[2]])
        self._several += units != 1
        self._activate(sharer)

    def end(self, rank: Rank, units: int, now: int) -> None:
        """It waits no longer."""
        worker = rank[3]
        sharer = self.sharers[worker]
        sharer.wanted -= units
        sharer.asked_at = now
        self._several -= units != 1
        self.waiting[worker] -= 1
        if not self.waiting[worker]:
            del self.waiting[worker]
            self._ledger.deadlines.not_after(sharer, now + self._active_window_ns)

    def given(self, worker: str, units: int, priority: int, now: int) -> None:
        """A worker was given `units`."""
        sharer = self._sharer(worker)
        sharer.asked_at = sharer.given_at = now
        sharer.rate = self._rate(sharer, now) + units
        sharer.rate_at = now
        if self._kind == DYNAMIC:
            sharer.urgency += (priority * MILLI - sharer.urgency) // _URGENCY_WEIGHT
            self._reweigh(sharer)
        self._touch(worker)
        self._activate(sharer)
        self._ledger.deadlines.not_after(sharer, now + self._active_window_ns)
        if self._several:
            self._ledger.freed.append(self.key)

    def reported(self, worker: str, now: int, *, is_success: bool) -> None:
        """A call was made, or units were given back, well or not."""
        sharer = self._sharer(worker)
        sharer.asked_at = now
        self._activate(sharer)
        self._ledger.deadlines.not_after(sharer, now + self._active_window_ns)
        if sharer.efficiency is None:
            if is_success:
                return
            sharer.efficiency = Efficiency(subject=self._subject, worker=worker, success_ppm=PPM, count=0)
        efficiency = sharer.efficiency
        efficiency.success_ppm += (PPM * is_success - efficiency.success_ppm) // _EFFICIENCY_WEIGHT
        efficiency.count += 1
        self._changed[(self._subject, worker)] = efficiency
        self._inefficient[worker] = None
        # Nobody else's own part has changed.
        self._touch(worker)
        self._reorder()

    def reweigh(self, worker: str) -> None:
        """A session has come, gone or changed."""
        sharer = self._sharer(worker)
        if worker in self._weights:
            self._activate(sharer)
        self._reweigh(sharer)
        self._ledger.deadlines.not_after(sharer, sharer.asked_at + self._active_window_ns)

    def due(self, sharer: Sharer, now: int) -> None:
        """Let a worker be active no longer, or postpone; forget it when it uses nothing any more."""
        worker = sharer.worker
        if worker in self.waiting or worker in self._weights:
            return
        if sharer.asked_at + self._active_window_ns > now:
            self._ledger.deadlines.schedule(sharer, sharer.asked_at + self._active_window_ns)
            return
        self._deactivate(sharer)
        self.used.roll(now)
        memory_ns = max(self.used.memory_ns, self._active_window_ns)
        if self._is_idle(sharer):
            # However many names come and only ask, they are forgotten soon.
            self._forget(sharer)
        elif sharer.asked_at + memory_ns > now:
            self._ledger.deadlines.schedule(sharer, sharer.asked_at + memory_ns)
        elif self.used.parts(worker)[0][0]:
            self._ledger.deadlines.schedule(sharer, now + memory_ns)
        else:
            self._forget(sharer)

    # -- recovery and views ----------------------------------------------------------------------------------

    def load(self, efficiency: Efficiency) -> None:
        """Take an efficiency in as it was stored."""
        self._sharer(efficiency.worker).efficiency = efficiency
        self._inefficient[efficiency.worker] = None

    def recover(self, now: int) -> None:
        """Find out who is active, by what was charged; those who waited are when they come back."""
        self.used.roll(now)
        for worker, at in sorted(self.used.last_given().items()):
            sharer = self._sharer(worker)
            sharer.asked_at = sharer.given_at = min(at, now)
        for sharer in list(self.sharers.values()):
            if sharer.asked_at + self._active_window_ns > now or sharer.worker in self._weights:
                self._activate(sharer)
            self._ledger.deadlines.not_after(sharer, max(now, sharer.asked_at + self._active_window_ns))

    def efficiencies(self) -> Iterator[Efficiency]:
        """Return what is known of each worker's success."""
        return (sharer.efficiency for sharer in self.sharers.values() if sharer.efficiency is not None)

    def active(self) -> list[Sharer]:
        """Return who shares now, by name."""
        return sorted(
            (each for each in self.sharers.values() if each.is_active), key=lambda each: each.worker
        )

    def demand_per_s(self, sharer: Sharer, now: int) -> float:
        """Return what a worker is expected to ask for, units a second."""
        return (self._rate(sharer, now) + sharer.wanted) * SECOND / self._active_window_ns

    def state(self) -> list[tuple[object, ...]]:
        """Return what decisions depend on and no record says."""
        return sorted(
            (each.worker, each.is_active, each.asked_at, each.given_at, each.urgency, each.weight_milli)
            for each in self.sharers.values()
        )

    def sharer(self, worker: str) -> Sharer:
        """Return a worker's sharing, as it would be if it is not known. Changes nothing."""
        return self.sharers.get(worker) or Sharer(self, worker, self._weight_of(worker))

    # --------------------------------------------------------------------------------------------------------

    def _sharer(self, worker: str) -> Sharer:
        sharer = self.sharers.get(worker)
        if sharer is None:
            sharer = self.sharers[worker] = Sharer(self, worker, self._weight_of(worker))
        return sharer

    def _weight_of(self, worker: str) -> int:
        return MILLI if self._kind == EQUAL else self._weights.of(worker)

    def _weighed_down(self, part: int, sharer: Sharer) -> int:
        """Return what a part of a window counts for: in full up to the worker's own, beyond it for more."""
        active_milli = _roughly(self.active_milli + (0 if sharer.is_active else sharer.weight_milli))
        own = PPB * sharer.weight_milli // active_milli
        if part <= own:
            return part
        return own + (part - own) * PPM // max(sharer.efficiency_ppm, _EFFICIENCY_PPM_MIN)

    def _rate(self, sharer: Sharer, now: int) -> float:
        return sharer.rate * exp((sharer.rate_at - now) / self._active_window_ns)

    def _activate(self, sharer: Sharer) -> None:
        if not sharer.is_active:
            sharer.is_active = True
            self._weigh(sharer.weight_milli)

    def _deactivate(self, sharer: Sharer) -> None:
        if sharer.is_active:
            sharer.is_active = False
            self._weigh(-sharer.weight_milli)

    def _reweigh(self, sharer: Sharer) -> None:
        weight_milli = self._weight_of(sharer.worker)
        if self._kind == DYNAMIC:
            weight_milli = max(1, weight_milli * sharer.urgency // (MEDIUM * MILLI))
        if weight_milli != sharer.weight_milli:
            if sharer.is_active:
                self._weigh(weight_milli - sharer.weight_milli)
            sharer.weight_milli = weight_milli
            self._touch(sharer.worker)
            self._reorder()

    def _touch(self, worker: str) -> None:
        if worker in self.waiting:
            self.touched[worker] = None

    def _weigh(self, change_milli: int) -> None:
        """Take in that the active weigh more, or less; those whose level depends on that are touched."""
        before = _roughly(self.active_milli)
        self.active_milli += change_milli
        if _roughly(self.active_milli) != before:
            for worker in self._inefficient:
                self._touch(worker)
            self._reorder()

    def _reorder(self) -> None:
        """Somebody else may be first; that matters at once only where some want more than others."""
        if self._several:
            self._ledger.freed.append(self.key)

    def _is_idle(self, sharer: Sharer) -> bool:
        """Whether a worker uses nothing, and nothing is known of it that its next request would miss."""
        is_new = sharer.efficiency is None and sharer.urgency == MEDIUM * MILLI
        return is_new and not any(used for used, _ in self.used.parts(sharer.worker))

    def _forget(self, sharer: Sharer) -> None:
        del self.sharers[sharer.worker]
        self._inefficient.pop(sharer.worker, None)
        if sharer.efficiency is not None:
            self._changed[(self._subject, sharer.worker)] = None


def _roughly(active_milli: int) -> int:
    """Return what the active weigh, exact for a few, beyond that to within a 64th, rounded down.

    Why: each time it changes all whose level depends on it are put in their places anew. Were it exact, with
    ten thousand of them each that comes or goes would cost a second.
    """
    if active_milli <= _EXACT_MILLI:
        return active_milli
    coarse = active_milli.bit_length() - 7
    return active_milli >> coarse << coarse
