"""BundleService: messages to commands and back."""

from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar

from coordd.core import commands, outcomes
from coordd.core.errors import InvalidArgument
from coordd.core.limits import CLAIMS_PER_BUNDLE_MAX, CONDITIONS_PER_BUNDLE_MAX, HISTORY_NS_MAX
from coordd.rpc import fields, messages, waits
from coordd.rpc.backend import Backend
from coordd.v1 import bundle_pb2 as pb
from coordd.v1 import bundle_pb2_grpc, rate_limit_pb2

Command = TypeVar("Command")

_NOT_SENT: Final = rate_limit_pb2.USAGE_RESULT_NOT_SENT


class BundleServicer(bundle_pb2_grpc.BundleServiceServicer):
    """Several things at once: all of them, or none."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine

    async def AcquireBundle(self, request: pb.AcquireBundleRequest, context: Any) -> pb.AcquireBundleResponse:
        """See the proto."""
        outcome = await self._engine.submit(_acquire(request))
        return pb.AcquireBundleResponse(**messages.answer(outcome, self._engine.now()))

    def AwaitBundle(
        self, request: pb.AwaitBundleRequest, context: Any
    ) -> AsyncGenerator[pb.AwaitBundleResponse, None]:
        """See the proto."""
        wait_ns = fields.wait_ns(request, self._backend.wait_ns_default)
        command = _acquire(request, wait_ns, fields.on_conflict(request.on_conflict))
        return waits.stream(self._engine, command, pb.AwaitBundleResponse)

    async def RenewBundle(self, request: pb.RenewBundleRequest, context: Any) -> pb.RenewBundleResponse:
        """See the proto."""
        command = commands.RenewBundle(id=request.bundle_id, worker=fields.worker(request.worker))
        renewed = await self._backend.ask(command, outcomes.Renewed)
        return pb.RenewBundleResponse(bundle=messages.held(renewed.grant, self._engine.now()))

    async def ReleaseBundle(self, request: pb.ReleaseBundleRequest, context: Any) -> pb.ReleaseBundleResponse:
        """See the proto."""
        released = await self._backend.ask(_release(request), outcomes.BundleReleased)
        return pb.ReleaseBundleResponse(
            already_released=released.bundle is None,
            engagements=map(messages.engagement, released.engagements),
            refunded=released.refunded,
        )


def _acquire(
    request: pb.AcquireBundleRequest | pb.AwaitBundleRequest, wait_ns: int = 0, on_conflict: int = 0
) -> commands.AcquireBundle:
    fields.count("claims", len(request.claims), 1, CLAIMS_PER_BUNDLE_MAX)
    fields.count("not_engaged", len(request.not_engaged), 0, CONDITIONS_PER_BUNDLE_MAX)
    asks: dict[str, Any] = {
        "worker": fields.worker(request.worker),
        "priority": fields.priority(request.priority),
    }
    quality = fields.quality(request.quality)
    claims = [_nth_claim(index, claim, asks, quality) for index, claim in enumerate(request.claims)]
    return commands.AcquireBundle(
        **asks,
        locks=_of(commands.RequestLock, claims),
        reservations=_of(commands.ReserveResource, claims),
        permits=_of(commands.TakePermit, claims),
        not_engaged=tuple(map(_condition, request.not_engaged)),
        quality=quality,
        request_id=fields.request_id(request.request_id),
        wait_ns=wait_ns,
        on_conflict=on_conflict,
    )


def _of(sort: type[Command], claims: list[object]) -> tuple[Command, ...]:
    return tuple(claim for claim in claims if isinstance(claim, sort))


def _nth_claim(index: int, claim: pb.Claim, asks: dict[str, Any], quality: float) -> object:
    """Return a claim as a command; of several, an error names the one that is wrong."""
    try:
        return _claim(claim, asks, quality)
    except InvalidArgument as error:
        error.message = f"claims[{index}]: {error.message}"
        error.metadata["field"] = f"claims[{index}].{error.metadata['field']}".removesuffix(".claims")
        raise


def _claim(claim: pb.Claim, asks: dict[str, Any], quality: float) -> object:
    match claim.WhichOneof("claim"):
        case "lock":
            return _lock(claim.lock, asks, quality)
        case "reservation":
            return _reservation(claim.reservation, asks)
        case "permit":
            return _permit(claim.permit, asks)
    raise InvalidArgument("INVALID_CLAIM", "a claim claims nothing", field="claims")


def _lock(claim: pb.LockClaim, asks: dict[str, Any], quality: float) -> commands.RequestLock:
    return commands.RequestLock(
        **asks,
        item=fields.item(claim.item),
        kind=fields.name("kind", claim.kind),
        ttl_ns=fields.ttl_ns(claim),
        quality=quality,
    )


def _reservation(claim: pb.ReservationClaim, asks: dict[str, Any]) -> commands.ReserveResource:
    return commands.ReserveResource(
        **asks,
        type=fields.name("type", claim.type),
        resource_id=fields.resource_id(claim.resource_id),
        units=claim.units,
        ttl_ns=fields.ttl_ns(claim),
    )


def _permit(claim: pb.PermitClaim, asks: dict[str, Any]) -> commands.TakePermit:
    return commands.TakePermit(
        **asks, endpoint=fields.name("endpoint", claim.endpoint), count=claim.permits or 1
    )


def _condition(condition: pb.NotEngaged) -> commands.NotEngaged:
    if not condition.HasField("within"):
        raise InvalidArgument("INVALID_DURATION", "within is required", field="within")
    return commands.NotEngaged(
        item=fields.item(condition.item),
        kinds=fields.names("kinds", condition.kinds),
        within_ns=fields.duration_ns("within", condition.within, 1, HISTORY_NS_MAX),
    )


def _release(request: pb.ReleaseBundleRequest) -> commands.ReleaseBundle:
    fields.count("outcomes", len(request.outcomes), 0, CLAIMS_PER_BUNDLE_MAX)
    fields.count("usages", len(request.usages), 0, CLAIMS_PER_BUNDLE_MAX)
    worker = fields.worker(request.worker)
    usages = {usage.permit_id: _usage(usage, worker) for usage in request.usages}
    return commands.ReleaseBundle(
        id=request.bundle_id,
        worker=worker,
        outcome=fields.outcome(request.outcome) if request.outcome else 0,
        outcomes={lock.fencing_token: fields.outcome(lock.outcome) for lock in request.outcomes},
        usages=tuple(usages.values()),
        result=fields.work_result(request.work_result),
        latency_ns=fields.latency_ns(request),
    )


def _usage(usage: pb.PermitUsage, worker: str) -> commands.RecordUsage:
    result = fields.usage_result(usage.result)
    return commands.RecordUsage(
        endpoint=fields.name("endpoint", usage.endpoint),
        worker=worker,
        id=usage.permit_id,
        is_sent=result != _NOT_SENT,
        is_success=result == rate_limit_pb2.USAGE_RESULT_SUCCESS,
        status_code=fields.status_code(usage.status_code),
        headers=fields.headers(usage.headers),
    )
