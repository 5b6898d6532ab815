"""Whose turn it is where workers share, by brute force: every part is summed up anew from all there is.

Shares with coordd.core the rules and not one line of its reasoning: nothing is kept up, ordered or indexed.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from coordd.core.rules import Rules

ALL = 1_000_000
WHOLE = 1_000_000_000
Pair = tuple[Hashable, str]
Rank = tuple[int, int]


@dataclass(frozen=True)
class Contender:
    """Somebody who wants a shared thing: a waiter or a newcomer."""

    rank: Rank
    worker: str
    priority: int


@dataclass
class NaiveShares:
    """What is known of each worker at each shared thing, by (key, worker).

    `used(key, worker, now)`: (used, limit) of each window or of the pool. `memory(key)`: how long after its
    last sign of life a worker that uses nothing is known.
    """

    rules: Rules
    used: Callable[[Any, str, int], list[tuple[int, int]]]
    memory: Callable[[Any], int]
    asked: dict[Pair, int] = field(default_factory=dict)
    given: dict[Pair, int] = field(default_factory=dict)
    success: dict[Pair, int] = field(default_factory=dict)
    # Waiter id -> what it waits for, and the worker.
    there: dict[int, Pair] = field(default_factory=dict)

    def rule(self, key: Any) -> Any:
        """The rule of a key that is shared, else None."""
        sort, name = key[0], key[1]
        rules: dict[str, Any] = {"limit": dict(self.rules.limits), "pool": dict(self.rules.pools)}
        rule = rules.get(sort, {}).get(name)
        return rule if rule is not None and rule.is_fair else None

    def note_presence(self, waiting: dict[int, Pair], now: int) -> None:
        """Take in who waits for what is shared now."""
        for waiter, pair in waiting.items():
            if waiter not in self.there and pair not in self.there.values():
                self.forget_if_over(pair, now)
        for waiter, pair in self.there.items():
            if waiter not in waiting:
                self.asked[pair] = now
        self.there = waiting

    def note_given(self, pair: Pair, now: int) -> None:
        self.forget_if_over(pair, now)
        self.asked[pair] = self.given[pair] = now

    def note_report(self, pair: Pair, now: int, *, is_success: bool) -> None:
        self.forget_if_over(pair, now)
        self.asked[pair] = now
        if is_success and pair not in self.success:
            return
        before = self.success.get(pair, ALL)
        self.success[pair] = before + ((ALL if is_success else 0) - before) // 32

    def note_restart(self, last: dict[Pair, int]) -> None:
        """Take in what a restart leaves: when each was given something, about, by what it uses."""
        self.there = {}
        self.asked, self.given = dict(last), dict(last)

    def forget_if_over(self, pair: Pair, now: int) -> None:
        if pair in self.there.values() or self.used(*pair, now)[0][0]:
            return
        over_at = self.asked.get(pair, 0) + max(self.memory(pair[0]), self.rules.active_window_ns)
        if over_at <= now:
            for known in (self.asked, self.given, self.success):
                known.pop(pair, None)

    def first(self, key: Any, contenders: Iterable[Contender], now: int) -> Contender:
        """Who of those who want `key` goes first."""
        contenders = list(contenders)
        lead = min(contenders, key=lambda each: each.rank)
        of_class = [each for each in contenders if each.priority == lead.priority]
        standing: dict[str, Contender] = {}
        for each in sorted(of_class, key=lambda each: each.rank):
            standing.setdefault(each.worker, each)
        return min(standing.values(), key=lambda each: self._turn(key, each, now))

    def _turn(self, key: Any, contender: Contender, now: int) -> tuple[Any, ...]:
        waited_since = contender.rank[0] + self.rules.boost_ns[contender.priority]
        self.forget_if_over((key, contender.worker), now)
        since = max(waited_since, self.given.get((key, contender.worker), 0))
        if since + self.rules.fair_bound_ns <= now:
            return (0, since, contender.rank)
        parts = self._parts(key, contender.worker, now)
        return (1, max(parts), sum(parts), contender.rank)

    def _parts(self, key: Any, worker: str, now: int) -> list[int]:
        weight = self._weight(key, worker)
        active = {each for other, each in self.asked if other == key and self._is_active((key, each), now)}
        active |= {each for other, each in self.there.values() if other == key} | {worker}
        own = WHOLE * weight // sum(self._weight(key, each) for each in active)
        parts = []
        for used, limit in self.used(key, worker, now):
            part = used * WHOLE // limit
            if part > own and (key, worker) in self.success:
                part = own + (part - own) * ALL // max(self.success[key, worker], ALL // 2)
            parts.append(part * 1_000 // weight)
        return parts

    def _is_active(self, pair: Pair, now: int) -> bool:
        return self.asked[pair] + self.rules.active_window_ns > now

    def _weight(self, key: Any, worker: str) -> int:
        if self.rule(key).share == "equal":
            return 1_000
        return round(self.rules.worker_weights.get(worker, 1.0) * 1_000)
