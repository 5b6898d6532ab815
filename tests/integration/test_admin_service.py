"""AdminService, health and reflection over the wire."""

from pathlib import Path
from typing import Any

import grpc
from daemon_api import Api, length, refusal
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordd import rpc
from coordd.config import load
from coordd.core.limits import SECOND
from coordd.server import Daemon
from coordd.v1 import admin_pb2 as pb
from coordd.v1 import common_pb2, engagement_pb2, rate_limit_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def status(api: Api) -> Any:
    return await api.admin.GetStatus(pb.GetStatusRequest())


async def watching(api: Api, **wanted: Any) -> Any:
    """Begin to watch; return once everything that happens is seen."""
    stream = api.admin.WatchEvents(pb.WatchEventsRequest(**wanted))
    await stream.initial_metadata()
    return stream


async def test_the_status_counts_what_there_is(api: Api) -> None:
    new = await status(api)
    assert (new.version, new.locks, new.waiters, new.draining) == ("0.1.0", 0, 0, False)
    lock = await api.lock()
    await api.reserve("slot")
    await api.permit()
    booking = await api.book()
    after = await status(api)
    assert (after.locks, after.reservations, after.permits, after.bookings) == (1, 1, 1, 1)
    assert after.last_id == booking.booking_id > lock.fencing_token > new.last_id
    assert after.commits >= 1
    assert after.commands >= 4
    assert after.commit_time_mean.ToNanoseconds() > 0
    assert after.now.ToNanoseconds() > new.now.ToNanoseconds()


async def test_pools_by_name(api: Api) -> None:
    await api.reserve("slot", units=2)
    first = await api.admin.ListPools(pb.ListPoolsRequest(page_size=3))
    assert [pool.name for pool in first.pools] == ["api_requests", "api_tweets", "burst"]
    second = await api.admin.ListPools(pb.ListPoolsRequest(page_size=3, page_token=first.next_page_token))
    assert [pool.name for pool in second.pools] == ["content_pipeline", "small"]
    assert not second.next_page_token
    small = second.pools[1]
    assert (small.capacity, small.used, small.free, list(small.windows)) == (3, 2, 1, [])
    burst = first.pools[2]
    assert [(window.name, window.limit) for window in burst.windows] == [("per_hour", 4)]


async def test_a_capacity_can_be_changed_and_wakes_who_waits(api: Api) -> None:
    await api.reserve("slot", units=3)
    updated = await api.admin.UpdatePool(pb.UpdatePoolRequest(name="small", capacity=5))
    assert (updated.pool.capacity, updated.pool.free, updated.pool.is_overridden) == (5, 2, True)
    assert (await api.reserve("slot", units=2)).units == 2
    back = await api.admin.UpdatePool(pb.UpdatePoolRequest(name="small", capacity=3))
    assert (back.pool.used, back.pool.free, back.pool.is_overridden) == (5, 0, False)


async def test_a_limit_can_be_changed(api: Api) -> None:
    await api.permit(permits=3)
    window = pb.WindowLimit(window=length(900), limit=4)
    updated = await api.admin.UpdateLimit(pb.UpdateLimitRequest(endpoint="post", windows=[window]))
    assert [window.limit for window in updated.limit.windows] == [4, 5]
    assert updated.limit.is_overridden
    assert (await api.permit()).permits == 1


async def test_limits_by_name(api: Api) -> None:
    await api.book("post")
    limits = (await api.admin.ListLimits(pb.ListLimitsRequest())).limits
    assert [limit.endpoint for limit in limits] == ["brief", "post"]
    brief, post = limits
    assert (post.allocation, post.bookings, post.use_within.ToSeconds()) == ("priority", 1, 30)
    assert brief.claim_window.ToMilliseconds() == 100


async def test_an_operator_can_take_a_lock_a_reservation_and_a_booking(api: Api) -> None:
    lock = await api.lock("w1", "tweet:1", "like")
    held = await api.reserve("memory", resource_id="m")
    booking = await api.book()
    for id_, subject, name in (
        (lock.fencing_token, pb.SUBJECT_LOCK, "tweet:1"),
        (held.reservation_id, pb.SUBJECT_RESERVATION, "memory/m"),
        (booking.booking_id, pb.SUBJECT_BOOKING, "post"),
    ):
        forced = await api.admin.ForceRelease(pb.ForceReleaseRequest(id=id_, reason="stuck"))
        assert (forced.subject, forced.name, forced.worker) == (subject, name, "w1")
        again = api.admin.ForceRelease(pb.ForceReleaseRequest(id=id_, reason="stuck"))
        assert (await refusal(again))[:2] == ("NOT_FOUND", "UNKNOWN_ID")
    state = await api.engagement.GetLock(engagement_pb2.GetLockRequest(item="tweet:1"))
    assert state.state == engagement_pb2.ITEM_STATE_UNKNOWN


