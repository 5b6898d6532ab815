"""RateLimitService over the wire."""

from typing import Any

import grpc
import pytest
from daemon_api import Api, failure, length, refusal, until

from coordd.core.limits import SECOND
from coordd.v1 import common_pb2
from coordd.v1 import rate_limit_pb2 as pb


async def request(api: Api, endpoint: str = "post", **more: Any) -> Any:
    return await api.rate_limit.CanMakeRequest(
        pb.CanMakeRequestRequest(**{"endpoint": endpoint, "worker": "w2"} | more)
    )


async def record(api: Api, permit: Any, result: int, **more: Any) -> Any:
    return await api.rate_limit.RecordUsage(
        pb.RecordUsageRequest(
            endpoint=permit.endpoint, worker=permit.worker, permit_id=permit.permit_id, result=result, **more
        )
    )


async def remaining(api: Api, endpoint: str = "post") -> Any:
    return await api.rate_limit.GetRemainingCapacity(pb.GetRemainingCapacityRequest(endpoint=endpoint))


async def test_a_permit_says_until_when_it_may_be_used(api: Api) -> None:
    permit = await api.permit(permits=2)
    assert (permit.endpoint, permit.worker, permit.permits) == ("post", "w1", 2)
    assert permit.use_by.ToNanoseconds() - permit.granted_at.ToNanoseconds() == 30 * SECOND


async def test_no_permits_means_one(api: Api) -> None:
    assert (await api.permit()).permits == 1


async def test_all_windows_have_room_or_none_is_charged(api: Api) -> None:
    await api.permit(permits=2)
    refused = (await request(api, permits=2)).refused
    assert (refused.reason, refused.subject) == (common_pb2.REFUSAL_REASON_WINDOW_FULL, "post")
    assert refused.window.ToSeconds() == 900
    assert 900 < refused.retry_after.ToSeconds() <= 933
    capacity = await remaining(api)
    assert [(window.name, window.used, window.remaining) for window in capacity.windows] == [
        ("per_15min", 2, 1),
        ("per_hour", 2, 3),
    ]
    assert capacity.remaining == 1


async def test_a_permit_that_was_not_used_goes_back(api: Api) -> None:
    permit = await api.permit(permits=3)
    recorded = await record(api, permit, pb.USAGE_RESULT_NOT_SENT)
    assert (recorded.refunded, recorded.already_settled) == (3, False)
    assert (await record(api, permit, pb.USAGE_RESULT_SUCCESS)).already_settled
    assert (await remaining(api)).remaining == 3


async def test_a_permit_that_was_used_stays_counted(api: Api) -> None:
    permit = await api.permit(permits=3)
    headers = [pb.Header(name="x-rate-limit-remaining", value="7")]
    recorded = await record(api, permit, pb.USAGE_RESULT_FAILURE, status_code=429, headers=headers)
    assert recorded.refunded == 0
    capacity = await remaining(api)
    assert capacity.remaining == 0
    assert capacity.windows[0].resets_in.ToSeconds() <= 902


async def test_the_same_request_id_gets_the_same_permit_until_it_is_settled(api: Api) -> None:
    permit = await api.permit(request_id="r")
    assert (await api.permit(request_id="r")).permit_id == permit.permit_id
    await record(api, permit, pb.USAGE_RESULT_SUCCESS)
    assert (await refusal(api.permit(request_id="r")))[:2] == ("FAILED_PRECONDITION", "REQUEST_ENDED")


async def test_a_booking_holds_its_capacity_and_is_claimed(api: Api) -> None:
    booking = await api.book(permits=2, request_id="b")
    assert booking.estimated_delay.ToSeconds() == 0
    assert (await api.book(permits=2, request_id="b")).booking_id == booking.booking_id
    assert (await remaining(api)).remaining == 1
    permit = await api.permit(booking_id=booking.booking_id)
    assert permit.permits == 2
    assert (await remaining(api)).remaining == 1


