"""The double's locks and history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordd.v1 import common_pb2
from coordd.v1 import engagement_pb2 as pb
from coordd_client import locks
from coordd_client.errors import LeaseLost
from coordd_client.messages import duration, seconds
from coordd_client.testing._grants import Book, Shared, page
from coordd_client.testing._waits import Claim

_TTL_S_DEFAULT = 900.0
_WITHIN_S_DEFAULT = 86_400.0
_COUNTS = (pb.OUTCOME_SUCCESS, pb.OUTCOME_UNKNOWN)


@dataclass
class _Held:
    item: str
    kind: str
    worker: str
    granted_s: float
    ttl_s: float
    ends_s: float


class Locks(Book):
    """Exclusive per item; nothing rests and nothing is recent unless the test has said so."""

    def __init__(self, shared: Shared, min_interval_s: Mapping[str, float], lock_delay_s: float) -> None:
        super().__init__(shared)
        self.history: list[tuple[float, pb.Engagement]] = []
        self._min_interval_s = min_interval_s
        self._lock_delay_s = lock_delay_s
        self._rests_until_s: dict[str, float] = {}
        self._released: set[int] = set()
        self.claims = {locks.AWAIT.path: self.claim}
        self.calls = {
            locks.REQUEST.path: lambda request: self.ask(locks.REQUEST, self.claim(request), request),
            locks.RENEW.path: self._renew,
            locks.GET.path: self._get,
            locks.LIST.path: self._list,
            locks.RELEASE.path: self._release,
            locks.HAS_RECENT.path: self._has_recent,
            locks.GET_STATS.path: self._stats,
        }

    def view(self, grant_id: int) -> pb.Lock:
        """See Book."""
        held: _Held = self.live[grant_id]
        timeline = self.shared.timeline
        return pb.Lock(
            item=held.item,
            kind=held.kind,
            worker=held.worker,
            fencing_token=grant_id,
            granted_at=timeline.instant(held.granted_s),
            expires_at=timeline.instant(held.ends_s),
            expires_in=duration(held.ends_s - self.now_s),
        )

    def expire(self) -> None:
        """A lock that runs out unreleased may have been acted under, and its item rests."""
        for token, held in list(self.live.items()):
            if held.ends_s <= self.now_s:
                self.end(token, pb.OUTCOME_UNKNOWN)
                self._rests_until_s[held.item] = self.now_s + self._lock_delay_s
                self.shared.timeline.wake_at(self.now_s + self._lock_delay_s)

    def end(self, token: int, outcome: pb.Outcome.ValueType) -> None:
        """Ends a live lock and writes its outcome."""
        held: _Held = self.live.pop(token)
        engagement = pb.Engagement(
            item=held.item,
            kind=held.kind,
            worker=held.worker,
            outcome=outcome,
            at=self.shared.timeline.instant(self.now_s),
            fencing_token=token,
        )
        self.history.append((self.now_s, engagement))

    def release(self, token: int, outcome: pb.Outcome.ValueType) -> None:
        """Ends a live lock as its holder says."""
        self.end(token, outcome)
        self._released.add(token)

    def released(self, token: int) -> list[pb.Engagement]:
        """Returns how a lock was released by its holder, if it was."""
        if token not in self._released:
            return []
        return [each for _, each in self.history if each.fencing_token == token]

    def is_lost(self, token: int) -> bool:
        """Whether a lock that was given has ended otherwise than by its holder."""
        return token not in self.live and token not in self._released

    def engaged(self, item: str, kinds: Any, since_s: float) -> tuple[float, pb.Engagement] | None:
        """Returns the latest engagement with an item that counts, after an instant, and when it was."""
        for at_s, engagement in reversed(self.history):
            is_asked = engagement.item == item and (not kinds or engagement.kind in kinds)
            if is_asked and engagement.outcome in _COUNTS and at_s > since_s:
                return at_s, engagement
        return None

    def claim(self, request: Any) -> Claim:
        """Returns what a request asks for."""
        return Claim(
            lines=(f"item {request.item}",),
            obstacle=lambda: self._obstacle(request.item, request.kind),
            grant=lambda: self.begin(request, self._lease(request)),
        )

    def _lease(self, request: Any) -> _Held:
        ttl_s = seconds(request.ttl) if request.HasField("ttl") else _TTL_S_DEFAULT
        self.shared.timeline.wake_at(self.now_s + ttl_s)
        return _Held(request.item, request.kind, request.worker, self.now_s, ttl_s, self.now_s + ttl_s)

    def _obstacle(self, item: str, kind: str) -> common_pb2.Refusal | None:
        if (recent := self._recent(item, kind)) is not None:
            return recent
        for held in self.live.values():
            if held.item == item:
                return self.shared.refusal(common_pb2.REFUSAL_REASON_HELD, item, held.ends_s, held.worker)
        if (rests_until_s := self._rests_until_s.get(item, 0.0)) > self.now_s:
            return self.shared.refusal(common_pb2.REFUSAL_REASON_LOCK_DELAY, item, rests_until_s)
        return None

    def _recent(self, item: str, kind: str) -> common_pb2.Refusal | None:
        interval_s = self._min_interval_s.get(kind, 0.0)
        for at_s, engagement in reversed(self.history):
            is_same = (engagement.item, engagement.kind) == (item, kind)
            if is_same and engagement.outcome in _COUNTS and at_s + interval_s > self.now_s:
                reason = common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED
                return self.shared.refusal(reason, item, at_s + interval_s, engagement.worker)
        return None

    def _renew(self, request: pb.RenewLockRequest) -> pb.RenewLockResponse:
        held = self.held_by(request.fencing_token, request.worker)
        if held is None:
            raise LeaseLost("the lease is over", reason="LEASE_LOST", metadata={"item": request.item})
        held.ttl_s = seconds(request.ttl) if request.HasField("ttl") else held.ttl_s
        held.ends_s = self.now_s + held.ttl_s
        self.shared.timeline.wake_at(held.ends_s)
        return pb.RenewLockResponse(lock=self.view(request.fencing_token))

    def _release(self, request: pb.ReleaseLockRequest) -> pb.ReleaseLockResponse:
        held = self.held_by(request.fencing_token, request.worker)
        if held is not None:
            self.release(request.fencing_token, request.outcome)
        if request.fencing_token not in self._released:
            raise LeaseLost("the lease had run out", reason="LEASE_LOST", metadata={"item": request.item})
        entry = next(each for _, each in self.history if each.fencing_token == request.fencing_token)
        return pb.ReleaseLockResponse(engagement=entry, already_released=held is None)

    def _get(self, request: pb.GetLockRequest) -> pb.GetLockResponse:
        tokens = [token for token, held in self.live.items() if held.item == request.item]
        latest = self._latest(request.item, [request.kind] if request.kind else [], _COUNTS, 0.0)
        reply = pb.GetLockResponse(state=pb.ITEM_STATE_FREE, last_engagement=latest)
        reply.waiters = self.shared.waits.count(f"item {request.item}")
        if latest is not None:
            is_known = latest.outcome == pb.OUTCOME_SUCCESS
            reply.state = pb.ITEM_STATE_DONE if is_known else pb.ITEM_STATE_UNKNOWN
        if tokens:
            reply.state = pb.ITEM_STATE_IN_PROGRESS
            reply.lock.CopyFrom(self.view(tokens[0]))
        elif (rests_until_s := self._rests_until_s.get(request.item, 0.0)) > self.now_s:
            reply.delayed_until.CopyFrom(self.shared.timeline.instant(rests_until_s))
        return reply

    def _list(self, request: pb.ListLocksRequest) -> pb.ListLocksResponse:
        tokens = [token for token, held in self.live.items() if request.worker in {"", held.worker}]
        tokens, next_page_token = page(tokens, request)
        return pb.ListLocksResponse(locks=map(self.view, tokens), next_page_token=next_page_token)

    def _has_recent(self, request: pb.HasRecentEngagementRequest) -> pb.HasRecentEngagementResponse:
        outcomes = (*_COUNTS, pb.OUTCOME_FAILURE) if request.include_failures else _COUNTS
        latest = self._latest(request.item, request.kinds, outcomes, self._since_s(request))
        return pb.HasRecentEngagementResponse(engaged=latest is not None, latest=latest)

    def _latest(self, item: str, kinds: Any, outcomes: Any, since_s: float) -> pb.Engagement | None:
        for at_s, engagement in reversed(self.history):
            is_asked = engagement.item == item and (not kinds or engagement.kind in kinds)
            if is_asked and engagement.outcome in outcomes and at_s >= since_s:
                return engagement
        return None

    def _stats(self, request: pb.GetEngagementStatsRequest) -> pb.GetEngagementStatsResponse:
        reply = pb.GetEngagementStatsResponse()
        for at_s, engagement in self.history:
            if at_s >= self._since_s(request) and request.worker in {"", engagement.worker}:
                _count(reply, engagement.outcome)
                _count(reply.by_kind[engagement.kind], engagement.outcome)
        reply.success_rate = reply.successful / reply.total if reply.total else 0.0
        return reply

    def _since_s(self, request: Any) -> float:
        return self.now_s - (seconds(request.within) if request.HasField("within") else _WITHIN_S_DEFAULT)


def _count(stats: Any, outcome: pb.Outcome.ValueType) -> None:
    stats.total += 1
    stats.successful += outcome == pb.OUTCOME_SUCCESS
    stats.failed += outcome == pb.OUTCOME_FAILURE
    stats.unknown += outcome == pb.OUTCOME_UNKNOWN
