"""Two fleets, one daemon: neither sees or changes anything of the other, whatever is called alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, DaemonProcess, failure, refusal, stream_refusal
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from namespace_api import BLUE, fleets, in_namespace

from coordd import rpc
from coordd.config import load
from coordd.server import Daemon
from coordd.v1 import admin_pb2 as pb
from coordd.v1 import common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon within this process with the namespaces `default` and `blue`."""
    daemon = Daemon(load(fleets(tmp_path), {}))
    await daemon.start()
    yield daemon
    await daemon.stop(0)


@pytest.fixture
async def channel(two: Daemon) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(two.address) as channel:
        yield channel


@pytest.fixture
def api(channel: grpc.aio.Channel) -> Api:
    """The stubs of a client that knows nothing of namespaces."""
    return Api(channel)


@pytest.fixture
def blue(channel: grpc.aio.Channel) -> Api:
    return in_namespace(channel, "blue")


async def test_the_same_names_are_different_things(api: Api, blue: Api) -> None:
    for each in (api, blue):
        await each.lock("w1", "tweet:1")
        await each.reserve("slot", "w1", resource_id="r", units=1)
        await each.permit(permits=2)
    # And what is left is counted in each by its own rules.
    assert (await blue.rate_limit.CanMakeRequest(_ask("post"))).HasField("refused")
    assert (await api.rate_limit.CanMakeRequest(_ask("post"))).HasField("granted")
    assert (await blue.rate_limit.CanMakeRequest(_ask("only_in_blue"))).HasField("granted")
    assert await refusal(api.rate_limit.CanMakeRequest(_ask("only_in_blue"))) == (
        "INVALID_ARGUMENT",
        "UNKNOWN_ENDPOINT",
        {"endpoint": "only_in_blue"},
    )


def _ask(endpoint: str) -> Message:
    return rate_limit_pb2.CanMakeRequestRequest(endpoint=endpoint, worker="w2")


async def test_a_request_id_of_one_is_new_in_the_other(api: Api, blue: Api) -> None:
    mine = await api.lock("w1", "tweet:1", request_id="r")
    theirs = await blue.lock("w1", "tweet:2", request_id="r")
    assert (mine.item, theirs.item) == ("tweet:1", "tweet:2")


async def test_what_one_was_given_is_nothing_in_the_other(api: Api, blue: Api) -> None:
    lock = await api.lock("w1", "tweet:1")
    held = await api.reserve("slot", "w1")
    permit = await api.permit()
    booking = await api.book()
    calls = {
        blue.engagement.ReleaseLock: engagement_pb2.ReleaseLockRequest(
            item="tweet:1",
            worker="w1",
            fencing_token=lock.fencing_token,
            outcome=engagement_pb2.OUTCOME_SUCCESS,
        ),
        blue.engagement.RenewLock: engagement_pb2.RenewLockRequest(
            item="tweet:1", worker="w1", fencing_token=lock.fencing_token
        ),
        blue.reservation.RenewReservation: reservation_pb2.RenewReservationRequest(
            reservation_id=held.reservation_id, worker="w1"
        ),
        blue.admin.ForceRelease: pb.ForceReleaseRequest(id=booking.booking_id, reason="r"),
    }
    for call, request in calls.items():
        code, reason, _ = await refusal(call(request))
        assert (code, reason) in {("NOT_FOUND", "UNKNOWN_ID"), ("FAILED_PRECONDITION", "LEASE_LOST")}, request
    # A report on what may have been given once is no error anywhere; it settles nothing here.
    usage = rate_limit_pb2.RecordUsageRequest(
        endpoint="post",
        permit_id=permit.permit_id,
        worker="w1",
        result=rate_limit_pb2.USAGE_RESULT_SUCCESS,
    )
    with suppress(grpc.aio.AioRpcError):
        assert (await blue.rate_limit.RecordUsage(usage)).already_settled
    status = await api.admin.GetStatus(pb.GetStatusRequest())
    assert (status.locks, status.reservations, status.permits, status.bookings) == (1, 1, 1, 1)


