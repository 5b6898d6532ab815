"""A client of coordd: who may act on what, how many at once, and when.

    async with Client(worker="w1") as client:
        async with client.lock("tweet:123", kind="reply", wait=30) as lock:
            async with client.permit("post_tweet", wait=60) as permit:
                answer = await post(text, fence=lock.fencing_token)
                permit.response(answer.status_code, answer.headers)

Both at once or neither, so that nothing is held while something else is waited for:

        async with client.bundle(lock("tweet:123", kind="reply"), permit("post_tweet"), wait=60) as bundle:
            answer = await post(text, fence=bundle.lock.fencing_token)
            bundle.permit.response(answer.status_code, answer.headers)

`coordd_client.blocking` is the same for scripts without an event loop, `coordd_client.testing` a daemon in
memory for tests without a network. `coordd_client.errors` draws the tree of what can go wrong.
"""

from coordd_client.blocks import HeldBundle, HeldLock, HeldPermit, HeldReservation
from coordd_client.claims import (
    Claim,
    LockClaim,
    NotEngaged,
    PermitClaim,
    ReservationClaim,
    lock,
    not_engaged,
    permit,
    reservation,
    units,
)
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
    SessionTaken,
    Superseded,
    Unavailable,
    WaitTimeout,
)
from coordd_client.held_session import HeldSession
from coordd_client.holdings import BundledLock, BundledPermit
from coordd_client.retries import Config
from coordd_client.values import (
    Availability,
    Booking,
    Bundle,
    CapacityChanged,
    ClassForecast,
    EndpointStatus,
    Engagement,
    EngagementStats,
    Gate,
    GateChanged,
    GateState,
    Health,
    ItemState,
    ItemStatus,
    KindStats,
    LearnedLimit,
    LeasesExpiring,
    Lock,
    Outcome,
    Permit,
    Priority,
    Queued,
    Refusal,
    RefusalReason,
    RemainingCapacity,
    Reservation,
    RevocationReason,
    Revoked,
    SessionEvent,
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
    "Bundle",
    "BundledLock",
    "BundledPermit",
    "CapacityChanged",
    "Claim",
    "ClassForecast",
    "Client",
    "Config",
    "CoorddError",
    "DeadlineExceeded",
    "EndpointStatus",
    "Engagement",
    "EngagementStats",
    "Gate",
    "GateChanged",
    "GateState",
    "Health",
    "HeldBundle",
    "HeldLock",
    "HeldPermit",
    "HeldReservation",
    "HeldSession",
    "InvalidRequest",
    "ItemState",
    "ItemStatus",
    "KindStats",
    "LearnedLimit",
    "LeaseLost",
    "LeasesExpiring",
    "Lock",
    "LockClaim",
    "NotEngaged",
    "NotFound",
    "NotHolder",
    "OutOfRange",
    "Outcome",
    "Permit",
    "PermitClaim",
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
    "ReservationClaim",
    "RevocationReason",
    "Revoked",
    "SessionEvent",
    "SessionTaken",
    "Superseded",
    "SystemStatus",
    "Unavailable",
    "UsageResult",
    "WaitTimeout",
    "Window",
    "WindowAllocation",
    "WorkerAllocation",
    "lock",
    "not_engaged",
    "permit",
    "reservation",
    "units",
]
