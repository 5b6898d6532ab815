"""EngagementTracker: exclusive, leased locks on items, and the part of the history that decisions need.

Owns: who holds which item, which items rest after a lapse, and the part of the history that is in memory.
Older history is the store's.
Rules: the reasons not to grant are looked at in this order, and the first is told: RECENTLY_ENGAGED (waiting
is no use), HELD, LOCK_DELAY, QUEUED_AHEAD. Every end of a lock writes exactly one engagement. An end nobody
reported is UNKNOWN.
"""

from collections.abc import Iterable

from coordd.core.claims import Blocked
from coordd.core.commands import ReleaseLock, RenewLock, RequestLock
from coordd.core.engagements import Engagements
from coordd.core.errors import InvalidArgument
from coordd.core.holders import Holders
from coordd.core.intervals import Intervals, InTheWay
from coordd.core.ledger import Ledger, lease_lost, not_holder
from coordd.core.outcomes import LockReleased, Reason, Renewed
from coordd.core.preemption import is_taken
from coordd.core.queues import QueueKey, Queues, Rank
from coordd.core.recall import Recall
from coordd.core.records import EndedBy, Engagement, Lock, Outcome, Table
from coordd.core.rules import KindRule, Rules
from coordd.core.views import ItemView

_NO_KIND = KindRule()


class Rest:
    """An item that rests after a lease ran out unreleased, because its holder may still be acting."""

    __slots__ = ("scheduled", "scope", "until")

    def __init__(self, scope: str, until: int) -> None:
        self.scope = scope
        self.until = until
        self.scheduled = 0