async def test_one_sees_nothing_of_the_other(api: Api, blue: Api) -> None:
    watch = blue.admin.WatchEvents(pb.WatchEventsRequest())
    await watch.initial_metadata()
    lock = await api.lock("w1", "tweet:1", "like")
    waiting = api.await_lock(
        "w2", "tweet:1", "like", request_id="q", on_conflict=common_pb2.ON_CONFLICT_ESCALATE
    )
    assert (await waiting.read()).HasField("queued")
    await api.reserve("slot", "w1")
    stream, _ = await api.connect("w3")
    await api.unlock(lock, engagement_pb2.OUTCOME_SUCCESS)
    answers = [
        await blue.engagement.ListLocks(engagement_pb2.ListLocksRequest()),
        await blue.reservation.ListReservations(reservation_pb2.ListReservationsRequest()),
        await blue.admin.ListSessions(pb.ListSessionsRequest()),
        await blue.admin.ListEscalations(pb.ListEscalationsRequest()),
    ]
    assert [answer.ByteSize() for answer in answers] == [0] * len(answers)
    status = await blue.admin.GetStatus(pb.GetStatusRequest())
    counts = ("locks", "reservations", "waiters", "sessions", "escalations", "commands")
    assert [getattr(status, name) for name in counts] == [0] * len(counts)
    past = engagement_pb2.HasRecentEngagementRequest(item="tweet:1")
    past.within.FromSeconds(60)
    assert not (await blue.engagement.HasRecentEngagement(past)).engaged
    assert (await api.engagement.HasRecentEngagement(past)).engaged
    stats = engagement_pb2.GetEngagementStatsRequest()
    stats.within.FromSeconds(60)
    assert (await blue.engagement.GetEngagementStats(stats)).total == 0
    assert (await api.engagement.GetEngagementStats(stats)).total == 1
    # The first that its watch sees is its own.
    await blue.lock("w9", "mine")
    assert (await watch.read()).name == "mine"
    for call in (watch, waiting, stream):
        call.cancel()


async def test_one_drains_and_the_other_grants(api: Api, blue: Api) -> None:
    await blue.admin.Drain(pb.DrainRequest(reason="maintenance"))
    assert (await refusal(blue.lock()))[:2] == ("UNAVAILABLE", "DRAINING")
    await api.lock()
    assert not (await api.admin.GetStatus(pb.GetStatusRequest())).draining


async def test_a_session_is_of_its_namespace(api: Api, blue: Api) -> None:
    streams = [(await each.connect("w1"))[0] for each in (api, blue)]
    for each in (api, blue):
        [session] = (await each.admin.ListSessions(pb.ListSessionsRequest())).sessions
        assert session.connected
    for stream in streams:
        stream.cancel()


UNKNOWN = ("NOT_FOUND", "UNKNOWN_NAMESPACE", {"namespace": "green"})


async def test_an_unknown_one_is_refused_and_nothing_is_told_of_the_others(channel: Any) -> None:
    green = in_namespace(channel, "green")
    assert await refusal(green.lock()) == UNKNOWN
    assert await refusal(green.admin.GetStatus(pb.GetStatusRequest())) == UNKNOWN
    assert await stream_refusal(green.await_lock("w1")) == UNKNOWN
    session = green.session.Connect()
    await session.write(session_pb2.ConnectRequest(register=session_pb2.Register(worker="w1")))
    assert await stream_refusal(session) == UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await green.lock()
    assert caught.value.details() == "There is no namespace 'green'."


async def test_to_name_the_default_is_to_name_none(api: Api, channel: Any) -> None:
    await api.lock("w1", "tweet:1")
    named = await in_namespace(channel, "default").engagement.ListLocks(engagement_pb2.ListLocksRequest())
    assert [lock.item for lock in named.locks] == ["tweet:1"]


async def test_the_health_of_each_can_be_asked_for(channel: Any) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", *rpc.SERVICES, "namespace/default", "namespace/blue"):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING


