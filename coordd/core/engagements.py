"""Who has acted on what lately: the part of the history that decisions need.

Owns: of each item the latest engagements that count, by kind and outcome, for as long as an interval or a
condition may ask. SUCCESS and UNKNOWN count, FAILURE does not. Why by outcome: a request may be let off after
a SUCCESS, and an older UNKNOWN still stands in its way then. Older history is the store's, which a decision
can't ask.
Must not know: locks, bundles, who wants to know.
"""

from collections.abc import Collection, Iterator, Mapping

from coordd.core.deadlines import Deadlines
from coordd.core.recall import Recall
from coordd.core.records import Engagement, Outcome


class Engagements:
    """The latest engagements by item.

    `keep_ns`: for how long any is remembered; `kinds`: those that are remembered longer, with how long. 0:
    not at all. `of_item` returns the latest engagements with an item by kind and outcome, None if there are
    none; some may be older than they are to be remembered: whoever asks compares instants.
    """

    __slots__ = ("_by_kind", "_latest", "_recall", "keep_ns", "of_item")

    def __init__(self, keep_ns: int, deadlines: Deadlines, kinds: Mapping[str, int] | None = None) -> None:
        self.keep_ns = keep_ns
        self._latest: dict[str, dict[tuple[str, int], Engagement]] = {}
        # The dictionary's own: every request for a lock of a kind with intervals asks it.
        self.of_item = self._latest.get
        self._recall = Recall(deadlines, keep_ns, self._forget) if keep_ns else None
        self._by_kind: dict[str, Recall[Engagement]] = {
            kind: Recall(deadlines, kind_ns, self._forget)
            for kind, kind_ns in sorted((kinds or {}).items())
            if kind_ns > keep_ns
        }

    def __iter__(self) -> Iterator[Engagement]:
        """Every engagement that is remembered."""
        return (engagement for of_item in self._latest.values() for engagement in of_item.values())

    def remember(self, engagement: Engagement) -> None:
        """Take an entry of the history in, if it counts; entries come in the order they were written."""
        recall = self._by_kind.get(engagement.kind, self._recall)
        if recall is not None and engagement.outcome != Outcome.FAILURE:
            of_item = self._latest.setdefault(engagement.item, {})
            of_item[(engagement.kind, engagement.outcome)] = engagement
            recall.remember(engagement, engagement.at)

    def latest(self, item: str, kinds: Collection[str], since: int) -> Engagement | None:
        """Return the latest engagement with `item` after `since`, of one of `kinds` (none: of any)."""
        of_item = self._latest.get(item)
        if of_item is None:
            return None
        found = [
            engagement
            for (kind, _), engagement in of_item.items()
            if engagement.at > since and (not kinds or kind in kinds)
        ]
        return max(found, key=lambda engagement: (engagement.at, engagement.token), default=None)

    def _forget(self, engagement: Engagement) -> None:
        of_item = self._latest[engagement.item]
        key = (engagement.kind, engagement.outcome)
        if of_item.get(key) is engagement:
            del of_item[key]
            if not of_item:
                del self._latest[engagement.item]
