"""How soon an item may be engaged again, by a kind, after what was done to it before.

Owns: the rule. A kind has an interval after itself and after any other kinds. After a SUCCESS a better
request waits less: interval x (1 - quality x `quality_discount`), and one of `bypass_quality` does not wait.
After an UNKNOWN the whole interval holds: quality is no answer to "it may have been done already".
Must not know: who holds what, or for how long the past is remembered.
"""

from collections.abc import Mapping
from typing import NamedTuple

from coordd.core.engagements import Engagements
from coordd.core.records import Engagement, Outcome
from coordd.core.rules import KindRule


class InTheWay(NamedTuple):
    """The engagement that stands in the way for longest, and the instant from which it doesn't."""

    engagement: Engagement
    until: int


class Intervals:
    """The intervals of every kind that has any: those in `after`."""

    __slots__ = ("_kinds", "after")

    def __init__(self, kinds: Mapping[str, KindRule]) -> None:
        self._kinds = kinds
        # Kind -> (kind before it, interval), those of no length left out.
        self.after = {name: _after(name, kind) for name, kind in kinds.items() if _after(name, kind)}

    def memory_ns(self) -> dict[str, int]:
        """Return for how long an engagement of each kind stands in anybody's way."""
        memory_ns: dict[str, int] = {}
        for after in self.after.values():
            for before, interval_ns in after:
                memory_ns[before] = max(memory_ns.get(before, 0), interval_ns)
        return memory_ns

    def in_the_way(
        self, past: Engagements, item: str, kind: str, quality: float, now: int
    ) -> InTheWay | None:
        """Return what forbids to engage `item` now, by its latest end; None: nothing does.

        Cost: O(1) where the kind has no intervals, or nobody has engaged the item; else O(its intervals).
        """
        after = self.after.get(kind)
        of_item = past.of_item(item) if after is not None else None
        if after is None or of_item is None:
            return None
        found: InTheWay | None = None
        for before, interval_ns in after:
            for outcome in (Outcome.UNKNOWN, Outcome.SUCCESS):
                engagement = of_item.get((before, outcome))
                if engagement is not None:
                    until = engagement.at + self._wait_ns(kind, interval_ns, quality, outcome)
                    # Order decides, not the length of a tick: one that is over is over, forgotten or not.
                    if until > now and (found is None or until > found.until):
                        found = InTheWay(engagement, until)
        return found

    def _wait_ns(self, kind: str, interval_ns: int, quality: float, outcome: int) -> int:
        rule = self._kinds[kind]
        if outcome == Outcome.UNKNOWN:
            return interval_ns
        if quality >= rule.bypass_quality:
            return 0
        return interval_ns - int(interval_ns * (quality * rule.quality_discount))


def _after(name: str, kind: KindRule) -> tuple[tuple[str, int], ...]:
    # A kind may be named among the others, too: then the longer of the two holds.
    own_ns = max(kind.min_interval_ns, kind.min_interval_after_ns.get(name, 0))
    lengths = {name: own_ns} | {
        before: length_ns for before, length_ns in kind.min_interval_after_ns.items() if before != name
    }
    return tuple((before, length_ns) for before, length_ns in sorted(lengths.items()) if length_ns)