async def test_who_fills_the_daemon_is_refused_and_not_its_neighbour(
    two: Daemon, api: Api, blue: Api
) -> None:
    places = [two.admission.admit(namespace="blue") for _ in range(two.admission.limit)]
    assert (await refusal(blue.lock()))[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    await api.lock()
    assert (await refusal(blue.lock()))[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    for place in places:
        assert place is not None
        place.leave()
    await blue.lock()
    assert two.admission.in_progress == 0


# ---- as a process


async def test_both_are_there_after_a_crash_each_in_its_own_file(tmp_path: Path) -> None:
    config = fleets(tmp_path)
    first = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(first.address) as channel:
        mine = await Api(channel).lock("w1", "tweet:1", request_id="r")
        theirs = await in_namespace(channel, "blue").lock("w1", "tweet:1", request_id="r")
    first.process.kill()
    await first.process.communicate()
    assert {path.name for path in (tmp_path / "data").glob("*.db")} == {"coordd.db", "blue.db"}
    second = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(second.address) as channel:
        again = [
            await each.lock("w1", "tweet:1", request_id="r")
            for each in (Api(channel), in_namespace(channel, "blue"))
        ]
    assert [lock.fencing_token for lock in again] == [mine.fencing_token, theirs.fencing_token]
    code, errors = await second.stop()
    assert code == 0
    serving = [line for line in errors.splitlines() if "] serving " in line]
    assert [f"namespace={name}" in line for name, line in zip(("default", "blue"), serving, strict=True)]
    assert all("locks=1" in line for line in serving)


async def test_one_at_its_quota_leaves_the_other_untouched(tmp_path: Path) -> None:
    daemon = Daemon(load(fleets(tmp_path, BLUE + "[quotas]\nleases = 3\nwaiters = 1\nsessions = 1\n"), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        api, blue = Api(channel), in_namespace(channel, "blue")
        await blue.lock("w1", "a")
        waiting = blue.await_lock("w2", "a")
        assert (await waiting.read()).HasField("queued")
        stream, _ = await blue.connect("w1")
        exceeded = ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert await stream_refusal(blue.await_lock("w3", "a")) == (
            *exceeded,
            {"quota": "waiters", "limit": "1"},
        )
        another = blue.session.Connect()
        await another.write(session_pb2.ConnectRequest(register=session_pb2.Register(worker="w2")))
        assert await stream_refusal(another) == (*exceeded, {"quota": "sessions", "limit": "1"})
        await blue.lock("w1", "b")
        assert await refusal(blue.lock("w1", "c")) == (*exceeded, {"quota": "leases", "limit": "3"})
        status = await blue.admin.GetStatus(pb.GetStatusRequest())
        taken = [(each.quota, each.used, each.limit) for each in status.quotas]
        assert taken == [("leases", 3, 3), ("waiters", 1, 1), ("sessions", 1, 1)]
        assert not (await api.admin.GetStatus(pb.GetStatusRequest())).quotas
        for item in "abcd":
            await api.lock("w1", item)
            assert (await api.await_lock("w2", item).read()).HasField("queued")
        waiting.cancel()
        stream.cancel()
    await daemon.stop(0)


async def test_calls_beyond_a_quota_are_refused_and_what_gives_back_is_not(tmp_path: Path) -> None:
    daemon = Daemon(load(fleets(tmp_path, BLUE + "[quotas]\ncalls = 2\ncalls_per_second = 4\n"), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        api, blue = Api(channel), in_namespace(channel, "blue")
        lock = await blue.lock("w1", "a")
        waits = [blue.await_lock(worker, "a", request_id="r") for worker in ("w2", "w3")]
        for wait in waits:
            assert (await wait.read()).HasField("queued")
        exceeded = ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert await refusal(blue.lock("w1", "b")) == (*exceeded, {"quota": "calls", "limit": "2"})
        for _ in range(8):
            await blue.engagement.RenewLock(
                engagement_pb2.RenewLockRequest(item="a", worker="w1", fencing_token=lock.fencing_token)
            )
            await blue.admin.GetStatus(pb.GetStatusRequest())
            await api.lock("w1", "a", request_id="r")
        await blue.unlock(lock)
        assert (await waits[0].read()).granted.worker == "w2"
        for wait in waits:
            wait.cancel()
    await daemon.stop(0)


async def test_a_rate_of_calls_is_a_quota_too(tmp_path: Path) -> None:
    daemon = Daemon(load(fleets(tmp_path, BLUE + "[quotas]\ncalls_per_second = 4\n"), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        calls = [in_namespace(channel, "blue").lock("w1", f"{number}") for number in range(12)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [failure(error) for error in answers if isinstance(error, grpc.aio.AioRpcError)]
        # A second's worth at once, and one more for each quarter of a second that they took.
        assert refused
        told = ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", {"quota": "calls_per_second", "limit": "4"})
        assert refused == [told] * len(refused)
        assert len(answers) - len(refused) >= 4
        for number in range(12):
            await Api(channel).lock("w1", f"{number}")
    await daemon.stop(0)


async def test_quotas_of_calls_are_those_of_the_last_reload(tmp_path: Path) -> None:
    daemon = Daemon(load(fleets(tmp_path), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        blue = in_namespace(channel, "blue")
        await blue.lock("w1", "a")
        await daemon.reload(load(fleets(tmp_path, f"{BLUE}[quotas]\ncalls = 1\n"), {}))
        waiting = blue.await_lock("w2", "a")
        assert (await waiting.read()).HasField("queued")
        assert (await refusal(blue.lock("w1", "b")))[1] == "QUOTA_EXCEEDED"
        await daemon.reload(load(fleets(tmp_path), {}))
        await blue.lock("w1", "b")
        waiting.cancel()
    await daemon.stop(0)
