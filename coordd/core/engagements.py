"""Who has acted on what lately: the memory that conditions of bundles are judged by.

Owns: of each item the latest engagement that counts, by kind, for `[locks] memory`. SUCCESS and UNKNOWN
count, FAILURE does not. Older history is the store's, which a decision can't ask.
Must not know: locks, bundles, who wants to know.
"""

from collections.abc import Collection, Iterator

from coordd.core.deadlines import Deadlines
from coordd.core.recall import Recall
from coordd.core.records import Engagement, Outcome


class Engagements:
    """The latest engagements by item and kind. `keep_ns` 0: nothing is remembered."""

    __slots__ = ("_latest", "_recall", "keep_ns")

    def __init__(self, keep_ns: int, deadlines: Deadlines) -> None:
        self.keep_ns = keep_ns
        self._latest: dict[str, dict[str, Engagement]] = {}
        self._recall: Recall[Engagement] = Recall(deadlines, keep_ns, self._forget)

    def __iter__(self) -> Iterator[Engagement]:
        """Every engagement that is remembered."""
        return (engagement for of_item in self._latest.values() for engagement in of_item.values())

    def remember(self, engagement: Engagement) -> None:
        """Take an entry of the history in, if it counts; entries come in the order they were written."""
        if self.keep_ns and engagement.outcome != Outcome.FAILURE:
            self._latest.setdefault(engagement.item, {})[engagement.kind] = engagement
            self._recall.remember(engagement, engagement.at)

    def latest(self, item: str, kinds: Collection[str], since: int) -> Engagement | None:
        """Return the latest engagement with `item` after `since`, of one of `kinds` (none: of any)."""
        of_item = self._latest.get(item)
        if of_item is None:
            return None
        found = [
            engagement
            for kind, engagement in of_item.items()
            if engagement.at > since and (not kinds or kind in kinds)
        ]
        return max(found, key=lambda engagement: (engagement.at, engagement.token), default=None)

    def _forget(self, engagement: Engagement) -> None:
        of_item = self._latest[engagement.item]
        if of_item.get(engagement.kind) is engagement:
            del of_item[engagement.kind]
            if not of_item:
                del self._latest[engagement.item]
