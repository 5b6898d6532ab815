"""Bad input: each has its documented status with one ErrorInfo, and nothing changes."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from daemon_api import Api, TimeSource, length, nothing_changes, refusal, stream_refusal, until
from google.protobuf.duration_pb2 import Duration

from coordd.config import load
from coordd.server import OPTIONS, Daemon
from coordd.v1 import admin_pb2 as admin
from coordd.v1 import engagement_pb2 as engagement
from coordd.v1 import rate_limit_pb2 as rate_limit
from coordd.v1 import reservation_pb2 as reservation


class Scene(NamedTuple):
    """What there is before the bad call: a lock, an ended lock, a reservation, units, a permit, a booking."""

    lock: Any
    released: Any
    lost: Any
    resource: Any
    units: Any
    permit: Any
    booking: Any


@pytest.fixture
async def scene(api: Api) -> Scene:
    released = await api.lock("w1", "released")
    await api.unlock(released)
    lost = await api.lock("w1", "lost")
    await api.admin.ForceRelease(admin.ForceReleaseRequest(id=lost.fencing_token, reason="test"))
    return Scene(
        lock=await api.lock("w1", "held", request_id="lock-1"),
        released=released,
        lost=lost,
        resource=await api.reserve("memory", resource_id="m1"),
        units=await api.reserve("burst", units=2),
        permit=await api.permit("post"),
        booking=await api.book("post"),
    )


@pytest.fixture
async def unchanged(daemon: Daemon, scene: Scene, time_source: TimeSource) -> AsyncIterator[None]:
    """The whole state after the test is what it was before, ids given included."""
    assert scene
    async with nothing_changes(daemon, time_source):
        yield


def lock(**fields: Any) -> engagement.RequestLockRequest:
    return engagement.RequestLockRequest(**{"item": "i", "worker": "w", "kind": "like"} | fields)


def wait(**fields: Any) -> engagement.AwaitLockRequest:
    return engagement.AwaitLockRequest(**{"item": "held", "worker": "w", "kind": "like"} | fields)


def reserve(**fields: Any) -> reservation.ReserveResourceRequest:
    return reservation.ReserveResourceRequest(**{"type": "slot", "worker": "w"} | fields)


def permit(**fields: Any) -> rate_limit.CanMakeRequestRequest:
    return rate_limit.CanMakeRequestRequest(**{"endpoint": "post", "worker": "w"} | fields)


def usage(**fields: Any) -> rate_limit.RecordUsageRequest:
    given = {"endpoint": "post", "worker": "w1", "permit_id": 1, "result": 1}
    return rate_limit.RecordUsageRequest(**given | fields)


def release(lock_: Any, **fields: Any) -> engagement.ReleaseLockRequest:
    given = {"item": lock_.item, "worker": lock_.worker, "fencing_token": lock_.fencing_token, "outcome": 1}
    return engagement.ReleaseLockRequest(**given | fields)


def renew(lock_: Any, **fields: Any) -> engagement.RenewLockRequest:
    given = {"item": lock_.item, "worker": lock_.worker, "fencing_token": lock_.fencing_token}
    return engagement.RenewLockRequest(**given | fields)


def window(seconds: int, limit: int) -> admin.WindowLimit:
    return admin.WindowLimit(window=length(seconds), limit=limit)


NEVER = 2**63 - 1
LONG = "x" * 513
# Not base64; another list's; base64 of nothing.
FOREIGN = ("?", "bG9ja3M6MQ==", "AAAA")
ABSURD = Duration(seconds=2**62)
INVALID, LATE, NONE, RANGE = "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "OUT_OF_RANGE"

# What is wrong whatever there is: (code, reason, message).
FORMS: list[tuple[str, str, Any]] = [
    (INVALID, "INVALID_ID", lock(item="")),
    (INVALID, "INVALID_ID", lock(item=LONG)),
    (INVALID, "INVALID_ID", lock(item="a\nb")),
    (INVALID, "INVALID_ID", lock(item="\u202eb")),
    (INVALID, "INVALID_ID", lock(worker="")),
    (INVALID, "INVALID_ID", lock(worker="x" * 129)),
    (INVALID, "INVALID_ID", lock(kind="")),
    (INVALID, "INVALID_ID", lock(request_id="x" * 129)),
    (INVALID, "INVALID_ID", lock(request_id="\x00")),
    (INVALID, "INVALID_ID", reserve(worker="")),
    (INVALID, "INVALID_ID", reserve(resource_id=LONG)),
    (INVALID, "INVALID_ID", permit(worker="\t")),
    (INVALID, "INVALID_ID", permit(endpoint="")),
    (INVALID, "INVALID_ID", reservation.ReserveApiQuotaRequest(worker="", operation="tweet")),
    (INVALID, "INVALID_ID", engagement.GetLockRequest(item=LONG)),
    (INVALID, "INVALID_ID", admin.ForceReleaseRequest(id=1)),
    (INVALID, "INVALID_ID", admin.ForceReleaseRequest(id=1, reason=LONG)),
    (INVALID, "INVALID_DURATION", lock(ttl=length(0))),
    (INVALID, "INVALID_DURATION", lock(ttl=length(-1))),
    (INVALID, "INVALID_DURATION", lock(ttl=length(0.099))),
    (INVALID, "INVALID_DURATION", lock(ttl=length(86_400.001))),
    (INVALID, "INVALID_DURATION", lock(ttl=ABSURD)),
    (INVALID, "INVALID_DURATION", lock(ttl=Duration(seconds=1, nanos=-1))),
    (INVALID, "INVALID_DURATION", lock(ttl=Duration(seconds=1, nanos=10**9))),
    (INVALID, "INVALID_DURATION", reserve(ttl=length(-5))),
    (INVALID, "INVALID_DURATION", engagement.HasRecentEngagementRequest(item="i", within=ABSURD)),
    (INVALID, "INVALID_DURATION", engagement.GetEngagementStatsRequest(within=length(-1))),
    (
        INVALID,
        "INVALID_DURATION",
        rate_limit.ScheduleRequestRequest(endpoint="post", worker="w", not_before=length(90_000)),
    ),
    (INVALID, "INVALID_QUALITY", lock(quality=math.nan)),
    (INVALID, "INVALID_QUALITY", lock(quality=-0.1)),
    (INVALID, "INVALID_QUALITY", lock(quality=math.inf)),
    (INVALID, "INVALID_ENUM", lock(priority=5)),
    (INVALID, "INVALID_ENUM", permit(priority=-1)),
    (INVALID, "INVALID_ENUM", engagement.ReleaseLockRequest(item="i", worker="w", fencing_token=1)),
    (INVALID, "INVALID_ENUM", usage(result=0)),
    (INVALID, "INVALID_ENUM", usage(result=99)),
    (INVALID, "INVALID_COUNT", usage(status_code=42)),
    (INVALID, "NO_POOL", reserve(type="memory", resource_id="m2", units=1)),
    (INVALID, "INVALID_COUNT", admin.UpdatePoolRequest(name="small")),
    (INVALID, "INVALID_COUNT", admin.UpdatePoolRequest(name="small", capacity=2**32 - 1)),
    (INVALID, "INVALID_COUNT", admin.UpdatePoolRequest(name="small", windows=[window(60, 1)])),
    (INVALID, "INVALID_COUNT", admin.UpdatePoolRequest(name="burst", capacity=1)),
    (INVALID, "INVALID_COUNT", admin.UpdateLimitRequest(endpoint="post")),
    (INVALID, "INVALID_COUNT", admin.UpdateLimitRequest(endpoint="post", windows=[window(900, 0)])),
    (INVALID, "INVALID_HEADERS", usage(headers=[rate_limit.Header(name="")])),
    (INVALID, "INVALID_HEADERS", usage(headers=[rate_limit.Header(name="x", value="y" * 4097)])),
    (INVALID, "INVALID_HEADERS", usage(headers=[rate_limit.Header(name="x")] * 101)),
    (INVALID, "INVALID_PAGE", engagement.ListLocksRequest(page_size=1001)),
    (INVALID, "INVALID_PAGE", engagement.ListLocksRequest(page_token=FOREIGN[0])),
    (INVALID, "INVALID_PAGE", reservation.ListReservationsRequest(page_token=FOREIGN[1])),
    (INVALID, "INVALID_PAGE", admin.ListPoolsRequest(page_token=FOREIGN[2])),
    (INVALID, "UNKNOWN_KIND", lock(kind="nope")),
    (INVALID, "UNKNOWN_KIND", engagement.GetLockRequest(item="i", kind="nope")),
    (INVALID, "UNKNOWN_KIND", engagement.HasRecentEngagementRequest(item="i", kinds=["nope"])),
    (INVALID, "UNKNOWN_TYPE", reserve(type="nope")),
    (INVALID, "UNKNOWN_TYPE", reservation.CheckAvailabilityRequest(type="nope")),
    (INVALID, "UNKNOWN_OPERATION", reserve(type="api_quota", resource_id="ü" * 256)),
    (INVALID, "UNKNOWN_OPERATION", reservation.ReserveApiQuotaRequest(worker="w", operation="nope")),
    (INVALID, "UNKNOWN_ENDPOINT", permit(endpoint="nope")),
    (INVALID, "UNKNOWN_ENDPOINT", rate_limit.GetRemainingCapacityRequest(endpoint="nope")),
    (INVALID, "UNKNOWN_ENDPOINT", rate_limit.GetWorkerAllocationRequest(endpoint="nope", worker="w")),
    (INVALID, "UNKNOWN_ENDPOINT", rate_limit.ScheduleRequestRequest(endpoint="nope", worker="w")),
    (INVALID, "UNKNOWN_WINDOW", admin.UpdateLimitRequest(endpoint="post", windows=[window(60, 1)])),
    (INVALID, "CONTRADICTING_WINDOWS", admin.UpdateLimitRequest(endpoint="post", windows=[window(900, 6)])),
    (
        INVALID,
        "CONTRADICTING_WINDOWS",
        admin.UpdateLimitRequest(endpoint="post", windows=[window(900, 1)] * 2),
    ),
    (INVALID, "INVALID_ID", reserve(type="memory")),
    (NONE, "UNKNOWN_POOL", admin.UpdatePoolRequest(name="nope", capacity=1)),
    (NONE, "UNKNOWN_ENDPOINT", admin.UpdateLimitRequest(endpoint="nope", windows=[window(900, 1)])),
    (NONE, "UNKNOWN_ID", admin.ForceReleaseRequest(id=NEVER, reason="test")),
    (NONE, "UNKNOWN_ID", renew(engagement.Lock(item="i", worker="w", fencing_token=NEVER))),
    (NONE, "UNKNOWN_ID", renew(engagement.Lock(item="i", worker="w", fencing_token=2**64 - 1))),
    (NONE, "UNKNOWN_ID", release(engagement.Lock(item="i", worker="w", fencing_token=NEVER))),
    (NONE, "UNKNOWN_ID", release(engagement.Lock(item="i", worker="w", fencing_token=0))),
    (NONE, "UNKNOWN_ID", reservation.RenewReservationRequest(reservation_id=NEVER, worker="w")),
    (NONE, "UNKNOWN_ID", reservation.ReleaseResourceRequest(reservation_id=NEVER, worker="w")),
    (NONE, "UNKNOWN_ID", usage(permit_id=NEVER)),
    (NONE, "UNKNOWN_ID", rate_limit.CancelScheduleRequest(booking_id=NEVER, worker="w")),
    (NONE, "UNKNOWN_ID", permit(booking_id=NEVER)),
    (RANGE, "UNITS_ABOVE_CAPACITY", reserve(units=4)),
    (RANGE, "UNITS_ABOVE_CAPACITY", reserve(units=2**32 - 1)),
    (RANGE, "UNITS_ABOVE_CAPACITY", reserve(type="burst", units=5)),
    (RANGE, "UNITS_ABOVE_CAPACITY", reservation.CheckAvailabilityRequest(type="slot", units=4)),
    (
        RANGE,
        "UNITS_ABOVE_CAPACITY",
        reservation.ReserveApiQuotaRequest(worker="w", operation="tweet", units=51),
    ),
    (RANGE, "PERMITS_ABOVE_LIMIT", permit(permits=4)),
    (RANGE, "PERMITS_ABOVE_LIMIT", permit(permits=2**32 - 1)),
    (RANGE, "PERMITS_ABOVE_LIMIT", rate_limit.ScheduleRequestRequest(endpoint="post", worker="w", permits=4)),
]

# What is wrong with regard to what there is.
CLAIMS: list[tuple[str, str, Callable[[Scene], Any]]] = [
    (LATE, "LEASE_LOST", lambda scene: renew(scene.released)),
    (LATE, "LEASE_LOST", lambda scene: renew(scene.lost)),
    (LATE, "LEASE_LOST", lambda scene: release(scene.lost)),
    (LATE, "NOT_HOLDER", lambda scene: release(scene.lock, worker="w2")),
    (LATE, "NOT_HOLDER", lambda scene: release(scene.lock, item="other")),
    (LATE, "NOT_HOLDER", lambda scene: release(scene.released, worker="w2")),
    (LATE, "NOT_HOLDER", lambda scene: renew(scene.lock, worker="w2")),
    (
        LATE,
        "NOT_HOLDER",
        lambda scene: reservation.ReleaseResourceRequest(
            reservation_id=scene.resource.reservation_id, worker="w2"
        ),
    ),
    (
        LATE,
        "NOT_HOLDER",
        lambda scene: reservation.RenewReservationRequest(
            reservation_id=scene.resource.reservation_id, worker="w2"
        ),
    ),
    (
        INVALID,
        "INVALID_COUNT",
        lambda scene: reservation.ReleaseResourceRequest(
            reservation_id=scene.resource.reservation_id, worker="w1", unused_units=1
        ),
    ),
    (
        INVALID,
        "INVALID_COUNT",
        lambda scene: reservation.ReleaseResourceRequest(
            reservation_id=scene.units.reservation_id, worker="w1", unused_units=3
        ),
    ),
    (
        INVALID,
        "NOT_RENEWABLE",
        lambda scene: reservation.RenewReservationRequest(
            reservation_id=scene.units.reservation_id, worker="w1"
        ),
    ),
    (LATE, "NOT_HOLDER", lambda scene: usage(permit_id=scene.permit.permit_id, worker="w2")),
    (LATE, "NOT_HOLDER", lambda scene: usage(permit_id=scene.permit.permit_id, endpoint="brief")),
    (LATE, "NOT_HOLDER", lambda scene: permit(booking_id=scene.booking.booking_id, worker="w2")),
    (
        LATE,
        "NOT_HOLDER",
        lambda scene: rate_limit.CancelScheduleRequest(booking_id=scene.booking.booking_id, worker="w2"),
    ),
    (
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
        lambda scene: lock(item=scene.lock.item + "x", worker="w1", request_id="lock-1"),
    ),
    ("ALREADY_EXISTS", "REQUEST_ID_REUSED", lambda _: permit(worker="w1", request_id="lock-1")),
]


def call_of(api: Api, request: Any) -> Any:
    """Call the method that takes this message."""
    name = type(request).__name__.removesuffix("Request")
    stubs = (api.engagement, api.reservation, api.rate_limit, api.admin)
    method = next(getattr(stub, name) for stub in stubs if hasattr(stub, name))
    return method(request)


def said(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("code", "reason", "request_"), FORMS, ids=said)
async def test_a_wrong_form(api: Api, code: str, reason: str, request_: Any) -> None:
    assert (await refusal(call_of(api, request_)))[:2] == (code, reason)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("code", "reason", "request_"), CLAIMS, ids=said)
async def test_a_wrong_claim(
    api: Api, scene: Scene, code: str, reason: str, request_: Callable[[Scene], Any]
) -> None:
    assert (await refusal(call_of(api, request_(scene))))[:2] == (code, reason)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("code", "reason", "request_"),
    [
        (INVALID, "INVALID_ID", wait(item="")),
        (INVALID, "INVALID_DURATION", wait(wait_timeout=length(0))),
        (INVALID, "INVALID_DURATION", wait(wait_timeout=length(-1))),
        (INVALID, "INVALID_DURATION", wait(wait_timeout=length(86_401))),
        (INVALID, "INVALID_QUALITY", wait(quality=math.nan)),
        (INVALID, "UNKNOWN_KIND", wait(kind="nope")),
        (
            RANGE,
            "UNITS_ABOVE_CAPACITY",
            reservation.AwaitReservationRequest(type="slot", worker="w", units=4),
        ),
        (INVALID, "UNKNOWN_TYPE", reservation.AwaitReservationRequest(type="nope", worker="w")),
        (RANGE, "PERMITS_ABOVE_LIMIT", rate_limit.AwaitPermitRequest(endpoint="post", worker="w", permits=4)),
        (INVALID, "UNKNOWN_ENDPOINT", rate_limit.AwaitPermitRequest(endpoint="nope", worker="w")),
        (INVALID, "INVALID_ENUM", wait(on_conflict=4)),
        (
            INVALID,
            "INVALID_ENUM",
            reservation.AwaitReservationRequest(type="slot", worker="w", on_conflict=4),
        ),
        (INVALID, "INVALID_ENUM", admin.WatchEventsRequest(subjects=[10])),
        (INVALID, "INVALID_ENUM", admin.WatchEventsRequest(types=[0])),
    ],
    ids=said,
)
async def test_a_wrong_form_of_a_stream(api: Api, code: str, reason: str, request_: Any) -> None:
    assert (await stream_refusal(call_of(api, request_)))[:2] == (code, reason)


@pytest.mark.usefixtures("unchanged")
async def test_a_refusal_that_is_normal_business_changes_nothing_either(api: Api) -> None:
    assert (await call_of(api, lock(item="held"))).HasField("refused")
    assert (await call_of(api, reserve(type="memory", resource_id="m1"))).HasField("refused")
    assert (await call_of(api, permit(permits=3))).HasField("refused")


@pytest.mark.usefixtures("unchanged")
async def test_a_message_that_is_too_large(api: Api) -> None:
    request = lock(item="x" * (2 * 1024 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.engagement.RequestLock(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"])
async def test_bytes_that_are_no_message(api: Api, data: bytes) -> None:
    method = api.channel.unary_unary("/coordd.v1.EngagementService/RequestLock")
    assert (await refusal(method(data)))[:2] == (INVALID, "INVALID_MESSAGE")


@pytest.mark.usefixtures("unchanged")
async def test_a_method_that_is_not_there(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.channel.unary_unary("/coordd.v1.EngagementService/Nope")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("method", ["AwaitLock", "RequestLock"])
async def test_a_stream_that_is_opened_and_never_asks(api: Api, method: str) -> None:
    open_ = api.channel.stream_stream(f"/coordd.v1.EngagementService/{method}")
    stream = open_(timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await api.admin.GetStatus(admin.GetStatusRequest())).waiters == 0


@pytest.mark.usefixtures("unchanged")
async def test_unknown_fields_are_ignored(api: Api) -> None:
    method = api.channel.unary_unary("/coordd.v1.EngagementService/GetLock")
    raw = engagement.GetLockRequest(item="held").SerializeToString() + b"\xfa\x7f\x03abc"
    response = engagement.GetLockResponse.FromString(await method(raw))
    assert response.state == engagement.ITEM_STATE_IN_PROGRESS


class BlackHole:
    """Stands between a client and the daemon, and can stop passing anything on, without closing anything."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def swallow(self) -> None:
        self._is_open.clear()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, upstream_writer]
        for source, sink in ((reader, upstream_writer), (upstream_reader, writer)):
            self._tasks.append(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await self._is_open.wait()
            sink.write(data)
            await sink.drain()


# The daemon's own, but shorter, as nobody wants to wait for 20 s.
IMPATIENT = {
    "grpc.keepalive_time_ms": 500,
    "grpc.keepalive_timeout_ms": 300,
    "grpc.http2.ping_timeout_ms": 300,
}


async def test_a_peer_that_is_gone_without_a_word_loses_its_wait(config: Path) -> None:
    assert IMPATIENT.keys() <= OPTIONS.keys()
    daemon = Daemon(load(config, {}), options=IMPATIENT)
    await daemon.start()
    hole = BlackHole(daemon.address)
    async with hole as address, grpc.aio.insecure_channel(daemon.address) as channel:
        api = Api(channel)
        lock = await api.lock("w1")
        async with grpc.aio.insecure_channel(address) as dead:
            stream = Api(dead).await_lock("w2")
            assert (await stream.read()).HasField("queued")
            hole.swallow()

            async def is_found_out() -> bool:
                return (await api.admin.GetStatus(admin.GetStatusRequest())).waiters == 0

            await until(is_found_out)
            await api.unlock(lock)
            assert (await api.lock("w3")).worker == "w3"
            stream.cancel()
    await daemon.stop(0)
