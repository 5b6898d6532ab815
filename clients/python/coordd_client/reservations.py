"""Reservations, as calls: ReservationService without I/O."""

from typing import Any

from coordd.v1 import reservation_pb2 as pb
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
    optional_duration,
    optional_seconds,
    refusal,
    seconds,
)
from coordd_client.values import Availability, OnConflict, Priority, Reservation

_SERVICE = "/coordd.v1.ReservationService/"

RESERVE = Method(_SERVICE + "ReserveResource", pb.ReserveResourceRequest, pb.ReserveResourceResponse)
AWAIT = Method(_SERVICE + "AwaitReservation", pb.AwaitReservationRequest, pb.AwaitReservationResponse)
RENEW = Method(_SERVICE + "RenewReservation", pb.RenewReservationRequest, pb.RenewReservationResponse)
RELEASE = Method(_SERVICE + "ReleaseResource", pb.ReleaseResourceRequest, pb.ReleaseResourceResponse)
CHECK = Method(_SERVICE + "CheckAvailability", pb.CheckAvailabilityRequest, pb.CheckAvailabilityResponse)
LIST = Method(_SERVICE + "ListReservations", pb.ListReservationsRequest, pb.ListReservationsResponse)
RESERVE_QUOTA = Method(_SERVICE + "ReserveApiQuota", pb.ReserveApiQuotaRequest, pb.ReserveApiQuotaResponse)


def terms(
    worker: str,
    type_: str,
    resource_id: str | None,
    *,
    units: int,
    ttl: float | None,
    priority: Priority,
    on_conflict: OnConflict | None,
) -> Terms[Reservation]:
    """Returns how to get, keep and forgo a reservation."""
    asked: dict[str, Any] = {
        "type": arguments.text("type", type_),
        "resource_id": _optional_id(resource_id),
        "worker": worker,
        "units": arguments.count("units", units),
        "ttl": optional_duration("ttl", ttl),
        "priority": arguments.priority(priority),
        "request_id": new_request_id(),
    }
    return Terms(
        once=Call(RESERVE, pb.ReserveResourceRequest(**asked), granted_or_refused(read_reservation)),
        wait=Wait(
            AWAIT,
            pb.AwaitReservationRequest(**asked, on_conflict=arguments.on_conflict(on_conflict)),
            read_reservation,
        ),
        forgo=release,
        renew=renew,
        left_s=lambda reservation: reservation.expires_in_s,
    )


def renew(reservation: Reservation) -> Call[Renewal]:
    """Extends a reservation from now by the TTL of its grant."""
    request = pb.RenewReservationRequest(reservation_id=reservation.reservation_id, worker=reservation.worker)
    return Call(
        RENEW,
        request,
        lambda reply: Renewal(seconds(reply.reservation.expires_in), reply.reservation.preempted),
    )


def release(
    reservation: Reservation,
    unused_units: int = 0,
    *,
    result: pb.WorkResult.ValueType = pb.WORK_RESULT_UNSPECIFIED,
    latency_s: float | None = None,
) -> Call[bool]:
    """Gives a reservation back, `unused_units` to a refilling pool. Returns whether it had ended before.

    What an adaptive pool learns from: `result`, and how long the work took (None: not said).
    """
    request = pb.ReleaseResourceRequest(
        reservation_id=reservation.reservation_id,
        worker=reservation.worker,
        unused_units=unused_units,
        work_result=result,
        latency=optional_duration("latency", latency_s),
    )
    return Call(RELEASE, request, lambda reply: reply.already_released)


def check_availability(
    type: str,
    resource_id: str | None = None,
    *,
    units: int = 0,
    priority: Priority = Priority.MEDIUM,
) -> Call[Availability]:
    """Returns whether this could be reserved now; if not, which place a wait would have, and how long.

    It takes nothing: another may be faster. `units` 0 means 1 where the type has a pool.
    Raises: InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.CheckAvailabilityRequest(
        type=arguments.text("type", type),
        resource_id=_optional_id(resource_id),
        units=arguments.count("units", units),
        priority=arguments.priority(priority),
    )
    return Call(CHECK, request, _read_availability)


def list_reservations(page_token: str, *, page_size: int, worker: str, type_: str) -> Call[Page[Reservation]]:
    """Returns one page of the live reservations, oldest id first."""
    request = pb.ListReservationsRequest(
        page_size=arguments.count("page_size", page_size),
        page_token=page_token,
        worker=arguments.text("worker", worker),
        type=arguments.text("type", type_),
    )
    return Call(
        LIST,
        request,
        lambda reply: Page(tuple(map(read_reservation, reply.reservations)), reply.next_page_token),
    )


def reserve_api_quota(
    worker: str, operation: str, units: int = 1, *, priority: Priority = Priority.MEDIUM
) -> Call[Reservation]:
    """Takes units of the pool behind an API operation (tweet, search, fetch) to use by `expires_at`.

    They need no release: they come back as the pool's window moves on.
    Raises: Refused, OutOfRange, InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.ReserveApiQuotaRequest(
        worker=worker,
        operation=arguments.text("operation", operation),
        units=arguments.count("units", units),
        priority=arguments.priority(priority),
        request_id=new_request_id(),
    )
    return Call(RESERVE_QUOTA, request, granted_or_refused(read_reservation))


def _optional_id(resource_id: str | None) -> str:
    return "" if resource_id is None else arguments.text("resource_id", resource_id)


def read_reservation(message: pb.Reservation) -> Reservation:
    """Reads a live reservation."""
    return Reservation(
        reservation_id=message.reservation_id,
        type=message.type,
        resource_id=message.resource_id,
        pool=message.pool,
        units=message.units,
        worker=message.worker,
        granted_at=instant(message.granted_at),
        expires_at=instant(message.expires_at),
        expires_in_s=seconds(message.expires_in),
    )


def _read_availability(reply: pb.CheckAvailabilityResponse) -> Availability:
    return Availability(
        available=reply.available,
        queue_position=reply.queue_position,
        estimated_wait_s=optional_seconds(reply, "estimated_wait"),
        blocked_by=refusal(reply.blocked_by) if reply.HasField("blocked_by") else None,
        free_units=reply.free_units,
        capacity=reply.capacity,
    )
