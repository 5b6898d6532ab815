"""Locks and the history of engagements, as calls: EngagementService without I/O."""

from collections.abc import Sequence
from typing import Any

from coordd.v1 import engagement_pb2 as pb
from coordd_client import arguments
from coordd_client.messages import (
    Call,
    Method,
    Page,
    Renewal,
    Terms,
    Wait,
    granted_or_refused,
    instant,
    new_request_id,
    number,
    optional_duration,
    seconds,
)
from coordd_client.values import (
    Engagement,
    EngagementStats,
    ItemState,
    ItemStatus,
    KindStats,
    Lock,
    OnConflict,
    Outcome,
    Priority,
)

_SERVICE = "/coordd.v1.EngagementService/"

REQUEST = Method(_SERVICE + "RequestLock", pb.RequestLockRequest, pb.RequestLockResponse)
AWAIT = Method(_SERVICE + "AwaitLock", pb.AwaitLockRequest, pb.AwaitLockResponse)
RENEW = Method(_SERVICE + "RenewLock", pb.RenewLockRequest, pb.RenewLockResponse)
GET = Method(_SERVICE + "GetLock", pb.GetLockRequest, pb.GetLockResponse)
LIST = Method(_SERVICE + "ListLocks", pb.ListLocksRequest, pb.ListLocksResponse)
RELEASE = Method(_SERVICE + "ReleaseLock", pb.ReleaseLockRequest, pb.ReleaseLockResponse)
HAS_RECENT = Method(
    _SERVICE + "HasRecentEngagement", pb.HasRecentEngagementRequest, pb.HasRecentEngagementResponse
)
GET_STATS = Method(
    _SERVICE + "GetEngagementStats", pb.GetEngagementStatsRequest, pb.GetEngagementStatsResponse
)


def terms(
    worker: str,
    item: str,
    *,
    kind: str,
    ttl: float | None,
    priority: Priority,
    quality: float | None,
    on_conflict: OnConflict | None,
) -> Terms[Lock]:
    """Returns how to get, keep and forgo a lock."""
    asked: dict[str, Any] = {
        "item": arguments.text("item", item),
        "worker": worker,
        "kind": arguments.text("kind", kind),
        "ttl": optional_duration("ttl", ttl),
        "priority": arguments.priority(priority),
        "quality": arguments.fraction("quality", quality),
        "request_id": new_request_id(),
    }
    return Terms(
        once=Call(REQUEST, pb.RequestLockRequest(**asked), granted_or_refused(read_lock)),
        wait=Wait(
            AWAIT, pb.AwaitLockRequest(**asked, on_conflict=arguments.on_conflict(on_conflict)), read_lock
        ),
        forgo=lambda lock: release(lock, Outcome.FAILURE),
        renew=renew,
        left_s=lambda lock: lock.expires_in_s,
    )


def renew(lock: Lock) -> Call[Renewal]:
    """Extends a held lock from now by the TTL of its grant."""
    request = pb.RenewLockRequest(item=lock.item, worker=lock.worker, fencing_token=lock.fencing_token)
    return Call(RENEW, request, lambda reply: Renewal(seconds(reply.lock.expires_in), reply.lock.preempted))


def release(lock: Lock, outcome: Outcome) -> Call[Engagement]:
    """Gives a lock back and writes how it went."""
    request = pb.ReleaseLockRequest(
        item=lock.item, worker=lock.worker, fencing_token=lock.fencing_token, outcome=number(outcome)
    )
    return Call(RELEASE, request, lambda reply: read_engagement(reply.engagement))


def get_lock(item: str, *, kind: str = "") -> Call[ItemStatus]:
    """Returns whether an item is free, in progress, done or of unknown outcome.

    `kind` narrows the history, and is needed where locks are exclusive per item and kind.
    Raises: InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.GetLockRequest(item=arguments.text("item", item), kind=arguments.text("kind", kind))
    return Call(GET, request, _read_item_status)


def list_locks(page_token: str, *, page_size: int, worker: str) -> Call[Page[Lock]]:
    """Returns one page of the live locks, oldest token first."""
    request = pb.ListLocksRequest(
        page_size=arguments.count("page_size", page_size),
        page_token=page_token,
        worker=arguments.text("worker", worker),
    )
    return Call(LIST, request, lambda reply: Page(tuple(map(read_lock, reply.locks)), reply.next_page_token))


def has_recent_engagement(
    item: str, *, within: float | None = None, kinds: Sequence[str] = (), include_failures: bool = False
) -> Call[Engagement | None]:
    """Returns the latest engagement with an item that counts, or None: nobody has acted on it lately.

    SUCCESS and UNKNOWN count, failures only if asked for. `within` is how far to look back, in seconds (None:
    24 h); `kinds` are the kinds that count (none given: any).
    Raises: InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.HasRecentEngagementRequest(
        item=arguments.text("item", item),
        within=optional_duration("within", within),
        kinds=arguments.texts("kinds", kinds),
        include_failures=include_failures,
    )
    return Call(HAS_RECENT, request, lambda reply: read_engagement(reply.latest) if reply.engaged else None)


def engagement_stats(*, within: float | None = None, worker: str = "") -> Call[EngagementStats]:
    """Returns counts of what was done `within` so many seconds (None: 24 h) by one worker (empty: by all).

    Raises: InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.GetEngagementStatsRequest(
        within=optional_duration("within", within), worker=arguments.text("worker", worker)
    )
    return Call(GET_STATS, request, _read_stats)


def read_lock(message: pb.Lock) -> Lock:
    """Reads a held lock."""
    return Lock(
        item=message.item,
        kind=message.kind,
        worker=message.worker,
        fencing_token=message.fencing_token,
        granted_at=instant(message.granted_at),
        expires_at=instant(message.expires_at),
        expires_in_s=seconds(message.expires_in),
    )


def read_engagement(message: pb.Engagement) -> Engagement:
    """Reads an entry of the history."""
    return Engagement(
        item=message.item,
        kind=message.kind,
        worker=message.worker,
        outcome=Outcome(message.outcome),
        at=instant(message.at),
        fencing_token=message.fencing_token,
    )


def _read_item_status(reply: pb.GetLockResponse) -> ItemStatus:
    return ItemStatus(
        state=ItemState(reply.state),
        lock=read_lock(reply.lock) if reply.HasField("lock") else None,
        last_engagement=read_engagement(reply.last_engagement) if reply.HasField("last_engagement") else None,
        delayed_until=instant(reply.delayed_until) if reply.HasField("delayed_until") else None,
        waiters=reply.waiters,
    )


def _read_stats(reply: pb.GetEngagementStatsResponse) -> EngagementStats:
    return EngagementStats(
        total=reply.total,
        successful=reply.successful,
        failed=reply.failed,
        unknown=reply.unknown,
        by_kind={kind: _read_kind_stats(stats) for kind, stats in reply.by_kind.items()},
        success_rate=reply.success_rate,
    )


def _read_kind_stats(stats: pb.KindStats) -> KindStats:
    return KindStats(
        total=stats.total, successful=stats.successful, failed=stats.failed, unknown=stats.unknown
    )