class Locks:
    """Locks by scope: the item, or the item and kind, as configured."""

    __slots__ = (
        "_changed",
        "_engagements",
        "_held",
        "_intervals",
        "_is_by_kind",
        "_kinds",
        "_ledger",
        "_queues",
        "_released",
        "_released_recall",
        "_request_memory_ns",
        "_rests",
        "_spaced",
        "engaged",
    )

    def __init__(self, rules: Rules, ledger: Ledger, queues: Queues) -> None:
        self._kinds = rules.kinds
        self._request_memory_ns = rules.request_memory_ns
        self._is_by_kind = rules.is_exclusive_by_kind
        self._ledger = ledger
        self._queues = queues
        self._changed = ledger.changes.of[Table.LOCKS]
        self._engagements = ledger.changes.of[Table.ENGAGEMENTS]
        self._held: Holders[Lock] = Holders()
        self._rests: dict[str, Rest] = {}
        self._intervals = Intervals(rules.kinds)
        self._spaced = self._intervals.after
        self.engaged = Engagements(rules.engagement_memory_ns, ledger.deadlines, self._intervals.memory_ns())
        # Ended locks by token, so that a release sent twice is answered twice.
        self._released: dict[int, Engagement] = {}
        self._released_recall: Recall[Engagement] = Recall(
            ledger.deadlines, rules.request_memory_ns, self._forget_released
        )

    def __len__(self) -> int:
        """Live locks."""
        return len(self._held)

    # -- Component -------------------------------------------------------------------------------------------

    def check(self, command: RequestLock, rank: Rank, now: int) -> Blocked | None:
        """See `Component.check`."""
        if command.kind not in self._kinds:
            raise unknown_kind(command.kind, self._kinds)
        item = command.item
        if command.kind in self._spaced:
            recent = self._intervals.in_the_way(self.engaged, item, command.kind, command.quality, now)
            if recent is not None:
                return _recently_engaged(recent)
        scope = self._scope(item, command.kind)
        lock = self._held.get(scope)
        if lock is not None:
            return Blocked(
                reason=Reason.HELD,
                subject=item,
                key=_key(scope),
                retry_at=lock.expires_at,
                holder=lock.worker,
            )
        rest = self._rests.get(scope)
        if rest is not None:
            return Blocked(reason=Reason.LOCK_DELAY, subject=item, key=_key(scope), retry_at=rest.until)
        if self._queues.units and self._queues.is_claimed(_key(scope), rank, now):
            return Blocked(reason=Reason.QUEUED_AHEAD, subject=item, key=_key(scope))
        return None

    def take(self, command: RequestLock, now: int) -> Lock:
        """See `Component.take`."""
        ledger = self._ledger
        ttl_ns = command.ttl_ns or self._kinds[command.kind].ttl_ns
        scope = self._scope(command.item, command.kind)
        token = ledger.next_id()
        lock = Lock(
            token=token,
            item=command.item,
            kind=command.kind,
            worker=command.worker,
            granted_at=now,
            expires_at=now + ttl_ns,
            ttl_ns=ttl_ns,
            request_id=command.request_id,
            scope=scope,
        )
        self._held.add(scope, lock)
        ledger.live[token] = lock
        ledger.deadlines.schedule(lock, lock.expires_at)
        self._changed[token] = lock
        if ledger.sessions:
            ledger.begin_lease(token, lock)
        return lock

    def validate(self, command: RequestLock) -> None:
        """See `Component.validate`."""
        if command.kind not in self._kinds:
            raise unknown_kind(command.kind, self._kinds)

    def keys(self, command: RequestLock) -> tuple[QueueKey, ...]:
        """See `Component.keys`."""
        return (_key(self._scope(command.item, command.kind)),)

    def units(self, command: RequestLock, key: QueueKey) -> int:
        """See `Component.units`."""
        return 1

    def estimate(self, command: RequestLock, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.estimate`.

        What is left of the holder's usual time, and as much again for each one ahead.
        """
        seen = self._ledger.hold_times.get(f"lock/{command.kind}")
        if seen is None:
            return None
        scope = self._scope(command.item, command.kind)
        ahead_ns = (self._queues.position(_key(scope), rank, now) - 1) * seen.mean_ns
        lock = self._held.get(scope)
        if lock is not None:
            usual_end = min(lock.granted_at + seen.mean_ns, lock.expires_at)
            return max(usual_end - now, 0) + ahead_ns
        rest = self._rests.get(scope)
        return ahead_ns + (rest.until - now if rest is not None else 0)

    def least_wait(self, command: RequestLock, rank: Rank, blocked: Blocked, now: int) -> int | None:
        """See `Component.least_wait`."""
        is_known = self._ledger.has_observed(f"lock/{command.kind}")
        return self.estimate(command, rank, blocked, now) if is_known else None

    def is_for(self, command: RequestLock, grant: object) -> bool:
        """See `Component.is_for`."""
        return isinstance(grant, Lock | RequestLock) and (grant.item, grant.kind) == (
            command.item,
            command.kind,
        )

    # -- commands --------------------------------------------------------------------------------------------

    def renew(self, command: RenewLock, now: int) -> Renewed:
        """Hold a lock for its time to live from now."""
        lock = self._own(command, now)
        if lock is None:
            raise lease_lost("lock", command.token)
        lock.ttl_ns = command.ttl_ns or lock.ttl_ns
        self.extend(lock, now)
        return Renewed(grant=lock)

    def extend(self, lock: Lock, now: int) -> None:
        """Hold a live lock for its time to live from now, but not beyond its preemption."""
        lock.expires_at = now + lock.ttl_ns
        if lock.preempt_at:
            lock.expires_at = min(lock.expires_at, lock.preempt_at)
        self._ledger.deadlines.not_after(lock, lock.expires_at)
        self._changed[lock.token] = lock

    def release(self, command: ReleaseLock, now: int) -> LockReleased:
        """End a lock with the outcome its holder reports."""
        lock = self._own(command, now)
        if lock is None:
            return self._release_again(command, now)
        return LockReleased(engagement=self._end(lock, command.outcome, EndedBy.RELEASE, now))

    def released(self, token: int, worker: str, now: int) -> Engagement | None:
        """Return how the lock `token` was released by `worker`, while that is remembered."""
        engagement = self._released.get(token)
        if engagement is None or engagement.ended_by != EndedBy.RELEASE or engagement.worker != worker:
            return None
        return engagement if engagement.at + self._request_memory_ns > now else None

    def expire(self, lock: Lock, now: int) -> bool:
        """End a lock whose lease has run out, or postpone if it was renewed; say whether it has ended."""
        if lock.expires_at > now:
            self._ledger.deadlines.schedule(lock, lock.expires_at)
            return False
        if is_taken(lock):
            # Its holder was told, and has had its time: nothing rests.
            self._end(lock, Outcome.UNKNOWN, EndedBy.PREEMPTION, now)
            return True
        self._end(lock, Outcome.UNKNOWN, EndedBy.EXPIRY, now)
        delay_ns = self._kinds.get(lock.kind, _NO_KIND).lock_delay_ns
        if delay_ns:
            self._rest(lock.scope, now + delay_ns)
        return True

    def force(self, lock: Lock, now: int) -> None:
        """End a lock because an operator says so; its holder may have acted."""
        self._end(lock, Outcome.UNKNOWN, EndedBy.FORCE, now)

    def close(self, lock: Lock, now: int) -> None:
        """End a lock because its worker is done; it has not said how, so it may have acted."""
        self._end(lock, Outcome.UNKNOWN, EndedBy.CLOSE, now)

    def undo(self, lock: Lock, now: int) -> None:
        """Take back a grant nobody heard of: as if never given, except that its token is used up."""
        self._drop(lock)

    def wake(self, rest: Rest, now: int) -> None:
        """Let an item's rest end."""
        del self._rests[rest.scope]
        self._ledger.freed.append(_key(rest.scope))

    def holder(self, key: QueueKey) -> Lock | None:
        """Return the one holder of what a queue is for; None: nobody, or several."""
        return self._held.only(key[1])

    # -- recovery and views ----------------------------------------------------------------------------------

    def load(self, lock: Lock) -> None:
        """Take a live lock in as it was stored."""
        lock.scope = self._scope(lock.item, lock.kind)
        self._held.add(lock.scope, lock)
        self._ledger.live[lock.token] = lock
        self._ledger.deadlines.schedule(lock, lock.expires_at)
        self._ledger.begin_lease(lock.token, lock)

    def load_engagement(self, engagement: Engagement, now: int) -> None:
        """Take an entry of the history in, as if it were written now.

        Entries come in the order they were written.
        """
        self._remember(engagement)
        kind = self._kinds.get(engagement.kind, _NO_KIND)
        until = engagement.at + kind.lock_delay_ns
        if engagement.ended_by == EndedBy.EXPIRY and until > now:
            self._rest(self._scope(engagement.item, engagement.kind), until)

    def view(self, item: str, kind: str) -> ItemView:
        """Return who holds an item, until when it rests, and how many wait."""
        scope = self._scope(item, kind)
        rest = self._rests.get(scope)
        return ItemView(
            lock=self._held.get(scope),
            delayed_until=rest.until if rest is not None else 0,
            waiters=self._queues.length(_key(scope)),
        )

    def engagements(self) -> list[Engagement]:
        """Return the part of the history that is in memory."""
        return list({**{engaged.token: engaged for engaged in self.engaged}, **self._released}.values())

    def rests(self) -> list[tuple[str, int]]:
        """Return the items that rest, and until when."""
        return sorted((rest.scope, rest.until) for rest in self._rests.values())

    # --------------------------------------------------------------------------------------------------------

    def _scope(self, item: str, kind: str) -> str:
        # Ids are printable, so a NUL can't be part of one.
        return f"{item}\0{kind}" if self._is_by_kind else item

    def _own(self, command: RenewLock | ReleaseLock, now: int) -> Lock | None:
        """Return the live lock that the command's sender holds, or None if it has ended."""
        lock = self._ledger.live.get(command.token)
        if not isinstance(lock, Lock):
            self._ledger.ended(command.token, "fencing token")
            return None
        if lock.worker != command.worker or lock.item != command.item:
            raise not_holder("lock", command.token, command.worker)
        # One whose end has come but was not ticked yet has ended: order decides, not the length of a tick.
        return lock if lock.expires_at > now else None

    def _release_again(self, command: ReleaseLock, now: int) -> LockReleased:
        engagement = self._released.get(command.token)
        if engagement is None or engagement.at + self._request_memory_ns <= now:
            raise lease_lost("lock", command.token)
        if engagement.ended_by != EndedBy.RELEASE:
            raise lease_lost("lock", command.token)
        if (engagement.worker, engagement.item) != (command.worker, command.item):
            raise not_holder("lock", command.token, command.worker)
        return LockReleased(engagement=engagement, is_repeat=True)

    def _end(self, lock: Lock, outcome: int, ended_by: EndedBy, now: int) -> Engagement:
        self._drop(lock)
        engagement = Engagement(
            token=lock.token,
            item=lock.item,
            kind=lock.kind,
            worker=lock.worker,
            outcome=outcome,
            at=now,
            granted_at=lock.granted_at,
            ended_by=ended_by,
            request_id=lock.request_id,
        )
        self._engagements[lock.token] = engagement
        self._remember(engagement)
        if self._ledger.conditions.of:
            self._ledger.conditions.note(engagement)
        self._ledger.end_request(lock.worker, lock.request_id, now)
        if ended_by == EndedBy.RELEASE:
            self._ledger.observe_hold("lock/" + lock.kind, now - lock.granted_at)
        return engagement

    def _drop(self, lock: Lock) -> None:
        ledger = self._ledger
        self._held.remove(lock.scope, lock)
        del ledger.live[lock.token]
        if ledger.sessions:
            ledger.end_lease(lock.token, lock)
        if ledger.members:
            ledger.part(lock.token)
        ledger.deadlines.cancel(lock)
        self._changed[lock.token] = None
        if self._queues.units:
            ledger.freed.append(_key(lock.scope))

    def _remember(self, engagement: Engagement) -> None:
        self._released[engagement.token] = engagement
        self._released_recall.remember(engagement, engagement.at)
        self.engaged.remember(engagement)

    def _forget_released(self, engagement: Engagement) -> None:
        del self._released[engagement.token]

    def _rest(self, scope: str, until: int) -> None:
        earlier = self._rests.get(scope)
        if earlier is not None:
            # Only after a restart with a longer delay than before.
            self._ledger.deadlines.cancel(earlier)
            until = max(until, earlier.until)
        rest = self._rests[scope] = Rest(scope, until)
        self._ledger.deadlines.schedule(rest, until)


def unknown_kind(kind: str, known: Iterable[str]) -> InvalidArgument:
    """Build the error for a kind that is not configured."""
    return InvalidArgument(
        "UNKNOWN_KIND", f"The kind {kind!r} is not configured; there are: {', '.join(known)}.", kind=kind
    )


def _key(scope: str) -> QueueKey:
    return ("lock", scope)


def _recently_engaged(recent: InTheWay) -> Blocked:
    return Blocked(
        reason=Reason.RECENTLY_ENGAGED,
        subject=recent.engagement.item,
        retry_at=recent.until,
        holder=recent.engagement.worker,
    )
