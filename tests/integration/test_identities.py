"""Who may call what, over real gRPC: every method by every role, and nobody in another's name."""

from collections.abc import Awaitable, Iterator
from typing import Any

import grpc
import pytest
from daemon_api import DEADLINE_S, Api, TimeSource, nothing_changes, refusal, rest, stream_refusal
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from identity_rig import api_of, by

from coordd.access import LEAST_ROLES, Role
from coordd.server import Daemon
from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)

FILES = (admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2)
OURS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ROLES = {"eye": Role.OBSERVER, "bots": Role.WORKER, "chief": Role.OPERATOR}


def call(channel: grpc.aio.Channel, method: str, request: Any, metadata: Any) -> Any:
    """Make a call of any sort; await it or read it."""
    kind = OURS[method]
    codec = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": GetMessageClass(kind.output_type).FromString,
    }
    if kind.client_streaming:
        return channel.stream_stream(method, **codec)(iter([request]), metadata=metadata, timeout=DEADLINE_S)
    if kind.server_streaming:
        return channel.unary_stream(method, **codec)(request, metadata=metadata, timeout=DEADLINE_S)
    return channel.unary_unary(method, **codec)(request, metadata=metadata, timeout=DEADLINE_S)


def empty(method: str) -> Any:
    return GetMessageClass(OURS[method].input_type)()


async def denial(made: Any) -> tuple[str, str, dict[str, str]]:
    """Return how a call or stream is refused."""
    return await (refusal(made) if isinstance(made, Awaitable) else stream_refusal(made))


async def outcome(method: str, made: Any) -> str:
    """Return the code of a call or stream that need not end: OK if it has begun."""
    try:
        if isinstance(made, Awaitable):
            await made
        elif "Watch" in method:
            # It says nothing unless something happens, but that it has begun.
            await made.initial_metadata()
        else:
            await made.read()
    except grpc.aio.AioRpcError as error:
        return error.code().name
    made.cancel()
    return "OK"


# ---------------------------------------------------------------------- who is nobody


@pytest.mark.parametrize("method", OURS)
async def test_nobody_may_call_anything(channel: grpc.aio.Channel, method: str) -> None:
    made = call(channel, method, empty(method), ())
    assert await denial(made) == ("UNAUTHENTICATED", "TOKEN_REQUIRED", {})


CHIEF = by("chief")[0][1]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("authorization", "Bearer", "UNKNOWN_TOKEN"),
        ("authorization", "", "UNKNOWN_TOKEN"),
        ("authorization", "Basic dTpw", "UNKNOWN_TOKEN"),
        ("authorization", by("nobody")[0][1], "UNKNOWN_TOKEN"),
        ("authorization", CHIEF[:-1], "UNKNOWN_TOKEN"),
        ("authorization", CHIEF + "A", "UNKNOWN_TOKEN"),
        ("authorization", CHIEF.removeprefix("Bearer "), "UNKNOWN_TOKEN"),
        ("x-authorization", CHIEF, "TOKEN_REQUIRED"),
    ],
)
async def test_what_is_no_token_of_anybodys(
    channel: grpc.aio.Channel, key: str, value: str, reason: str
) -> None:
    made = Api(channel).admin.GetStatus(admin_pb2.GetStatusRequest(), metadata=[(key, value)])
    assert await refusal(made) == ("UNAUTHENTICATED", reason, {})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_of_any_case(channel: grpc.aio.Channel, scheme: str) -> None:
    metadata = [("authorization", CHIEF.replace("Bearer", scheme))]
    assert (await Api(channel).admin.GetStatus(admin_pb2.GetStatusRequest(), metadata=metadata)).version


