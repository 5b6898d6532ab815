"""What each method takes: the least role that may call it.

Rule: whoever changes something in a worker's name needs `worker`, and must be allowed that worker; whoever
changes what is others' needs `operator`; whoever looks needs `observer`. A probe of health needs nothing:
load balancers and supervisors have no tokens, and are told nothing but that we serve.
"""

from collections.abc import Mapping
from typing import Final

from coordd.access.identity import Role

_POLICY: Final[Mapping[str, Mapping[Role, str]]] = {
    "coordd.v1.EngagementService": {
        Role.OBSERVER: "GetLock ListLocks HasRecentEngagement GetEngagementStats",
        Role.WORKER: "RequestLock AwaitLock RenewLock ReleaseLock",
    },
    "coordd.v1.ReservationService": {
        Role.OBSERVER: "CheckAvailability ListReservations",
        Role.WORKER: ("ReserveResource AwaitReservation RenewReservation ReleaseResource ReserveApiQuota"),
    },
    "coordd.v1.RateLimitService": {
        Role.OBSERVER: "GetRemainingCapacity GetWorkerAllocation ListWorkerAllocations GetSystemStatus",
        Role.WORKER: "CanMakeRequest AwaitPermit RecordUsage ScheduleRequest CancelSchedule",
    },
    "coordd.v1.BundleService": {
        Role.WORKER: "AcquireBundle AwaitBundle RenewBundle ReleaseBundle",
    },
    "coordd.v1.SessionService": {
        Role.WORKER: "Connect",
    },
    "coordd.v1.AdminService": {
        Role.OBSERVER: (
            "GetStatus ListPools ListLimits ListSessions ListEscalations WatchEvents WatchEscalations"
        ),
        Role.OPERATOR: "UpdatePool UpdateLimit ForceRelease Drain ResolveEscalation Backup",
    },
    "grpc.health.v1.Health": {
        Role.ANYBODY: "Check",
        Role.OBSERVER: "List Watch",
    },
    "grpc.reflection.v1alpha.ServerReflection": {
        Role.OBSERVER: "ServerReflectionInfo",
    },
}

# Method, as `/service/method`, -> the least role that may call it.
LEAST_ROLES: Final[Mapping[str, Role]] = {
    f"/{service}/{method}": role
    for service, methods in _POLICY.items()
    for role, names in methods.items()
    for method in names.split()
}


def least_role(method: str) -> Role:
    """Return the least role that may call a method. Raises: KeyError, so that nothing is served unlisted."""
    return LEAST_ROLES[method]
