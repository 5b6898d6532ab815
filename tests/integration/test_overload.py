"""A daemon that has too much to do, over real gRPC: its bound is one call, and its disk is made to wait.

Each test runs twice: with the door, and with a grpcio that has none, where the handlers apply the same rule.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, failure, rest, until

from coordd.config import load
from coordd.rpc import admission_door
from coordd.server import Daemon
from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, session_pb2

# A connection of its own for each channel.
POOL = [("grpc.use_local_subchannel_pool", 1)]


class Disk:
    """Stands before a daemon's store; while it is held, no commit ends."""

    def __init__(self, daemon: Daemon) -> None:
        self._store: Any = daemon.engine.store
        self._commit = self._store.commit
        self._store.commit = self._wait_and_commit
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self.waiting = asyncio.Event()

    def hold(self) -> None:
        self._goes_on.clear()
        self.waiting.clear()

    def go_on(self) -> None:
        self._goes_on.set()

    async def _wait_and_commit(self, batch: Any) -> None:
        self.waiting.set()
        await self._goes_on.wait()
        await self._commit(batch)


@pytest.fixture
def narrow(config: Path) -> Path:
    """A configuration that lets one call be in progress."""
    config.write_text(config.read_text().replace("[server]", "[server]\nmax_calls = 1"))
    return config


