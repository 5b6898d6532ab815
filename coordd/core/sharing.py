"""Everything that workers share fairly: the limits and pools with `allocation = "fair"`.

Owns: the order of every queue that is not first come, first served; the shares of each, and the weights that
are common to all. Must not know: how anything is granted.
"""

from collections.abc import Iterable, Iterator

from coordd.core.class_queues import ClassQueue
from coordd.core.fair_queues import FairQueue
from coordd.core.headroom import Headroom
from coordd.core.ledger import Ledger
from coordd.core.queues import QueueKey, Queues
from coordd.core.records import Efficiency, Table
from coordd.core.rules import LimitRule, PoolRule, Rules
from coordd.core.shares import Shares, Used
from coordd.core.weights import Weights


class Sharing:
    """The shares by queue key."""

    __slots__ = ("_ledger", "_queues", "_rules", "_shares", "weights")

    def __init__(self, rules: Rules, ledger: Ledger, queues: Queues) -> None:
        self._rules = rules
        self._ledger = ledger
        self._queues = queues
        self._shares: dict[QueueKey, Shares] = {}
        self.weights = Weights(rules)

    def order(
        self, key: QueueKey, rule: LimitRule | PoolRule, headroom: Headroom | None, used: Used
    ) -> Shares | None:
        """Give the queue for `key` the order that its rule asks for.

        Return the shares, or None if workers do not share it.
        """
        if rule.is_fair:
            return self._share(key, rule.share, used, has_headroom=headroom is not None)
        if headroom is not None:
            self._queues.orders[key] = ClassQueue(has_headroom=True)
        return None

    def join(self, worker: str, worker_class: str, weight_milli: int) -> None:
        """A worker's session has begun, or says something new: it shares everything until it leaves.

        Args: weight_milli: in thousandths; 0: as configured. Cost: O(what is shared).
        """
        self.weights.join(worker, worker_class, weight_milli)
        self._reweigh(worker)

    def leave(self, worker: str) -> None:
        """A worker's session has ended."""
        self.weights.leave(worker)
        self._reweigh(worker)

    def load(self, efficiency: Efficiency) -> None:
        """Take an efficiency in as it was stored; drop that of what is shared no longer."""
        shares = self._shares.get(tuple(efficiency.subject.split("/", 1)))
        if shares is not None:
            shares.load(efficiency)
        else:
            self._ledger.changes.of[Table.EFFICIENCIES][(efficiency.subject, efficiency.worker)] = None

    def recover(self, now: int) -> None:
        """Find out who is active, once all that was given is loaded."""
        for shares in self._shares.values():
            shares.recover(now)

    def efficiencies(self) -> Iterator[Efficiency]:
        """Return what is known of each worker's success, for each thing shared."""
        for shares in self._shares.values():
            yield from shares.efficiencies()

    def state(self) -> list[Iterable[object]]:
        """Return what decisions depend on and no record says."""
        return [(key, shares.state()) for key, shares in self._shares.items()]

    def _share(self, key: QueueKey, kind: str, used: Used, *, has_headroom: bool) -> Shares:
        shares = Shares(key, kind, used, rules=self._rules, ledger=self._ledger, weights=self.weights)
        self._shares[key] = shares
        self._queues.orders[key] = FairQueue(shares, has_headroom=has_headroom)
        return shares

    def _reweigh(self, worker: str) -> None:
        for shares in self._shares.values():
            shares.reweigh(worker)
