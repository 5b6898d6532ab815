"""The fleet: which worker takes which demand of a trace, and when it gets to it.

Owns: the names of the workers, their weights, who is meant by "each in turn" and "every one", and what a busy
worker leaves for later. Must not know: what a demand wants.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import cycle
from random import Random

from msgspec.structs import replace

from coordd.core.rules import Rules
from coordd.planning.demands import ANY_WORKER, EVERY_WORKER, Demand

__all__ = ["Attempt", "Fleet", "attempts_of", "weighed"]


class Attempt:
    """A demand of one worker, and what becomes of it.

    Instants in ns, 0: not yet. `begun_at`: its worker has got to it. `granted_at`: it had everything.
    `reason`: "" unless it was refused, then why, and `what` it asked for.
    """

    __slots__ = (
        "begun_at",
        "demand",
        "ended_at",
        "granted_at",
        "reason",
        "step",
        "steps",
        "what",
        "worker",
    )

    def __init__(self, demand: Demand, worker: str) -> None:
        self.demand = demand
        self.worker = worker
        self.steps = demand.steps
        self.step = 0
        self.begun_at = 0
        self.granted_at = 0
        self.ended_at = 0
        self.reason = ""
        self.what = ""

    @property
    def is_granted(self) -> bool:
        """Whether it has, or had, everything, and lost nothing of it."""
        return self.granted_at > 0 and not self.reason

    @property
    def wait_ns(self) -> int:
        """From the demand to the grant of everything, for one that was granted."""
        return self.granted_at - self.demand.at_ns


def attempts_of(demands: Iterable[Demand], workers: int, seed: int) -> Iterator[Attempt]:
    """Yield what each worker attempts, in order of time.

    Args: workers: size of the fleet w1, w2, ...  seed: for what all of them see, who asks first is drawn by
    lot, as on a network it is.
    """
    fleet = [f"w{number}" for number in range(1, workers + 1)]
    in_turn, lot = cycle(fleet), Random(seed)
    for demand in demands:
        if demand.worker == EVERY_WORKER:
            yield from (Attempt(demand, worker) for worker in lot.sample(fleet, workers))
        else:
            yield Attempt(demand, next(in_turn) if demand.worker == ANY_WORKER else demand.worker)


def weighed(rules: Rules, demands: Iterable[Demand]) -> Rules:
    """Return the rules with each worker's weight by its class, unless [workers] says it.

    Why so: a real worker tells its class when it opens a session; here nobody opens one.
    """
    classes = {demand.worker: demand.worker_class for demand in demands if demand.worker_class}
    by_class = {worker: rules.worker_class_weights[name] for worker, name in classes.items()}
    return replace(rules, worker_weights={**by_class, **rules.worker_weights})


class Fleet:
    """What each worker is at.

    Args: at_once: attempts that one worker is at at a time; 0: any number.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._busy: dict[str, int] = {}
        self._later: dict[str, deque[Attempt]] = {}

    def begins(self, attempt: Attempt) -> bool:
        """Whether its worker can begin with it now; if not, it is left for later."""
        busy = self._busy.get(attempt.worker, 0)
        if self._at_once and busy >= self._at_once:
            self._later.setdefault(attempt.worker, deque()).append(attempt)
            return False
        self._busy[attempt.worker] = busy + 1
        return True

    def next(self, worker: str) -> Attempt | None:
        """Take note that a worker is done with one; return the one it begins with now, if there is any."""
        later = self._later.get(worker)
        if later:
            return later.popleft()
        self._busy[worker] -= 1
        return None