async def test_health_may_be_asked_by_anybody_and_listed_and_watched_by_who_is_known(
    channel: grpc.aio.Channel,
) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    assert (
        await stub.Check(health_pb2.HealthCheckRequest())
    ).status == health_pb2.HealthCheckResponse.SERVING
    code, reason, _ = await stream_refusal(stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S))
    assert (code, reason) == ("UNAUTHENTICATED", "TOKEN_REQUIRED")
    assert (await refusal(stub.List(health_pb2.HealthListRequest())))[0] == "UNAUTHENTICATED"
    watch = stub.Watch(health_pb2.HealthCheckRequest(), metadata=by("eye"), timeout=DEADLINE_S)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    listed = await stub.List(health_pb2.HealthListRequest(), metadata=by("eye"))
    assert set(listed.statuses) >= {"", *{method.split("/")[1] for method in OURS}}


async def test_the_daemon_describes_itself_to_who_is_known(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    code, reason, _ = await stream_refusal(stub.ServerReflectionInfo(iter([ask]), timeout=DEADLINE_S))
    assert (code, reason) == ("UNAUTHENTICATED", "TOKEN_REQUIRED")
    [told] = [each async for each in rest(stub.ServerReflectionInfo(iter([ask]), metadata=by("eye")))]
    assert len(told.list_services_response.service) == 8


# ---------------------------------------------------------------------- roles


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("name", ROLES)
async def test_each_role_may_call_what_its_role_takes_and_nothing_else(
    channel: grpc.aio.Channel, method: str, name: str
) -> None:
    request = empty(method)
    if LEAST_ROLES[method] is Role.WORKER:
        (request.register if method.endswith("/Connect") else request).worker = "bot-1"
    made = call(channel, method, request, by(name))
    least = LEAST_ROLES[method]
    if ROLES[name] >= least:
        assert await outcome(method, made) not in {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    else:
        metadata = {"identity": name, "method": method, "role": least.name.lower()}
        assert await denial(made) == ("PERMISSION_DENIED", "ROLE_REQUIRED", metadata)


# ---------------------------------------------------------------------- in whose name


@pytest.mark.parametrize("method", [method for method in OURS if LEAST_ROLES[method] is Role.WORKER])
@pytest.mark.parametrize("worker", ["rival-1", "", "bot", "Bot-1", "x" * 1_000, "bot\n-1"])
async def test_nobody_acts_in_anothers_name(channel: grpc.aio.Channel, method: str, worker: str) -> None:
    request = empty(method)
    (request.register if method.endswith("/Connect") else request).worker = worker
    told = await denial(call(channel, method, request, by("bots")))
    assert told == ("PERMISSION_DENIED", "WORKER_REQUIRED", {"identity": "bots", "method": method})


async def test_what_another_worker_holds_is_nobodys_to_touch(
    guarded: Daemon, channel: grpc.aio.Channel, time_source: TimeSource
) -> None:
    """By its own name with the other's ids it is not the holder; in the other's name it is not permitted."""
    bots, rivals = api_of(channel, "bots"), api_of(channel, "rivals")
    held = await Held.by(bots, "bot-1")
    async with nothing_changes(guarded, time_source):
        for attempt in held.attempts(rivals, "bot-1"):
            code, reason, _ = await refusal(attempt)
            assert (code, reason) == ("PERMISSION_DENIED", "WORKER_REQUIRED")
        for attempt in held.attempts(rivals, "rival-1"):
            code, reason, _ = await refusal(attempt)
            assert (code, reason) == ("FAILED_PRECONDITION", "NOT_HOLDER")
    for attempt in held.attempts(api_of(channel, "bots"), "bot-1"):
        await attempt


def bundle_of(worker: str, item: str, **more: Any) -> bundle_pb2.AcquireBundleRequest:
    claim = bundle_pb2.Claim(lock=bundle_pb2.LockClaim(item=item, kind="analysis"))
    return bundle_pb2.AcquireBundleRequest(worker=worker, claims=[claim], **more)


class Held:
    """One of everything that a worker can hold, and all that can be done to it by its id."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    @classmethod
    async def by(cls, api: Api, worker: str) -> Any:
        bundle = await api.bundle.AcquireBundle(bundle_of(worker, "b"))
        return cls(
            lock=await api.lock(worker),
            reservation=await api.reserve("slot", worker),
            permit=await api.permit("post", worker),
            booking=await api.book("post", worker),
            bundle=bundle.granted,
        )

    def attempts(self, api: Api, worker: str) -> Iterator[Awaitable[Any]]:
        """Yield each call that names what is held by its id, made in a worker's name."""
        lock, reservation, permit = self.lock, self.reservation, self.permit
        token = {"item": lock.item, "worker": worker, "fencing_token": lock.fencing_token}
        yield api.engagement.RenewLock(engagement_pb2.RenewLockRequest(**token))
        yield api.reservation.RenewReservation(
            reservation_pb2.RenewReservationRequest(reservation_id=reservation.reservation_id, worker=worker)
        )
        yield api.bundle.RenewBundle(
            bundle_pb2.RenewBundleRequest(bundle_id=self.bundle.bundle_id, worker=worker)
        )
        usage = {
            "permit_id": permit.permit_id,
            "endpoint": "post",
            "result": rate_limit_pb2.USAGE_RESULT_NOT_SENT,
        }
        yield api.rate_limit.RecordUsage(rate_limit_pb2.RecordUsageRequest(worker=worker, **usage))
        yield api.rate_limit.CancelSchedule(
            rate_limit_pb2.CancelScheduleRequest(booking_id=self.booking.booking_id, worker=worker)
        )
        yield api.engagement.ReleaseLock(
            engagement_pb2.ReleaseLockRequest(outcome=engagement_pb2.OUTCOME_FAILURE, **token)
        )
        yield api.reservation.ReleaseResource(
            reservation_pb2.ReleaseResourceRequest(reservation_id=reservation.reservation_id, worker=worker)
        )
        yield api.bundle.ReleaseBundle(
            bundle_pb2.ReleaseBundleRequest(
                bundle_id=self.bundle.bundle_id, worker=worker, outcome=engagement_pb2.OUTCOME_FAILURE
            )
        )


async def test_what_is_anothers_is_no_use_in_ones_own_name(
    guarded: Daemon, channel: grpc.aio.Channel, time_source: TimeSource
) -> None:
    """Bookings, sessions, parts of bundles and request ids of others, named by one that has its own."""
    bots, rivals = api_of(channel, "bots"), api_of(channel, "rivals")
    held = await Held.by(bots, "bot-1")
    stream, registered = await bots.connect("bot-1")
    own = await rivals.bundle.AcquireBundle(bundle_of("rival-1", "own", request_id="r"))
    permit = rate_limit_pb2.CanMakeRequestRequest(
        endpoint="post", worker="rival-1", booking_id=held.booking.booking_id
    )
    usage = bundle_pb2.PermitUsage(
        endpoint="post", permit_id=held.permit.permit_id, result=rate_limit_pb2.USAGE_RESULT_NOT_SENT
    )
    outcome = bundle_pb2.LockOutcome(
        fencing_token=held.lock.fencing_token, outcome=engagement_pb2.OUTCOME_SUCCESS
    )
    mine = {"bundle_id": own.granted.bundle_id, "worker": "rival-1"}
    async with nothing_changes(guarded, time_source):
        assert (await refusal(rivals.rate_limit.CanMakeRequest(permit)))[1] == "NOT_HOLDER"
        for part in ({"usages": [usage]}, {"outcomes": [outcome]}):
            release = bundle_pb2.ReleaseBundleRequest(**mine, outcome=engagement_pb2.OUTCOME_FAILURE, **part)
            assert (await refusal(rivals.bundle.ReleaseBundle(release)))[1] == "NOT_HOLDER"
    # One that is not its own is none: a session of its own begins, and the other's goes on.
    _, begun = await rivals.connect("rival-1", session_id=registered.session_id)
    assert (begun.resumed, list(begun.held)) == (False, [])
    await stream.write(session_pb2.ConnectRequest(keepalive=session_pb2.Keepalive()))
    assert (await stream.read()).HasField("kept_alive")
    # A request id is its worker's: the same of another is another.
    other = await bots.bundle.AcquireBundle(bundle_of("bot-1", "other", request_id="r"))
    assert other.granted.bundle_id != own.granted.bundle_id
