"""A client of coordd: who may act on what, how many at once, and when.

    async with Client(worker="w1") as client:
        async with client.lock("tweet:123", kind="reply", wait=30) as lock:
            async with client.permit("post_tweet", wait=60) as permit:
                answer = await post(text, fence=lock.fencing_token)
                permit.response(answer.status_code, answer.headers)

`coordd_client.blocking` is the same for scripts without an event loop, `coordd_client.testing` a daemon in
memory for tests without a network. `coordd_client.errors` draws the tree of what can go wrong.
"""

from coordd_client.blocks import HeldLock, HeldPermit, HeldReservation
from coordd_client.client import Client
from coordd_client.errors import (
    BookingLapsed,
    CoorddError,
    DeadlineExceeded,
    InvalidRequest,
    LeaseLost,
    NotFound,
    NotHolder,
    OutOfRange,
    QueueFull,
    Refused,
    RequestEnded,
    RequestIdReused,
    Superseded,
    Unavailable,
    WaitTimeout,
)
from coordd_client.retries import Config
from coordd_client.values import (
    Availability,
    Booking,
    EndpointStatus,
    Engagement,
    EngagementStats,
    Gate,
    GateState,
    Health,
    ItemState,
    ItemStatus,
    KindStats,
    LearnedLimit,
    Lock,
    Outcome,
    Permit,
    Priority,
    Queued,
    Refusal,
    RefusalReason,
    RemainingCapacity,
    Reservation,
    SystemStatus,
    UsageResult,
    Window,
    WindowAllocation,
    WorkerAllocation,
)

__all__ = [
    "Availability",
    "Booking",
    "BookingLapsed",
    "Client",
    "Config",
    "CoorddError",
    "DeadlineExceeded",
    "EndpointStatus",
    "Engagement",
    "EngagementStats",
    "Gate",
    "GateState",
    "Health",
    "HeldLock",
    "HeldPermit",
    "HeldReservation",
    "InvalidRequest",
    "ItemState",
    "ItemStatus",
    "KindStats",
    "LearnedLimit",
    "LeaseLost",
    "Lock",
    "NotFound",
    "NotHolder",
    "OutOfRange",
    "Outcome",
    "Permit",
    "Priority",
    "QueueFull",
    "Queued",
    "Refusal",
    "RefusalReason",
    "Refused",
    "RemainingCapacity",
    "RequestEnded",
    "RequestIdReused",
    "Reservation",
    "Superseded",
    "SystemStatus",
    "Unavailable",
    "UsageResult",
    "WaitTimeout",
    "Window",
    "WindowAllocation",
    "WorkerAllocation",
]
