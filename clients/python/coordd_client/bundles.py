"""Bundles, as calls: BundleService without I/O."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordd.v1 import bundle_pb2 as pb
from coordd.v1 import rate_limit_pb2
from coordd.v1.reservation_pb2 import WORK_RESULT_UNSPECIFIED, WorkResult
from coordd_client import arguments
from coordd_client.claims import Claim, LockClaim, NotEngaged, PermitClaim, ReservationClaim
from coordd_client.errors import LeaseLost
from coordd_client.locks import read_lock
from coordd_client.messages import (
    Call,
    Method,
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
from coordd_client.permits import read_permit
from coordd_client.reservations import read_reservation
from coordd_client.values import Bundle, OnConflict, Outcome, Permit, Priority, UsageResult

_SERVICE = "/coordd.v1.BundleService/"

ACQUIRE = Method(_SERVICE + "AcquireBundle", pb.AcquireBundleRequest, pb.AcquireBundleResponse)
AWAIT = Method(_SERVICE + "AwaitBundle", pb.AwaitBundleRequest, pb.AwaitBundleResponse)
RENEW = Method(_SERVICE + "RenewBundle", pb.RenewBundleRequest, pb.RenewBundleResponse)
RELEASE = Method(_SERVICE + "ReleaseBundle", pb.ReleaseBundleRequest, pb.ReleaseBundleResponse)


def terms(
    worker: str,
    claims: Sequence[Claim],
    *,
    priority: Priority,
    quality: float | None,
    on_conflict: OnConflict | None,
) -> Terms[Bundle]:
    """Returns how to get, keep and forgo a bundle. Raises: TypeError, InvalidRequest."""
    for claim in claims:
        if not isinstance(claim, LockClaim | ReservationClaim | PermitClaim | NotEngaged):
            raise TypeError(f"a bundle takes lock(), reservation(), units(), permit(), not {claim!r}")
    asked: dict[str, Any] = {
        "worker": worker,
        "claims": [claim.message() for claim in claims if not isinstance(claim, NotEngaged)],
        "not_engaged": [claim.message() for claim in claims if isinstance(claim, NotEngaged)],
        "priority": arguments.priority(priority),
        "quality": arguments.fraction("quality", quality),
        "request_id": new_request_id(),
    }
    return Terms(
        once=Call(ACQUIRE, pb.AcquireBundleRequest(**asked), granted_or_refused(read_bundle)),
        wait=Wait(
            AWAIT, pb.AwaitBundleRequest(**asked, on_conflict=arguments.on_conflict(on_conflict)), read_bundle
        ),
        forgo=forgo,
        renew=renew,
        left_s=left_s,
    )


def renew(bundle: Bundle) -> Call[Renewal]:
    """Extends every lease of a bundle from now; the time left is the shortest."""
    request = pb.RenewBundleRequest(bundle_id=bundle.bundle_id, worker=bundle.worker)
    return Call(
        RENEW, request, lambda reply: Renewal(left_s(read_bundle(reply.bundle)), _is_preempted(reply))
    )


def _is_preempted(reply: pb.RenewBundleResponse) -> bool:
    leases: list[Any] = [*reply.bundle.locks, *reply.bundle.reservations]
    return any(lease.preempted for lease in leases)


def left_s(bundle: Bundle) -> float:
    """Returns the time left of the shortest lease in seconds; infinite where there is none to renew."""
    return math.inf if bundle.expires_in_s is None else bundle.expires_in_s


def usage(
    permit: Permit, result: UsageResult, status_code: int = 0, headers: Sequence[tuple[str, str]] = ()
) -> pb.PermitUsage:
    """Returns what became of one permit."""
    return pb.PermitUsage(
        permit_id=permit.permit_id,
        endpoint=permit.endpoint,
        result=number(result),
        status_code=status_code,
        headers=[rate_limit_pb2.Header(name=name, value=value) for name, value in headers],
    )


def release(
    bundle: Bundle,
    outcomes: Mapping[int, Outcome],
    usages: Iterable[pb.PermitUsage],
    *,
    result: WorkResult.ValueType = WORK_RESULT_UNSPECIFIED,
    latency_s: float | None = None,
) -> Call[None]:
    """Gives a bundle back. `outcomes`: of every lock, by token. `result`, `latency_s`: of its reservations.

    Raises: LeaseLost if the lease on one of the locks had run out before, whatever its outcome.
    """
    request = pb.ReleaseBundleRequest(
        bundle_id=bundle.bundle_id,
        worker=bundle.worker,
        outcomes=[
            pb.LockOutcome(fencing_token=token, outcome=number(outcome))
            for token, outcome in outcomes.items()
        ],
        usages=usages,
        work_result=result,
        latency=optional_duration("latency", latency_s),
    )

    def read(reply: pb.ReleaseBundleResponse) -> None:
        known = {engagement.fencing_token for engagement in reply.engagements}
        for lost in sorted(outcomes.keys() - known):
            raise LeaseLost(
                "a lock of the bundle is held no longer",
                reason="LEASE_LOST",
                metadata={"id": str(lost)},
            )

    return Call(RELEASE, request, read)


def forgo(bundle: Bundle) -> Call[None]:
    """Gives back a bundle that was granted but never used."""
    outcomes = {lock.fencing_token: Outcome.FAILURE for lock in bundle.locks}
    return release(bundle, outcomes, [usage(permit, UsageResult.NOT_SENT) for permit in bundle.permits])


def read_bundle(message: pb.Bundle) -> Bundle:
    """Reads a bundle."""
    return Bundle(
        bundle_id=message.bundle_id,
        worker=message.worker,
        granted_at=instant(message.granted_at),
        locks=tuple(map(read_lock, message.locks)),
        reservations=tuple(map(read_reservation, message.reservations)),
        permits=tuple(map(read_permit, message.permits)),
        expires_in_s=seconds(message.expires_in) if message.HasField("expires_in") else None,
        lease_ids=tuple(message.lease_ids),
    )
