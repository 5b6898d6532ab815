"""The servicers without a network, as the daemon registers them: messages both ways, failures to statuses."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from offline import Offline, error_info

from coordd.store.protocol import CommitFailed
from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2


def lock_request(
    worker: str = "w1", item: str = "tweet:1", kind: str = "like"
) -> engagement_pb2.RequestLockRequest:
    return engagement_pb2.RequestLockRequest(item=item, worker=worker, kind=kind)


def release(
    offline: Offline, lock: engagement_pb2.Lock, outcome: int = engagement_pb2.OUTCOME_FAILURE
) -> None:
    offline.ask(
        engagement_pb2.ReleaseLockRequest(
            item=lock.item, worker=lock.worker, fencing_token=lock.fencing_token, outcome=outcome
        )
    )


def test_a_lock_is_granted_then_refused(offline: Offline) -> None:
    granted = offline.ask(lock_request()).granted
    refused = offline.ask(lock_request("w2")).refused
    assert granted.fencing_token > 0
    assert refused.reason == common_pb2.REFUSAL_REASON_HELD
    assert refused.holder == "w1"


def test_an_item_is_free_then_in_progress_then_done(offline: Offline) -> None:
    get = engagement_pb2.GetLockRequest(item="tweet:1")
    assert offline.ask(get).state == engagement_pb2.ITEM_STATE_FREE
    lock = offline.ask(lock_request()).granted
    assert offline.ask(get).state == engagement_pb2.ITEM_STATE_IN_PROGRESS
    release(offline, lock)
    assert offline.ask(get).state == engagement_pb2.ITEM_STATE_FREE
    release(offline, offline.ask(lock_request(kind="analysis")).granted, engagement_pb2.OUTCOME_SUCCESS)
    done = offline.ask(get)
    assert done.state == engagement_pb2.ITEM_STATE_DONE
    assert done.last_engagement.worker == "w1"


def test_a_form_that_is_wrong_is_refused_with_its_field(offline: Offline) -> None:
    code, reason, metadata = offline.refuse(lock_request(item=""))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ID")
    assert metadata["field"] == "item"


@pytest.mark.parametrize(
    "request_",
    [
        lock_request(kind="nope"),
        engagement_pb2.GetLockRequest(item="i", kind="nope"),
        engagement_pb2.HasRecentEngagementRequest(item="i", kinds=["like", "nope"]),
    ],
    ids=lambda request: type(request).__name__,
)
def test_an_unknown_kind(offline: Offline, request_: object) -> None:
    assert offline.refuse(request_)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_KIND")


def test_a_wait_is_queued_and_then_granted(offline: Offline) -> None:
    lock = offline.ask(lock_request()).granted
    stream = offline.stream(engagement_pb2.AwaitLockRequest(item="tweet:1", worker="w2", kind="like"))
    queued = stream.take_response().queued
    assert (queued.position, queued.blocked_by.holder) == (1, "w1")
    release(offline, lock)
    granted = stream.take_response().granted
    assert granted.worker == "w2"
    assert granted.fencing_token > lock.fencing_token
    _, code, _ = stream.termination()
    assert code is grpc.StatusCode.OK


def test_a_wait_that_times_out_says_so(offline: Offline) -> None:
    offline.ask(lock_request())
    stream = offline.stream(
        engagement_pb2.AwaitLockRequest(
            item="tweet:1", worker="w2", kind="like", wait_timeout=Duration(nanos=1_000_000)
        )
    )
    assert stream.take_response().HasField("queued")
    assert stream.take_response().refused.reason == common_pb2.REFUSAL_REASON_WAIT_TIMEOUT


def test_a_wait_ends_when_the_daemon_drains(offline: Offline) -> None:
    offline.ask(lock_request())
    stream = offline.stream(engagement_pb2.AwaitLockRequest(item="tweet:1", worker="w2", kind="like"))
    stream.take_response()
    assert offline.ask(admin_pb2.DrainRequest(reason="test")).draining
    trailers, code, _ = stream.termination()
    assert (code, error_info(trailers)[0]) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert dict(trailers)["grpc-retry-pushback-ms"] == "1000"
    assert offline.refuse(lock_request("w3", "tweet:2"))[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert not offline.ask(admin_pb2.DrainRequest(undo=True)).draining
    assert offline.ask(lock_request("w3", "tweet:2")).HasField("granted")


def test_a_stream_refuses_a_wrong_form_as_well(offline: Offline) -> None:
    stream = offline.stream(
        engagement_pb2.AwaitLockRequest(item="i", worker="w", kind="like", wait_timeout=Duration(seconds=-1))
    )
    trailers, code, _ = stream.termination()
    assert (code, error_info(trailers)[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DURATION")


def test_units_of_a_pool(offline: Offline) -> None:
    request = reservation_pb2.ReserveResourceRequest(type="slot", worker="w", units=2)
    granted = offline.ask(request).granted
    assert (granted.pool, granted.units) == ("small", 2)
    assert offline.ask(request).refused.reason == common_pb2.REFUSAL_REASON_UNITS_TAKEN
    available = offline.ask(reservation_pb2.CheckAvailabilityRequest(type="slot"))
    assert (available.available, available.free_units, available.capacity) == (False, 0, 2)


def test_permits_of_all_windows(offline: Offline) -> None:
    request = rate_limit_pb2.CanMakeRequestRequest(endpoint="post", worker="w", permits=3)
    permit = offline.ask(request).granted
    refused = offline.ask(rate_limit_pb2.CanMakeRequestRequest(endpoint="post", worker="w")).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_WINDOW_FULL
    assert refused.window.seconds == 900
    recorded = offline.ask(
        rate_limit_pb2.RecordUsageRequest(
            endpoint="post",
            worker="w",
            permit_id=permit.permit_id,
            result=rate_limit_pb2.USAGE_RESULT_NOT_SENT,
        )
    )
    assert recorded.refunded == 3
    assert offline.ask(request).HasField("granted")


def test_pages_of_pools(offline: Offline) -> None:
    names, token = [], ""
    while True:
        page = offline.ask(admin_pb2.ListPoolsRequest(page_size=1, page_token=token))
        names += [pool.name for pool in page.pools]
        token = page.next_page_token
        if not token:
            break
    assert names == ["api_requests", "api_tweets", "content_pipeline", "small"]


def test_events_are_told_to_those_who_watch(offline: Offline) -> None:
    stream = offline.stream(admin_pb2.WatchEventsRequest(worker="w1"))
    stream.initial_metadata()
    offline.ask(lock_request("w2", "tweet:2"))
    lock = offline.ask(lock_request()).granted
    release(offline, lock)
    granted, released = stream.take_response(), stream.take_response()
    assert (granted.type, granted.id) == (admin_pb2.EVENT_TYPE_GRANTED, lock.fencing_token)
    assert (released.type, released.detail) == (admin_pb2.EVENT_TYPE_RELEASED, "failure")
    stream.cancel()


@pytest.mark.parametrize(
    "request_",
    [
        engagement_pb2.ListLocksRequest(),
        engagement_pb2.GetLockRequest(item="i"),
        engagement_pb2.HasRecentEngagementRequest(item="i"),
        engagement_pb2.GetEngagementStatsRequest(),
        reservation_pb2.ListReservationsRequest(),
        reservation_pb2.CheckAvailabilityRequest(type="slot"),
        rate_limit_pb2.GetRemainingCapacityRequest(endpoint="post"),
        rate_limit_pb2.GetSystemStatusRequest(),
        admin_pb2.GetStatusRequest(),
        admin_pb2.ListPoolsRequest(),
        admin_pb2.ListLimitsRequest(),
    ],
    ids=lambda request: type(request).__name__,
)
def test_no_question_is_answered_once_the_store_has_failed(offline: Offline, request_: object) -> None:
    async def fail() -> None:
        offline.engine._commits.fail(CommitFailed("disk full"))

    offline.run(fail())
    assert offline.refuse(request_)[:2] == (grpc.StatusCode.UNAVAILABLE, "STORE_FAILED")


def test_a_drain_is_told_to_those_who_watch(offline: Offline) -> None:
    stream = offline.stream(admin_pb2.WatchEventsRequest(subjects=[admin_pb2.SUBJECT_SETTING]))
    stream.initial_metadata()
    offline.ask(admin_pb2.DrainRequest(reason="upgrade"))
    offline.ask(admin_pb2.DrainRequest(undo=True))
    offline.ask(admin_pb2.DrainRequest())
    events = [stream.take_response() for _ in range(3)]
    assert {(event.type, event.name) for event in events} == {(admin_pb2.EVENT_TYPE_UPDATED, "daemon")}
    assert [event.detail for event in events] == ["draining: upgrade", "granting again", "draining"]
    stream.cancel()
