"""Patience, and what is set aside when it has run out: why a bundle does not starve behind smaller requests.

Owns: the patience of each waiter that wants several things. Rules: while it has patience, it waits in the
queue of what blocks it first and holds nothing elsewhere, so smaller ones may take the rest. Once it has
waited `bundle_patience` all it wants is set aside: whoever has a later rank must leave it there. Ranks are
one total order, so nobody ever waits for somebody who waits for him. One that is away has nothing set aside,
nor has one that waits for a pool to grow: nobody knows when that will be.
Must not know: what is wanted, or whether it can be had.
"""

from collections.abc import Mapping

from coordd.core.ledger import Ledger
from coordd.core.queues import QueueKey, Queues
from coordd.core.rules import Rules
from coordd.core.waiters import Waiter


class Patience:
    """A waiter's patience: `is_out` once it is over. `wants`: units of each thing. `key`: where it queues."""

    __slots__ = ("is_out", "key", "scheduled", "waiter", "wants")

    def __init__(self, waiter: Waiter, wants: Mapping[QueueKey, int]) -> None:
        self.waiter = waiter
        self.wants = wants
        self.key = waiter.key
        self.is_out = False
        self.scheduled = 0


class Earmarks:
    """The patience of those who wait for several things, by the waiter's id."""

    __slots__ = ("_ledger", "_patience_ns", "_queues", "of")

    def __init__(self, rules: Rules, ledger: Ledger, queues: Queues) -> None:
        self._ledger = ledger
        self._queues = queues
        self._patience_ns = rules.bundle_patience_ns
        self.of: dict[int, Patience] = {}

    def begin(self, waiter: Waiter, wants: Mapping[QueueKey, int], now: int) -> None:
        """Let a waiter that has entered a queue be patient, for what is left of its patience."""
        patience = self.of[waiter.id] = Patience(waiter, wants)
        ends_at = waiter.enqueued_at + self._patience_ns
        if ends_at > now:
            self._ledger.deadlines.schedule(patience, ends_at)
        else:
            self.run_out(patience, now)

    def run_out(self, patience: Patience, now: int) -> None:
        """Set everything aside that the waiter wants, but where it waits: there its place does that."""
        patience.is_out = True
        if not _is_out_of_reach(patience.key):
            self._set_aside(patience)

    def move(self, waiter: Waiter) -> None:
        """Follow a waiter that has entered another queue."""
        patience = self.of.get(waiter.id)
        if patience is None:
            return
        left, patience.key = patience.key, waiter.key
        if not patience.is_out or left == waiter.key:
            return
        if _is_out_of_reach(waiter.key):
            self._lift(patience)
        elif _is_out_of_reach(left):
            self._set_aside(patience)
        else:
            self._queues.set_aside(left, waiter.rank, patience.wants[left])
            self._queues.free(waiter.key, waiter.rank)
            # Where rank alone does not say who is next, its place keeps less from others than that did.
            self._ledger.freed.append(waiter.key)

    def end(self, waiter: Waiter) -> None:
        """Lift what is set aside for a waiter: it has what it wants, or is gone, or away."""
        patience = self.of.pop(waiter.id, None)
        if patience is None:
            return
        self._ledger.deadlines.cancel(patience)
        if patience.is_out:
            self._lift(patience)

    def _set_aside(self, patience: Patience) -> None:
        for key, units in patience.wants.items():
            if key != patience.key:
                self._queues.set_aside(key, patience.waiter.rank, units)

    def _lift(self, patience: Patience) -> None:
        for key in patience.wants:
            self._queues.free(key, patience.waiter.rank)
        self._ledger.freed.extend(patience.wants)


def _is_out_of_reach(key: QueueKey) -> bool:
    """Whether it is that of those who want more of an adaptive pool than it has at present."""
    return key[0] == "larger"
