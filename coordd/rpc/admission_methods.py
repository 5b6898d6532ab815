"""Which calls are always taken on, and which may be refused when there is too much to do.

Rule: every method of every service is in exactly one of the two sets (a test compares them with the protos),
so that whoever adds one has to say.
"""

from typing import Final

# What ends, keeps or settles something: each makes less to do. What operators do, too: they come when all is
# not well. A session's stream is how everything else is kept.
VITAL: Final = frozenset(
    {
        "/coordd.v1.AdminService/Backup",
        "/coordd.v1.AdminService/Drain",
        "/coordd.v1.AdminService/ForceRelease",
        "/coordd.v1.AdminService/GetStatus",
        "/coordd.v1.AdminService/ResolveEscalation",
        "/coordd.v1.AdminService/UpdateLimit",
        "/coordd.v1.AdminService/UpdatePool",
        "/coordd.v1.AdminService/WatchEscalations",
        "/coordd.v1.AdminService/WatchEvents",
        "/coordd.v1.BundleService/ReleaseBundle",
        "/coordd.v1.BundleService/RenewBundle",
        "/coordd.v1.EngagementService/ReleaseLock",
        "/coordd.v1.EngagementService/RenewLock",
        "/coordd.v1.RateLimitService/CancelSchedule",
        "/coordd.v1.RateLimitService/RecordUsage",
        "/coordd.v1.ReservationService/ReleaseResource",
        "/coordd.v1.ReservationService/RenewReservation",
        "/coordd.v1.SessionService/Connect",
    }
)

# What begins something, and questions: nobody is hurt if these come a little later.
SHEDDABLE: Final = frozenset(
    {
        "/coordd.v1.AdminService/ListEscalations",
        "/coordd.v1.AdminService/ListLimits",
        "/coordd.v1.AdminService/ListPools",
        "/coordd.v1.AdminService/ListSessions",
        "/coordd.v1.BundleService/AcquireBundle",
        "/coordd.v1.BundleService/AwaitBundle",
        "/coordd.v1.EngagementService/AwaitLock",
        "/coordd.v1.EngagementService/GetEngagementStats",
        "/coordd.v1.EngagementService/GetLock",
        "/coordd.v1.EngagementService/HasRecentEngagement",
        "/coordd.v1.EngagementService/ListLocks",
        "/coordd.v1.EngagementService/RequestLock",
        "/coordd.v1.RateLimitService/AwaitPermit",
        "/coordd.v1.RateLimitService/CanMakeRequest",
        "/coordd.v1.RateLimitService/GetRemainingCapacity",
        "/coordd.v1.RateLimitService/GetSystemStatus",
        "/coordd.v1.RateLimitService/GetWorkerAllocation",
        "/coordd.v1.RateLimitService/ListWorkerAllocations",
        "/coordd.v1.RateLimitService/ScheduleRequest",
        "/coordd.v1.ReservationService/AwaitReservation",
        "/coordd.v1.ReservationService/CheckAvailability",
        "/coordd.v1.ReservationService/ListReservations",
        "/coordd.v1.ReservationService/ReserveApiQuota",
        "/coordd.v1.ReservationService/ReserveResource",
    }
)

# CRITICAL requests have a lane of their own: the same methods under another service's name, with the same
# messages and handlers. So nothing has to be read to know them, and they stand in no line with the others.
LANE: Final = ".Critical"
CRITICAL: Final = {
    f"/coordd.v1.{service}{LANE}/{method}": f"/coordd.v1.{service}/{method}"
    for service, methods in {
        "BundleService": ("AcquireBundle", "AwaitBundle"),
        "EngagementService": ("RequestLock", "AwaitLock"),
        "RateLimitService": ("CanMakeRequest", "AwaitPermit", "ScheduleRequest"),
        "ReservationService": ("ReserveResource", "AwaitReservation", "ReserveApiQuota", "CheckAvailability"),
    }.items()
    for method in methods
}
