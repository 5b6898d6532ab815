"""What a worker weighs where shares are proportional.

Owns: the weights of the configuration, and of those workers that have a session. Rule: its session's own
weight goes before that of the worker, that before its class's, and 1 is what is left. Must not know: what is
shared.
"""

from typing import Final

from coordd.core.rules import Rules

MILLI: Final = 1_000


class Weights:
    """Weights in thousandths."""

    __slots__ = ("_classes", "_present", "_workers")

    def __init__(self, rules: Rules) -> None:
        self._workers = {name: _milli(weight) for name, weight in rules.worker_weights.items()}
        self._classes = {name: _milli(weight) for name, weight in rules.worker_class_weights.items()}
        # Worker -> what its session says: (class, weight; 0: nothing).
        self._present: dict[str, tuple[str, int]] = {}

    def __contains__(self, worker: str) -> bool:
        """Whether the worker has a session."""
        return worker in self._present

    def of(self, worker: str) -> int:
        """Return what a worker weighs, 1 or more."""
        class_, weight_milli = self._present.get(worker, ("", 0))
        return weight_milli or self._workers.get(worker) or self._classes.get(class_, MILLI)

    def join(self, worker: str, worker_class: str, weight_milli: int) -> None:
        """Take in what a session says. `weight_milli` 0: nothing."""
        self._present[worker] = (worker_class, weight_milli)

    def leave(self, worker: str) -> None:
        """Forget a session."""
        self._present.pop(worker, None)


def _milli(weight: float) -> int:
    return max(1, round(weight * MILLI))
