"""Waits over the wire: order, places, resuming, timeouts, and what a place is worth when the stream goes."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest
from daemon_api import Api, TimeSource, length, rest, stream_refusal, until

from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2


async def queued(stream: Any, position: int) -> Any:
    """Read the stream until it says this position."""
    while True:
        event = await stream.read()
        assert event.HasField("queued"), event
        if event.queued.position == position:
            return event.queued


async def granted(stream: Any) -> Any:
    """Read the stream until its grant, and then its end."""
    *queued, last = [event async for event in rest(stream)]
    assert all(event.HasField("queued") for event in queued)
    assert last.HasField("granted"), last
    return last.granted


async def gone(stream: Any) -> None:
    """Cancel a stream."""
    stream.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stream.read()


async def waiters(api: Api, present: int, away: int = 0) -> None:
    """Wait until so many wait, `away` of them without a stream."""

    async def is_so() -> bool:
        status = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
        return (status.waiters - status.waiters_away, status.waiters_away) == (present, away)

    await until(is_so)


async def test_a_free_lock_is_granted_without_a_wait(api: Api) -> None:
    stream = api.await_lock("w1")
    assert (await stream.read()).HasField("granted")
    assert await stream.read() == grpc.aio.EOF


async def test_a_waiter_hears_its_place_and_what_blocks_it_at_once(api: Api) -> None:
    lock = await api.lock("w1")
    stream = api.await_lock("w2", wait_timeout=length(60))
    place = (await stream.read()).queued
    assert place.position == 1
    assert place.blocked_by.reason == common_pb2.REFUSAL_REASON_HELD
    assert place.blocked_by.holder == "w1"
    assert 0 < place.times_out_in.ToSeconds() <= 60
    await api.unlock(lock)
    assert (await granted(stream)).fencing_token > lock.fencing_token


async def test_equals_go_in_order_of_arrival_and_hear_that_they_move_up(api: Api) -> None:
    lock = await api.lock("w0")
    first, second, third = (api.await_lock(worker) for worker in ("w1", "w2", "w3"))
    await queued(first, 1)
    await queued(second, 2)
    await queued(third, 3)
    await api.unlock(lock)
    lock = await granted(first)
    assert lock.worker == "w1"
    await queued(third, 2)
    await api.unlock(lock)
    lock = await granted(second)
    await api.unlock(lock)
    assert (await granted(third)).worker == "w3"


async def test_higher_classes_go_first_and_quality_decides_within_one(api: Api) -> None:
    lock = await api.lock("w0")
    asked = {
        "low": {"priority": common_pb2.PRIORITY_LOW},
        "medium": {},
        "better": {"quality": 1.0},
        "high": {"priority": common_pb2.PRIORITY_HIGH},
        "critical": {"priority": common_pb2.PRIORITY_CRITICAL},
    }
    streams = {}
    for count, (worker, more) in enumerate(asked.items(), 1):
        streams[worker] = api.await_lock(worker, **more)
        await waiters(api, count)
    for worker in ("critical", "high", "better", "medium", "low"):
        await api.unlock(lock)
        lock = await granted(streams[worker])
        assert lock.worker == worker


async def test_a_wait_ends_when_its_time_is_over(api: Api) -> None:
    await api.lock("w1")
    stream = api.await_lock("w2", wait_timeout=length(0.05))
    events = [event async for event in rest(stream)]
    assert events[0].HasField("queued")
    assert events[-1].refused.reason == common_pb2.REFUSAL_REASON_WAIT_TIMEOUT
    await waiters(api, 0)


async def test_a_lease_that_runs_out_goes_to_the_next(api: Api) -> None:
    lock = await api.lock("w1", ttl=length(0.1))
    assert (await granted(api.await_lock("w2"))).fencing_token > lock.fencing_token


async def test_without_a_request_id_a_cancelled_wait_is_over(api: Api) -> None:
    await api.lock("w1")
    stream = api.await_lock("w2")
    await queued(stream, 1)
    await gone(stream)
    await waiters(api, 0)


async def test_with_a_request_id_a_broken_stream_keeps_its_place(api: Api) -> None:
    lock = await api.lock("w1")
    stream = api.await_lock("w2", request_id="r")
    await queued(stream, 1)
    other = api.await_lock("w3")
    await queued(other, 2)
    await gone(stream)
    await waiters(api, 1, away=1)
    await queued(other, 1)
    resumed = api.await_lock("w2", request_id="r")
    await queued(resumed, 1)
    await queued(other, 2)
    await api.unlock(lock)
    lock = await granted(resumed)
    assert lock.worker == "w2"
    await api.unlock(lock)
    assert (await granted(other)).worker == "w3"


async def test_one_who_is_away_holds_nobody_up(api: Api) -> None:
    lock = await api.lock("w1")
    stream = api.await_lock("w2", request_id="r")
    await queued(stream, 1)
    other = api.await_lock("w3")
    await queued(other, 2)
    await gone(stream)
    await waiters(api, 1, away=1)
    await api.unlock(lock)
    assert (await granted(other)).worker == "w3"


async def test_a_second_stream_takes_the_wait_over_from_the_first(api: Api) -> None:
    lock = await api.lock("w1")
    first = api.await_lock("w2", request_id="r")
    await queued(first, 1)
    second = api.await_lock("w2", request_id="r")
    await queued(second, 1)
    events = [event async for event in rest(first)]
    assert events[-1].refused.reason == common_pb2.REFUSAL_REASON_SUPERSEDED
    await api.unlock(lock)
    assert (await granted(second)).worker == "w2"


async def test_a_request_id_gets_the_same_grant_again(api: Api) -> None:
    first = await granted(api.await_lock("w1", request_id="r"))
    assert (await granted(api.await_lock("w1", request_id="r"))).fencing_token == first.fencing_token
    assert (await api.lock("w1", request_id="r")).fencing_token == first.fencing_token


async def test_a_lost_channel_is_like_a_cancelled_stream(api: Api, daemon: Any) -> None:
    lock = await api.lock("w1")
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        await queued(Api(channel).await_lock("w2", request_id="r"), 1)
    await waiters(api, 0, away=1)
    await api.unlock(lock)
    assert (await granted(api.await_lock("w2", request_id="r"))).worker == "w2"


async def test_a_deadline_that_passes_is_like_a_cancelled_stream(api: Api) -> None:
    await api.lock("w1")
    request = engagement_pb2.AwaitLockRequest(item="i", worker="w2", kind="analysis")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in api.engagement.AwaitLock(request, timeout=0.1):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await waiters(api, 0)


async def test_drain_ends_waits_and_grants_nothing_but_lets_holders_finish(api: Api) -> None:
    lock = await api.lock("w1")
    stream = api.await_lock("w2", request_id="r")
    await queued(stream, 1)
    assert (await api.admin.Drain(admin_pb2.DrainRequest(reason="test"))).draining
    assert (await stream_refusal(stream))[:2] == ("UNAVAILABLE", "DRAINING")
    assert (await stream_refusal(api.await_lock("w3")))[:2] == ("UNAVAILABLE", "DRAINING")
    renewed = await api.engagement.RenewLock(
        engagement_pb2.RenewLockRequest(item="i", worker="w1", fencing_token=lock.fencing_token)
    )
    assert renewed.lock.fencing_token == lock.fencing_token
    assert not (await api.unlock(lock)).already_released
    status = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert (status.draining, status.waiters_away) == (True, 1)
    assert not (await api.admin.Drain(admin_pb2.DrainRequest(undo=True))).draining
    assert (await granted(api.await_lock("w2", request_id="r"))).worker == "w2"


def await_units(api: Api, worker: str, units: int) -> Any:
    request = reservation_pb2.AwaitReservationRequest(type="slot", worker=worker, units=units)
    return api.reservation.AwaitReservation(request)


async def test_units_wait_for_their_pool_and_large_requests_are_not_overtaken(api: Api) -> None:
    held = await api.reserve("slot", units=2)
    large = await_units(api, "w2", 3)
    place = await queued(large, 1)
    assert place.blocked_by.reason == common_pb2.REFUSAL_REASON_UNITS_TAKEN
    small = await_units(api, "w3", 1)
    await queued(small, 2)
    release = reservation_pb2.ReleaseResourceRequest(reservation_id=held.reservation_id, worker="w1")
    await api.reservation.ReleaseResource(release)
    held = await granted(large)
    assert (held.worker, held.units) == ("w2", 3)
    release = reservation_pb2.ReleaseResourceRequest(reservation_id=held.reservation_id, worker="w2")
    await api.reservation.ReleaseResource(release)
    assert (await granted(small)).units == 1


async def test_permits_wait_for_their_window(api: Api, time_source: TimeSource) -> None:
    time_source.stop()
    await api.permit("brief", permits=2)
    stream = api.rate_limit.AwaitPermit(rate_limit_pb2.AwaitPermitRequest(endpoint="brief", worker="w2"))
    place = await queued(stream, 1)
    assert place.blocked_by.reason == common_pb2.REFUSAL_REASON_WINDOW_FULL
    assert place.blocked_by.window.ToSeconds() == 1
    assert place.HasField("estimated_wait")
    time_source.go_on()
    assert (await granted(stream)).worker == "w2"


async def test_permits_come_free_when_a_permit_is_not_used(api: Api) -> None:
    permit = await api.permit("post", permits=3)
    # Long enough for the window to move on: else it would be refused at once.
    request = rate_limit_pb2.AwaitPermitRequest(endpoint="post", worker="w2", wait_timeout=length(1_000))
    stream = api.rate_limit.AwaitPermit(request)
    await queued(stream, 1)
    await api.rate_limit.RecordUsage(
        rate_limit_pb2.RecordUsageRequest(
            endpoint="post",
            worker="w1",
            permit_id=permit.permit_id,
            result=rate_limit_pb2.USAGE_RESULT_NOT_SENT,
        )
    )
    assert (await granted(stream)).permits == 1
