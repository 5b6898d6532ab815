"""Permits to call third-party endpoints, as calls: RateLimitService without I/O."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordd.v1 import rate_limit_pb2 as pb
from coordd_client import arguments
from coordd_client.messages import (
    Call,
    Method,
    Page,
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
    Booking,
    ClassForecast,
    EndpointStatus,
    Gate,
    GateState,
    Health,
    LearnedLimit,
    Permit,
    Priority,
    RemainingCapacity,
    SystemStatus,
    UsageResult,
    Window,
    WindowAllocation,
    WorkerAllocation,
    WorkerShare,
)

_SERVICE = "/coordd.v1.RateLimitService/"

CAN_MAKE = Method(_SERVICE + "CanMakeRequest", pb.CanMakeRequestRequest, pb.CanMakeRequestResponse)
AWAIT = Method(_SERVICE + "AwaitPermit", pb.AwaitPermitRequest, pb.AwaitPermitResponse)
RECORD = Method(_SERVICE + "RecordUsage", pb.RecordUsageRequest, pb.RecordUsageResponse)
GET_REMAINING = Method(
    _SERVICE + "GetRemainingCapacity", pb.GetRemainingCapacityRequest, pb.GetRemainingCapacityResponse
)
SCHEDULE = Method(_SERVICE + "ScheduleRequest", pb.ScheduleRequestRequest, pb.ScheduleRequestResponse)
CANCEL = Method(_SERVICE + "CancelSchedule", pb.CancelScheduleRequest, pb.CancelScheduleResponse)
GET_ALLOCATION = Method(
    _SERVICE + "GetWorkerAllocation", pb.GetWorkerAllocationRequest, pb.GetWorkerAllocationResponse
)
LIST_ALLOCATIONS = Method(
    _SERVICE + "ListWorkerAllocations", pb.ListWorkerAllocationsRequest, pb.ListWorkerAllocationsResponse
)
GET_STATUS = Method(_SERVICE + "GetSystemStatus", pb.GetSystemStatusRequest, pb.GetSystemStatusResponse)

# What RecordUsage takes of a response's header fields.
_HEADERS_MAX = 100
_HEADER_NAME_BYTES_MAX = 256
_HEADER_VALUE_BYTES_MAX = 4096

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


def terms(
    worker: str, endpoint: str, *, permits: int, priority: Priority, booking_id: int | None
) -> Terms[Permit]:
    """Returns how to get and forgo a permit. A permit is used, not kept alive."""
    asked: dict[str, Any] = {
        "endpoint": arguments.text("endpoint", endpoint),
        "worker": worker,
        "priority": arguments.priority(priority),
        "permits": arguments.count("permits", permits),
        "request_id": new_request_id(),
    }
    booking = 0 if booking_id is None else arguments.identifier("booking_id", booking_id)
    once = pb.CanMakeRequestRequest(**asked, booking_id=booking)
    return Terms(
        once=Call(CAN_MAKE, once, granted_or_refused(read_permit)),
        # A booking has its time already: there is no queue to wait in.
        wait=None if booking else Wait(AWAIT, pb.AwaitPermitRequest(**asked), read_permit),
        forgo=lambda permit: record_usage(permit, UsageResult.NOT_SENT),
        renew=None,
        left_s=lambda permit: permit.use_within_s,
    )


def record_usage(
    permit: Permit, result: UsageResult, status_code: int = 0, headers: Sequence[tuple[str, str]] = ()
) -> Call[bool]:
    """Settles a permit. Returns whether it had been settled before, or had passed its use_by."""
    request = pb.RecordUsageRequest(
        endpoint=permit.endpoint,
        worker=permit.worker,
        permit_id=permit.permit_id,
        result=number(result),
        status_code=status_code,
        headers=[pb.Header(name=name, value=value) for name, value in headers],
    )
    return Call(RECORD, request, lambda reply: reply.already_settled)


def header_pairs(headers: Headers) -> list[tuple[str, str]]:
    """Returns those header fields of a response that RecordUsage takes, in their order.

    Why some are left out: upstream's headers are beyond the caller's control, and a cookie that is too long
    must not keep a call that was made from being settled.
    Raises: TypeError if they are not texts.
    """
    return [pair for pair in arguments.pairs("headers", headers) if _is_reportable(*pair)][:_HEADERS_MAX]


def _is_reportable(name: str, value: str) -> bool:
    try:
        return (
            0 < len(name.encode()) <= _HEADER_NAME_BYTES_MAX
            and len(value.encode()) <= _HEADER_VALUE_BYTES_MAX
        )
    except UnicodeEncodeError:  # surrogates, which some HTTP clients put for bytes that are not UTF-8
        return False


def remaining_capacity(endpoint: str) -> Call[RemainingCapacity]:
    """Returns what is left of each window of an endpoint, and when it comes back. It takes nothing.

    Raises: InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.GetRemainingCapacityRequest(endpoint=arguments.text("endpoint", endpoint))
    return Call(GET_REMAINING, request, _read_remaining)


def schedule(
    worker: str,
    endpoint: str,
    *,
    permits: int = 1,
    priority: Priority = Priority.MEDIUM,
    not_before: float | None = None,
) -> Call[Booking]:
    """Books the earliest time at which `permits` calls can be made, `not_before` so many seconds from now.

    The booking holds the capacity. Claim it with `permit(endpoint, booking_id=...)`, or give it back with
    `cancel_schedule`; else it lapses.
    Raises: OutOfRange, QueueFull (too many bookings), InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.ScheduleRequestRequest(
        endpoint=arguments.text("endpoint", endpoint),
        worker=worker,
        priority=arguments.priority(priority),
        permits=arguments.count("permits", permits),
        request_id=new_request_id(),
        not_before=optional_duration("not_before", not_before),
    )
    return Call(SCHEDULE, request, _read_booking)


def cancel_schedule(worker: str, booking_id: int) -> Call[bool]:
    """Gives a booking back. Returns whether it had ended before: cancelled, claimed or lapsed.

    Raises: NotHolder, NotFound, InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.CancelScheduleRequest(
        booking_id=arguments.identifier("booking_id", booking_id), worker=worker
    )
    return Call(CANCEL, request, lambda reply: reply.already_ended)