@pytest.fixture(params=["door", "handlers"])
async def daemon(request: Any, narrow: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """A daemon that takes one call at once."""
    if request.param == "handlers":
        monkeypatch.setattr(admission_door, "_NEEDED", ("what_this_grpcio_has_not",))
    daemon = Daemon(load(narrow, {}))
    assert daemon.door.is_possible == (request.param == "door")
    await daemon.start()
    yield daemon
    await daemon.stop(0)


@pytest.fixture
async def disk(daemon: Daemon) -> AsyncIterator[Disk]:
    """What the daemon writes to; it goes on at the end, so that the daemon can stop."""
    disk = Disk(daemon)
    yield disk
    disk.go_on()


def request(worker: str, priority: int = 0) -> engagement_pb2.RequestLockRequest:
    """Return a request for an item of its own."""
    return engagement_pb2.RequestLockRequest(item=worker, worker=worker, kind="analysis", priority=priority)


def critical(api: Api, request: engagement_pb2.RequestLockRequest) -> Any:
    """Call by the lane for CRITICAL requests."""
    return api.channel.unary_unary(
        "/coordd.v1.EngagementService.Critical/RequestLock",
        request_serializer=engagement_pb2.RequestLockRequest.SerializeToString,
        response_deserializer=engagement_pb2.RequestLockResponse.FromString,
    )(request)


def is_so(claim: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """Return a claim as `until` wants it."""

    async def claimed() -> bool:
        await asyncio.sleep(0)
        return claim()

    return claimed


async def refusal(call: Any) -> tuple[str, str, dict[str, str], float]:
    """Return how a call fails, and when it may be tried again, in seconds."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code, reason, metadata = failure(caught.value)
    trailers = dict(caught.value.trailing_metadata())
    return code, reason, metadata, int(trailers["grpc-retry-pushback-ms"]) / 1_000


async def begun(api: Api, disk: Disk, worker: str) -> asyncio.Task[Any]:
    """Begin a request that stays in progress until the disk goes on."""
    disk.hold()
    task = asyncio.ensure_future(api.engagement.RequestLock(request(worker)))
    await disk.waiting.wait()
    return task


async def test_one_too_many_is_refused_at_once_and_told_when_to_come_back(api: Api, disk: Disk) -> None:
    first = await begun(api, disk, "w1")
    code, reason, metadata, retry_s = await refusal(api.engagement.RequestLock(request("w2")))
    assert (code, reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert metadata == {"bound": "server.max_calls", "value": "1"}
    assert 0.1 <= retry_s < 0.2
    disk.go_on()
    assert (await first).HasField("granted")
    assert (await api.lock("w2", "w2")).worker == "w2"


async def test_questions_are_refused_likewise(api: Api, disk: Disk) -> None:
    first = await begun(api, disk, "w1")
    question = engagement_pb2.GetLockRequest(item="i")
    assert (await refusal(api.engagement.GetLock(question)))[1] == "OVERLOADED"
    disk.go_on()
    await first


async def test_renewals_and_releases_are_always_taken_on(api: Api, disk: Disk) -> None:
    held, renewed = await api.lock("w1"), await api.lock("w2", "other")
    first = await begun(api, disk, "w3")
    vital = [
        asyncio.ensure_future(api.unlock(held)),
        asyncio.ensure_future(
            api.engagement.RenewLock(
                engagement_pb2.RenewLockRequest(
                    item="other", worker="w2", fencing_token=renewed.fencing_token
                )
            )
        ),
    ]
    assert (await refusal(api.engagement.RequestLock(request("w4"))))[1] == "OVERLOADED"
    disk.go_on()
    await asyncio.gather(first, *vital)


async def test_critical_requests_have_a_reserve(api: Api, disk: Disk, daemon: Daemon) -> None:
    first = await begun(api, disk, "w1")
    second = asyncio.ensure_future(critical(api, request("w2", common_pb2.PRIORITY_CRITICAL)))
    await until(is_so(lambda: daemon.admission.critical == 1))
    third = request("w3", common_pb2.PRIORITY_CRITICAL)
    assert (await refusal(critical(api, third)))[1] == "OVERLOADED"
    disk.go_on()
    assert (await first).HasField("granted")
    assert (await second).HasField("granted")


async def test_who_comes_by_the_lane_and_is_not_critical_is_refused(api: Api, disk: Disk) -> None:
    first = await begun(api, disk, "w1")
    medium = request("w2", common_pb2.PRIORITY_MEDIUM)
    assert (await refusal(critical(api, medium)))[1] == "OVERLOADED"
    disk.go_on()
    await first


async def test_a_wait_in_a_queue_takes_no_place(api: Api, daemon: Daemon) -> None:
    lock = await api.lock("w1")
    second = api.await_lock("w2")
    assert (await second.read()).queued.position == 1
    third = api.await_lock("w3")
    assert (await third.read()).queued.position == 2
    assert daemon.admission.in_progress == 0
    await api.unlock(lock)
    *_, last = [event async for event in rest(second)]
    assert last.granted.worker == "w2"


async def test_a_call_that_is_cancelled_leaves_its_place(api: Api, disk: Disk, daemon: Daemon) -> None:
    first = await begun(api, disk, "w1")
    first.cancel()
    await asyncio.wait([first])
    disk.go_on()
    await until(is_so(lambda: daemon.admission.in_progress == 0))
    assert (await api.lock("w2", "w2")).worker == "w2"


async def test_calls_whose_messages_do_not_come_keep_no_place(api: Api, daemon: Daemon) -> None:
    if not daemon.door.is_possible:
        pytest.skip("without the door a place is taken when the message has come")
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        # As a stream to the same method, so that headers go and nothing follows.
        silent = channel.stream_stream("/coordd.v1.EngagementService/RequestLock")()
        await until(is_so(lambda: daemon.admission.in_progress == 1))
        await until(lambda: _is_granted(api))
        silent.cancel()


async def _is_granted(api: Api) -> bool:
    try:
        return (await api.engagement.RequestLock(request("w1"))).HasField("granted")
    except grpc.aio.AioRpcError:
        return False


async def test_only_so_many_may_watch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.engine.engine.WATCHERS_MAX", 1)
    first = api.admin.WatchEvents(admin_pb2.WatchEventsRequest())
    await first.initial_metadata()
    second = api.admin.WatchEvents(admin_pb2.WatchEventsRequest())
    assert (await refusal(second.read()))[:3] == ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHERS", {"limit": "1"})
    first.cancel()


async def test_only_so_many_wait_on_streams(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.engine.engine.STREAMS_MAX", 1)
    await api.lock("w1")
    first = api.await_lock("w2")
    assert (await first.read()).HasField("queued")
    code, reason, metadata, _ = await refusal(api.await_lock("w3").read())
    assert (code, reason, metadata) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", {"limit": "1"})
    first.cancel()


async def test_a_session_is_refused_more_than_it_may_keep(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.core.ledger.LEASES_PER_SESSION_MAX", 1)
    session = api.session.Connect()
    await session.write(session_pb2.ConnectRequest(register=session_pb2.Register(worker="w1")))
    assert (await session.read()).HasField("registered")
    await api.lock("w1", "a")
    code, reason, metadata, _ = await refusal(api.lock("w1", "b"))
    assert (code, reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_LEASES")
    assert metadata == {"worker": "w1", "limit": "1"}
    session.cancel()


async def test_beyond_all_bounds_even_what_is_vital_is_refused(
    narrow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.rpc.admission_door.CALLS_UNDER_WAY_MAX", 1)
    daemon = Daemon(load(narrow, {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        api = Api(channel)
        watch = api.admin.WatchEvents(admin_pb2.WatchEventsRequest())
        await watch.initial_metadata()
        call = api.admin.GetStatus(admin_pb2.GetStatusRequest())
        assert (await refusal(call))[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        watch.cancel()
    await daemon.stop(0)


async def test_only_so_many_connections_are_taken(narrow: Path) -> None:
    daemon = Daemon(load(narrow, {}), options={"grpc.max_allowed_incoming_connections": 1})
    await daemon.start()
    async with (
        grpc.aio.insecure_channel(daemon.address, options=POOL) as first,
        grpc.aio.insecure_channel(daemon.address, options=POOL) as second,
    ):
        await Api(first).admin.GetStatus(admin_pb2.GetStatusRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Api(second).admin.GetStatus(admin_pb2.GetStatusRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await Api(first).admin.GetStatus(admin_pb2.GetStatusRequest())
    await daemon.stop(0)


async def test_metadata_is_bounded(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.admin.GetStatus(admin_pb2.GetStatusRequest(), metadata=[("x", "y" * 17_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