async def test_watchers_see_what_happens_in_order(api: Api) -> None:
    stream = await watching(api)
    lock = await api.lock("w1", "tweet:1", "like")
    refused = engagement_pb2.RequestLockRequest(item="tweet:1", worker="w2", kind="like")
    await api.engagement.RequestLock(refused)
    await api.unlock(lock)
    permit = await api.permit()
    await api.rate_limit.RecordUsage(
        rate_limit_pb2.RecordUsageRequest(
            endpoint="post",
            worker="w1",
            permit_id=permit.permit_id,
            result=rate_limit_pb2.USAGE_RESULT_FAILURE,
            status_code=429,
            headers=[rate_limit_pb2.Header(name="Retry-After", value="7")],
        )
    )
    events = [await stream.read() for _ in range(5)]
    assert [(event.type, event.subject, event.name, event.worker) for event in events] == [
        (pb.EVENT_TYPE_GRANTED, pb.SUBJECT_LOCK, "tweet:1", "w1"),
        (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_LOCK, "tweet:1", "w2"),
        (pb.EVENT_TYPE_RELEASED, pb.SUBJECT_LOCK, "tweet:1", "w1"),
        (pb.EVENT_TYPE_GRANTED, pb.SUBJECT_PERMIT, "post", "w1"),
        (pb.EVENT_TYPE_RELEASED, pb.SUBJECT_PERMIT, "post", "w1"),
    ]
    assert events[0].id == lock.fencing_token
    assert events[1].refusal_reason == common_pb2.REFUSAL_REASON_HELD
    assert events[4].detail == 'failure, status 429, headers [["Retry-After", "7"]]'
    instants = [event.at.ToNanoseconds() for event in events]
    assert instants == sorted(instants)
    stream.cancel()


async def test_watchers_see_what_time_does(api: Api) -> None:
    stream = await watching(api, types=[pb.EVENT_TYPE_EXPIRED])
    await api.lock("w1", ttl=length(0.1))
    permit = await api.permit("brief")
    events = [await stream.read() for _ in range(2)]
    assert {event.subject for event in events} == {pb.SUBJECT_LOCK, pb.SUBJECT_PERMIT}
    assert permit.permit_id in {event.id for event in events}
    stream.cancel()


async def test_watchers_see_what_they_asked_for(api: Api) -> None:
    stream = await watching(
        api, subjects=[pb.SUBJECT_LOCK, pb.SUBJECT_SETTING], types=[pb.EVENT_TYPE_GRANTED], worker="w2"
    )
    await api.lock("w1", "i1")
    await api.permit(worker="w2")
    await api.unlock(await api.lock("w2", "i2"))
    await api.lock("w2", "i3")
    assert [(await stream.read()).name for _ in range(2)] == ["i2", "i3"]
    stream.cancel()


async def test_an_operators_changes_are_events(api: Api) -> None:
    stream = await watching(api, subjects=[pb.SUBJECT_SETTING, pb.SUBJECT_LOCK])
    await api.admin.UpdatePool(pb.UpdatePoolRequest(name="small", capacity=5))
    lock = await api.lock()
    await api.admin.ForceRelease(pb.ForceReleaseRequest(id=lock.fencing_token, reason="stuck"))
    updated, _, forced = [await stream.read() for _ in range(3)]
    assert (updated.type, updated.name) == (pb.EVENT_TYPE_UPDATED, "pool/small")
    assert (forced.type, forced.detail) == (pb.EVENT_TYPE_FORCED, "stuck")
    stream.cancel()


async def test_every_service_is_healthy_and_reflected(api: Api) -> None:
    health: Any = health_pb2_grpc.HealthStub(api.channel)
    for service in ("", *rpc.SERVICES):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = [answer async for answer in reflection.ServerReflectionInfo(iter([ask]))]
    listed = {service.name for service in answer.list_services_response.service}
    assert listed >= {*rpc.SERVICES, "grpc.health.v1.Health"}
    assert len(rpc.SERVICES) == 6


async def test_watchers_of_health_hear_of_the_end_and_do_not_hold_it_up(config: Path) -> None:
    daemon = Daemon(load(config, {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        stream = health.Watch(health_pb2.HealthCheckRequest())
        assert (await stream.read()).status == SERVING
        events = await watching(Api(channel))
        began = (await status(Api(channel))).now
        await daemon.stop(30)
        assert (await stream.read()).status == NOT_SERVING
        assert daemon.engine.now() - began.ToNanoseconds() < 10 * SECOND
        events.cancel()
        stream.cancel()
