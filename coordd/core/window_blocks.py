"""What blocks a request for units of rolling windows, be they an endpoint's or those of a pool that refills.

Owns: the order of what is looked at: the windows, headroom, pace, and those who go first.
Must not know: what is behind the windows, and how waits are kept.
"""

from coordd.core.claims import Blocked
from coordd.core.errors import OutOfRange
from coordd.core.headroom import Headroom
from coordd.core.outcomes import Reason
from coordd.core.pacing import Pace
from coordd.core.queues import QueueKey, Queues, Rank
from coordd.core.windows import Full, Kept, Windows


class WindowBlocks:
    """What blocks those who want units of one endpoint's, or one pool's, windows.

    `headroom` None: no class must leave anything to others. `pace` None: units are had as they come.
    """

    __slots__ = ("_headroom", "_is_plain", "_key", "_pace", "_queues", "_windows")

    def __init__(
        self,
        key: QueueKey,
        windows: Windows,
        queues: Queues,
        *,
        headroom: Headroom | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._key = key
        self._windows = windows
        self._queues = queues
        self._headroom = headroom
        self._pace = pace
        self._is_plain = headroom is None and pace is None

    def check_count(self, count: int, priority: int) -> None:
        """Check that a class can ever take `count` at once. Raises: OutOfRange (PERMITS_ABOVE_LIMIT)."""
        windows, headroom, name = self._windows, self._headroom, self._key[1]
        largest = windows.smallest() if headroom is None else headroom.largest(priority, windows)
        if count > largest:
            raise OutOfRange(
                "PERMITS_ABOVE_LIMIT",
                f"{count} are more than {name} ever allows at once: {largest}.",
                name=name,
                count=count,
                limit=largest,
            )

    def check(self, count: int, rank: Rank, now: int) -> Blocked | None:
        """Return what blocks taking `count`: a window, headroom, pace, those ahead in the queue; or None."""
        queues = self._queues
        if self._is_plain and not queues.units and not queues.aside and self._windows.is_room(count, now):
            # Nobody waits for anything and there is room: so it is most of the time.
            return None
        return self._check(count, rank, now)

    def least_wait(self, count: int, rank: Rank, blocked: Blocked, now: int) -> int:
        """Return how long whoever is `blocked` will wait at least, if nothing comes back early.

        Exact for the first in the queue. Of the others the estimate may be more than they will wait, so those
        ahead are counted as if each window were the only one.
        """
        ahead = self._queues.units_ahead(blocked.key, rank, now)
        if not ahead:
            return max(0, blocked.retry_at - now)
        return self._windows.no_sooner(ahead + count, now) - now

    def _check(self, count: int, rank: Rank, now: int) -> Blocked | None:
        windows, headroom, queues, pace = self._windows, self._headroom, self._queues, self._pace
        kept = headroom.kept(rank[2], windows, now, count) if headroom is not None else None
        begins_at = pace.begins_at(rank[2]) if pace is not None else 0
        is_behind = self._is_behind(count, rank, now)
        # Not for those who want more than there is, since the limit was lowered: they are to be refused.
        aside = queues.units_aside(self._key, rank, windows.smallest()) if queues.aside else 0
        if not is_behind and begins_at <= now and windows.is_room(count + aside, now, kept):
            return None
        self.check_count(count, rank[2])
        full = windows.earliest(count, max(now, begins_at), windows.use_within_ns, now, kept)
        changes_at = headroom.changes_at(now) if headroom is not None and kept else 0
        blocked = Blocked(
            reason=_reason(windows, count, kept, now),
            subject=self._key[1],
            key=self._key,
            retry_at=full.at,
            frees_at=_sooner(full.at, changes_at),
            window_ns=full.window_ns,
        )
        if is_behind:
            return self._behind(blocked, count, rank, now, kept)
        if aside:
            later = windows.earliest(count + aside, max(now, begins_at), windows.use_within_ns, now, kept)
            return _beside(blocked, later, now, changes_at)
        return blocked

    def _is_behind(self, count: int, rank: Rank, now: int) -> bool:
        """Whether others go first, and would have to wait longer if `count` were taken."""
        windows, headroom, queues, key = self._windows, self._headroom, self._queues, self._key
        if not queues.is_ahead(key, rank, now):
            return False
        if headroom is None:
            return True
        wants = queues.first_wants(key, now)
        ahead = {class_: wants.get(class_, 1) for class_ in queues.classes_ahead(key, rank, now)}
        return not headroom.may_pass(count, ahead, rank[2], windows, now)

    def _behind(self, first: Blocked, count: int, rank: Rank, now: int, kept: Kept | None) -> Blocked:
        """Return what blocks one that is behind others, and would be blocked by `first` if it were not.

        If there is room, those ahead block it.
        """
        windows, pace = self._windows, self._pace
        ahead = self._queues.units_ahead(first.key, rank, now)
        begins_at = pace.begins_at(rank[2], ahead) if pace is not None else 0
        start = max(now, begins_at)
        later = windows.earliest(ahead + count, start, windows.use_within_ns, now, kept, since=now)
        is_full = first.retry_at > now
        return Blocked(
            reason=first.reason if is_full else Reason.QUEUED_AHEAD,
            subject=first.subject,
            key=first.key,
            retry_at=later.at,
            # Where it may pass those ahead, that may change with whatever leaves.
            frees_at=first.frees_at if is_full else windows.leaves_at(),
            window_ns=later.window_ns if is_full else 0,
        )


def _reason(windows: Windows, count: int, kept: Kept | None, now: int) -> Reason:
    """Return what blocks whoever is first, if not the mere passing of time does: then it is the pace."""
    if not windows.is_room(count, now):
        return Reason.WINDOW_FULL
    return Reason.PACED if windows.is_room(count, now, kept) else Reason.HEADROOM


def _beside(first: Blocked, later: Full, now: int, changes_at: int) -> Blocked:
    """Return what blocks one that must leave room to those for whom it is set aside, until `later`."""
    is_full = first.retry_at > now
    return Blocked(
        reason=first.reason if is_full else Reason.QUEUED_AHEAD,
        subject=first.subject,
        key=first.key,
        retry_at=later.at,
        frees_at=_sooner(later.at, changes_at),
        window_ns=later.window_ns if is_full else 0,
    )


def _sooner(at: int, other: int) -> int:
    return min(at, other) if other else at
