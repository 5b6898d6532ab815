"""Every plain call: what it sends, and that no field of the answer is lost."""

from datetime import UTC, datetime
from typing import Any

import pytest
from client_servers import METHODS, ScriptedServer, reply

from coordd.v1 import common_pb2
from coordd.v1 import engagement_pb2 as e
from coordd.v1 import rate_limit_pb2 as r
from coordd.v1 import reservation_pb2 as s
from coordd_client import (
    Availability,
    Booking,
    ClassForecast,
    Client,
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
    Priority,
    Refusal,
    RefusalReason,
    Refused,
    RemainingCapacity,
    Reservation,
    SystemStatus,
    Window,
    WindowAllocation,
    WorkerAllocation,
    WorkerShare,
)

_AT = {"seconds": 1_800_000_000, "nanos": 250_000_000}
_INSTANT = datetime.fromtimestamp(1_800_000_000.25, UTC)
_FOR = {"seconds": 1, "nanos": 500_000_000}

_LOCK_MESSAGE = e.Lock(
    item="i", kind="reply", worker="w", fencing_token=2**63, granted_at=_AT, expires_at=_AT, expires_in=_FOR
)
_LOCK = Lock("i", "reply", "w", 2**63, _INSTANT, _INSTANT, 1.5)
_ENGAGEMENT_MESSAGE = e.Engagement(
    item="i", kind="reply", worker="w", outcome=e.OUTCOME_UNKNOWN, at=_AT, fencing_token=3
)
_ENGAGEMENT = Engagement("i", "reply", "w", Outcome.UNKNOWN, _INSTANT, 3)
_RESERVATION_MESSAGE = s.Reservation(
    reservation_id=4,
    type="memory",
    resource_id="a",
    pool="memory",
    units=2,
    worker="w",
    granted_at=_AT,
    expires_at=_AT,
    expires_in=_FOR,
)
_RESERVATION = Reservation(4, "memory", "a", "memory", 2, "w", _INSTANT, _INSTANT, 1.5)
_REFUSAL_MESSAGE = common_pb2.Refusal(
    reason=common_pb2.REFUSAL_REASON_WINDOW_FULL,
    subject="post",
    retry_after=_FOR,
    retry_at=_AT,
    window={"seconds": 900},
    queue_position=3,
)
_REFUSAL = Refusal(RefusalReason.WINDOW_FULL, "post", 1.5, _INSTANT, "", 900.0, 3)
_WINDOW_MESSAGE = r.WindowCapacity(
    name="per_15min", window={"seconds": 900}, limit=9, used=4, remaining=5, resets_at=_AT, resets_in=_FOR
)
_WINDOW = Window("per_15min", 900.0, 9, 4, 5, _INSTANT, 1.5)

_CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any, Any, Any]] = [
    (
        "get_lock",
        ("i",),
        {"kind": "reply"},
        "GetLock",
        e.GetLockRequest(item="i", kind="reply"),
        e.GetLockResponse(
            state=e.ITEM_STATE_IN_PROGRESS,
            lock=_LOCK_MESSAGE,
            last_engagement=_ENGAGEMENT_MESSAGE,
            delayed_until=_AT,
            waiters=6,
        ),
        ItemStatus(ItemState.IN_PROGRESS, _LOCK, _ENGAGEMENT, _INSTANT, 6),
    ),
    (
        "get_lock",
        ("i",),
        {},
        "GetLock",
        e.GetLockRequest(item="i"),
        e.GetLockResponse(state=e.ITEM_STATE_FREE),
        ItemStatus(ItemState.FREE, None, None, None, 0),
    ),
    (
        "has_recent_engagement",
        ("i",),
        {"within": 60, "kinds": ["reply"], "include_failures": True},
        "HasRecentEngagement",
        e.HasRecentEngagementRequest(
            item="i", within={"seconds": 60}, kinds=["reply"], include_failures=True
        ),
        e.HasRecentEngagementResponse(engaged=True, latest=_ENGAGEMENT_MESSAGE),
        _ENGAGEMENT,
    ),
    (
        "has_recent_engagement",
        ("i",),
        {},
        "HasRecentEngagement",
        e.HasRecentEngagementRequest(item="i"),
        e.HasRecentEngagementResponse(),
        None,
    ),
    (
        "engagement_stats",
        (),
        {"within": 0.5, "worker": "w"},
        "GetEngagementStats",
        e.GetEngagementStatsRequest(within={"nanos": 500_000_000}, worker="w"),
        e.GetEngagementStatsResponse(
            total=4,
            successful=1,
            failed=1,
            unknown=2,
            by_kind={"like": e.KindStats(total=4, successful=1, failed=1, unknown=2)},
            success_rate=0.25,
        ),
        EngagementStats(4, 1, 1, 2, {"like": KindStats(4, 1, 1, 2)}, 0.25),
    ),
    (
        "check_availability",
        ("memory", "a"),
        {"units": 2, "priority": Priority.HIGH},
        "CheckAvailability",
        s.CheckAvailabilityRequest(
            type="memory", resource_id="a", units=2, priority=common_pb2.PRIORITY_HIGH
        ),
        s.CheckAvailabilityResponse(
            queue_position=3, estimated_wait=_FOR, blocked_by=_REFUSAL_MESSAGE, free_units=1, capacity=8
        ),
        Availability(False, 3, 1.5, _REFUSAL, 1, 8),  # noqa: FBT003
    ),
    (
        "remaining_capacity",
        ("post",),
        {},
        "GetRemainingCapacity",
        r.GetRemainingCapacityRequest(endpoint="post"),
        r.GetRemainingCapacityResponse(windows=[_WINDOW_MESSAGE], remaining=5),
        RemainingCapacity((_WINDOW,), 5),
    ),
    (
        "cancel_schedule",
        (8,),
        {},
        "CancelSchedule",
        r.CancelScheduleRequest(booking_id=8, worker="w1"),
        r.CancelScheduleResponse(already_ended=True),
        True,
    ),
    (
        "worker_allocation",
        ("post",),
        {},
        "GetWorkerAllocation",
        r.GetWorkerAllocationRequest(endpoint="post", worker="w1"),
        r.GetWorkerAllocationResponse(
            windows=[
                r.WindowAllocation(
                    name="per_15min", window={"seconds": 900}, allocated=9, used=1, remaining=2
                )
            ],
            active_workers=3,
        ),
        WorkerAllocation((WindowAllocation("per_15min", 900.0, 9, 1, 2),), 3),
    ),
    (
        "system_status",
        (),
        {},
        "GetSystemStatus",
        r.GetSystemStatusRequest(),
        r.GetSystemStatusResponse(
            health=r.HEALTH_WARNING,
            endpoints=[
                r.EndpointStatus(
                    endpoint="post",
                    health=r.HEALTH_WARNING,
                    utilisation=0.9,
                    active_workers=2,
                    queued=1,
                    windows=[_WINDOW_MESSAGE],
                    violations=7,
                    gate=r.Gate(
                        state=r.GATE_STATE_CLOSED,
                        opens_at={"seconds": 100},
                        opens_in={"seconds": 5},
                        strikes=2,
                    ),
                    learned=[
                        r.LearnedLimit(window={"seconds": 900}, limit=90, configured=180, in_force=True)
                    ],
                    malformed_headers=3,
                    forecasts=[r.ClassForecast(priority=common_pb2.PRIORITY_HIGH, per_s=0.5, kept=4)],
                    scheduling_error={"nanos": 250_000_000},
                )
            ],
        ),
        SystemStatus(
            Health.WARNING,
            (
                EndpointStatus(
                    "post",
                    Health.WARNING,
                    0.9,
                    2,
                    1,
                    (_WINDOW,),
                    7,
                    Gate(GateState.CLOSED, datetime.fromtimestamp(100, UTC), 5.0, 2),
                    (LearnedLimit(900.0, 90, 180, in_force=True),),
                    3,
                    (ClassForecast(Priority.HIGH, 0.5, 4),),
                    0.25,
                ),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("name", "args", "options", "rpc", "request_sent", "answer", "expected"), _CASES)
async def test_a_plain_call(
    server: ScriptedServer,
    client: Client,
    *,
    name: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    rpc: str,
    request_sent: Any,
    answer: Any,
    expected: Any,
):
    server.answers[rpc] = reply(answer)
    assert await getattr(client, name)(*args, **options) == expected
    ((asked, request),) = server.calls
    assert (asked, request) == (rpc, request_sent)


async def test_schedule(server: ScriptedServer, client: Client):
    server.answers["ScheduleRequest"] = reply(
        r.ScheduleRequestResponse(
            booking_id=8, execute_at=_AT, estimated_delay=_FOR, claim_until=_AT, permits=2
        )
    )
    booking = await client.schedule("post", permits=2, priority=Priority.LOW, not_before=60)
    assert booking == Booking(8, _INSTANT, 1.5, _INSTANT, 2)
    (request,) = server.requests("ScheduleRequest")
    assert (request.worker, request.priority, request.not_before.ToSeconds()) == ("w1", 1, 60)
    assert request.request_id


async def test_reserve_api_quota(server: ScriptedServer, client: Client):
    server.answers["ReserveApiQuota"] = reply(s.ReserveApiQuotaResponse(granted=_RESERVATION_MESSAGE))
    assert await client.reserve_api_quota("tweet", 2) == _RESERVATION
    server.answers["ReserveApiQuota"] = reply(s.ReserveApiQuotaResponse(refused=_REFUSAL_MESSAGE))
    with pytest.raises(Refused) as caught:
        await client.reserve_api_quota("tweet")
    assert caught.value.refusal == _REFUSAL
    first, second = server.requests("ReserveApiQuota")
    assert (first.operation, first.worker, first.units, second.units) == ("tweet", "w1", 2, 1)
    assert first.request_id != second.request_id


async def test_lists_are_read_page_by_page(server: ScriptedServer, client: Client):
    async def locks(request: e.ListLocksRequest, _: object) -> e.ListLocksResponse:
        return e.ListLocksResponse(
            locks=[_LOCK_MESSAGE] * request.page_size, next_page_token="" if request.page_token else "next"
        )

    async def reservations(_: s.ListReservationsRequest, __: object) -> s.ListReservationsResponse:
        return s.ListReservationsResponse(reservations=[_RESERVATION_MESSAGE])

    async def allocations(
        request: r.ListWorkerAllocationsRequest, _: object
    ) -> r.ListWorkerAllocationsResponse:
        share = r.WorkerAllocation(
            worker="w",
            windows=[
                r.WindowAllocation(name="per_hour", window={"seconds": 3_600}, allocated=9, own=6, lent=1)
            ],
            weight=2.0,
            efficiency=0.5,
            demand_per_s=0.25,
            queued_permits=4,
        )
        return r.ListWorkerAllocationsResponse(
            workers=[share], next_page_token="" if request.page_token else "next"
        )

    server.answers |= {
        "ListLocks": locks,
        "ListReservations": reservations,
        "ListWorkerAllocations": allocations,
    }
    assert [each async for each in client.locks(worker="w", page_size=3)] == [_LOCK] * 6
    assert [request.page_token for request in server.requests("ListLocks")] == ["", "next"]
    assert {request.worker for request in server.requests("ListLocks")} == {"w"}
    assert [each async for each in client.reservations(type="memory")] == [_RESERVATION]
    assert server.requests("ListReservations")[0].type == "memory"
    window = WindowAllocation("per_hour", 3_600.0, 9, 0, 0, own=6, lent=1)
    share = WorkerShare("w", (window,), weight=2.0, efficiency=0.5, demand_per_s=0.25, queued_permits=4)
    assert [each async for each in client.worker_allocations("post", page_size=1)] == [share] * 2
    asked = server.requests("ListWorkerAllocations")
    assert [(request.endpoint, request.page_size, request.page_token) for request in asked] == [
        ("post", 1, ""),
        ("post", 1, "next"),
    ]


def test_every_rpc_is_used_somewhere():
    by_blocks = {
        "RequestLock", "AwaitLock", "RenewLock", "ReleaseLock",
        "ReserveResource", "AwaitReservation", "RenewReservation", "ReleaseResource",
        "CanMakeRequest", "AwaitPermit", "RecordUsage", "Connect",
        "AcquireBundle", "AwaitBundle", "RenewBundle", "ReleaseBundle",
    }  # fmt: skip
    here = {rpc for _, _, _, rpc, *_ in _CASES}
    here |= {"ScheduleRequest", "ReserveApiQuota", "ListLocks", "ListReservations", "ListWorkerAllocations"}
    assert by_blocks | here == set(METHODS)