def worker_allocation(worker: str, endpoint: str) -> Call[WorkerAllocation]:
    """Returns what of each window this worker may count on, and what it has used.

    Raises: InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.GetWorkerAllocationRequest(endpoint=arguments.text("endpoint", endpoint), worker=worker)
    return Call(GET_ALLOCATION, request, _read_allocation)


def list_allocations(page_token: str, *, endpoint: str, page_size: int) -> Call[Page[WorkerShare]]:
    """Returns one page of the workers that share an endpoint, by name."""
    request = pb.ListWorkerAllocationsRequest(
        endpoint=arguments.text("endpoint", endpoint),
        page_size=arguments.count("page_size", page_size),
        page_token=page_token,
    )
    return Call(
        LIST_ALLOCATIONS,
        request,
        lambda reply: Page(tuple(map(_read_share, reply.workers)), reply.next_page_token),
    )


def system_status() -> Call[SystemStatus]:
    """Returns every endpoint's health.

    Raises: Unavailable, DeadlineExceeded.
    """
    return Call(GET_STATUS, pb.GetSystemStatusRequest(), _read_system_status)


def read_permit(message: pb.Permit) -> Permit:
    """Reads a permit."""
    return Permit(
        permit_id=message.permit_id,
        endpoint=message.endpoint,
        worker=message.worker,
        permits=message.permits,
        granted_at=instant(message.granted_at),
        use_by=instant(message.use_by),
        use_within_s=seconds(message.use_within),
    )


def _read_window(message: pb.WindowCapacity) -> Window:
    return Window(
        name=message.name,
        window_s=seconds(message.window),
        limit=message.limit,
        used=message.used,
        remaining=message.remaining,
        resets_at=instant(message.resets_at),
        resets_in_s=seconds(message.resets_in),
    )


def _read_remaining(reply: pb.GetRemainingCapacityResponse) -> RemainingCapacity:
    return RemainingCapacity(windows=tuple(map(_read_window, reply.windows)), remaining=reply.remaining)


def _read_booking(reply: pb.ScheduleRequestResponse) -> Booking:
    return Booking(
        booking_id=reply.booking_id,
        execute_at=instant(reply.execute_at),
        estimated_delay_s=seconds(reply.estimated_delay),
        claim_until=instant(reply.claim_until),
        permits=reply.permits,
    )


def _read_window_allocation(message: pb.WindowAllocation) -> WindowAllocation:
    return WindowAllocation(
        name=message.name,
        window_s=seconds(message.window),
        allocated=message.allocated,
        used=message.used,
        remaining=message.remaining,
        own=message.own,
        lent=message.lent,
        borrowed=message.borrowed,
    )


def _read_allocation(reply: pb.GetWorkerAllocationResponse) -> WorkerAllocation:
    # A daemon that does not know weights gives everybody the same.
    return WorkerAllocation(
        windows=tuple(map(_read_window_allocation, reply.windows)),
        active_workers=reply.active_workers,
        weight=reply.weight or 1.0,
        efficiency=reply.efficiency if reply.weight else 1.0,
        demand_per_s=reply.demand_per_s,
    )


def _read_share(message: pb.WorkerAllocation) -> WorkerShare:
    return WorkerShare(
        worker=message.worker,
        windows=tuple(map(_read_window_allocation, message.windows)),
        weight=message.weight,
        efficiency=message.efficiency,
        demand_per_s=message.demand_per_s,
        queued_permits=message.queued_permits,
    )


def read_gate(message: pb.Gate) -> Gate:
    """Reads a gate. That of a daemon without gates is open."""
    is_shut = message.HasField("opens_at")
    return Gate(
        state=GateState(message.state or pb.GATE_STATE_OPEN),
        opens_at=instant(message.opens_at) if is_shut else None,
        opens_in_s=seconds(message.opens_in) if is_shut else None,
        strikes=message.strikes,
    )


def _read_learned(message: pb.LearnedLimit) -> LearnedLimit:
    return LearnedLimit(
        window_s=seconds(message.window),
        limit=message.limit,
        configured=message.configured,
        in_force=message.in_force,
    )


def _read_endpoint_status(message: pb.EndpointStatus) -> EndpointStatus:
    has_error = message.HasField("scheduling_error")
    return EndpointStatus(
        endpoint=message.endpoint,
        health=Health(message.health),
        utilisation=message.utilisation,
        active_workers=message.active_workers,
        queued=message.queued,
        windows=tuple(map(_read_window, message.windows)),
        violations=message.violations,
        gate=read_gate(message.gate),
        learned=tuple(map(_read_learned, message.learned)),
        malformed_headers=message.malformed_headers,
        forecasts=tuple(map(_read_forecast, message.forecasts)),
        scheduling_error_s=seconds(message.scheduling_error) if has_error else None,
    )


def _read_forecast(message: pb.ClassForecast) -> ClassForecast:
    return ClassForecast(priority=Priority(message.priority), per_s=message.per_s, kept=message.kept)


def _read_system_status(reply: pb.GetSystemStatusResponse) -> SystemStatus:
    return SystemStatus(
        health=Health(reply.health), endpoints=tuple(map(_read_endpoint_status, reply.endpoints))
    )