async def test_a_booking_when_all_is_taken_lies_ahead_and_can_not_be_claimed_early(api: Api) -> None:
    await api.permit(permits=3)
    booking = await api.book()
    assert booking.estimated_delay.ToSeconds() > 800
    early = (await request(api, worker="w1", booking_id=booking.booking_id)).refused
    assert early.reason == common_pb2.REFUSAL_REASON_BOOKING_EARLY
    assert early.retry_at == booking.execute_at


async def test_a_booking_can_be_given_back(api: Api) -> None:
    booking = await api.book(permits=3)
    cancel = pb.CancelScheduleRequest(booking_id=booking.booking_id, worker="w1")
    assert not (await api.rate_limit.CancelSchedule(cancel)).already_ended
    assert (await api.rate_limit.CancelSchedule(cancel)).already_ended
    assert (await remaining(api)).remaining == 3
    claim = request(api, worker="w1", booking_id=booking.booking_id)
    assert (await refusal(claim))[:2] == ("FAILED_PRECONDITION", "BOOKING_LAPSED")


async def test_a_booking_nobody_claims_lapses(api: Api) -> None:
    booking = await api.book("brief")

    async def has_lapsed() -> bool:
        cancel = pb.CancelScheduleRequest(booking_id=booking.booking_id, worker="w1")
        status = await api.rate_limit.GetSystemStatus(pb.GetSystemStatusRequest())
        [brief] = [endpoint for endpoint in status.endpoints if endpoint.endpoint == "brief"]
        return brief.windows[0].used == 0 and (await api.rate_limit.CancelSchedule(cancel)).already_ended

    await until(has_lapsed)
    claim = request(api, "brief", worker="w1", booking_id=booking.booking_id)
    assert (await refusal(claim))[:2] == ("FAILED_PRECONDITION", "BOOKING_LAPSED")


async def test_a_booking_is_not_earlier_than_asked(api: Api) -> None:
    booking = await api.book(not_before=length(3600))
    assert 3599 <= booking.estimated_delay.ToSeconds() <= 3600


async def test_a_booking_beyond_the_horizon_is_refused(api: Api) -> None:
    # 5 calls an hour are 120 in the 24 h that can be booked ahead; each of these takes 3.
    delays: list[int] = []

    async def book_on() -> None:
        while True:
            delays.append((await api.book("post", permits=3)).estimated_delay.ToSeconds())

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await book_on()
    assert failure(caught.value)[:2] == ("OUT_OF_RANGE", "BEYOND_HORIZON")
    assert delays == sorted(delays)
    assert 23 * 3600 < delays[-1] <= 24 * 3600


async def test_a_workers_part(api: Api) -> None:
    await api.permit(permits=2)
    share = await api.rate_limit.GetWorkerAllocation(
        pb.GetWorkerAllocationRequest(endpoint="post", worker="w1")
    )
    assert [(window.name, window.allocated, window.used, window.remaining) for window in share.windows] == [
        ("per_15min", 3, 2, 1),
        ("per_hour", 5, 2, 3),
    ]
    assert share.active_workers == 1


async def test_list_of_parts_is_of_shared_endpoints_only(api: Api) -> None:
    await api.permit(permits=2)
    listed = await api.rate_limit.ListWorkerAllocations(pb.ListWorkerAllocationsRequest(endpoint="post"))
    assert (len(listed.workers), listed.next_page_token) == (0, "")


async def test_health_is_that_of_the_fullest_window(api: Api) -> None:
    status = await api.rate_limit.GetSystemStatus(pb.GetSystemStatusRequest())
    assert status.health == pb.HEALTH_HEALTHY
    assert [endpoint.endpoint for endpoint in status.endpoints] == ["brief", "post"]
    permit = await api.permit(permits=3)
    await record(api, permit, pb.USAGE_RESULT_FAILURE, status_code=429)
    status = await api.rate_limit.GetSystemStatus(pb.GetSystemStatusRequest())
    assert status.health == pb.HEALTH_CRITICAL
    [post] = [endpoint for endpoint in status.endpoints if endpoint.endpoint == "post"]
    assert (post.health, post.utilisation, post.violations) == (pb.HEALTH_CRITICAL, 1.0, 1)
