"""EngagementService over the wire."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, length, refusal, rest, until

from coordd.config import load
from coordd.core.limits import SECOND
from coordd.server import Daemon
from coordd.v1 import common_pb2
from coordd.v1 import engagement_pb2 as pb


async def request(api: Api, worker: str = "w2", item: str = "i", kind: str = "analysis", **more: Any) -> Any:
    return await api.engagement.RequestLock(
        pb.RequestLockRequest(item=item, worker=worker, kind=kind, **more)
    )


async def get(api: Api, item: str = "i", kind: str = "") -> pb.GetLockResponse:
    response: pb.GetLockResponse = await api.engagement.GetLock(pb.GetLockRequest(item=item, kind=kind))
    return response


async def test_a_lock_has_a_token_and_an_end(api: Api) -> None:
    lock = await api.lock("w1", "tweet:1", "like", ttl=length(60))
    assert (lock.item, lock.kind, lock.worker) == ("tweet:1", "like", "w1")
    assert lock.expires_at.ToNanoseconds() - lock.granted_at.ToNanoseconds() == 60 * SECOND
    assert 0 < lock.expires_in.ToNanoseconds() <= 60 * SECOND


async def test_tokens_rise(api: Api) -> None:
    tokens = [(await api.lock("w1", f"i{number}")).fencing_token for number in range(5)]
    assert tokens == sorted(set(tokens))


async def test_a_held_item_is_refused_with_its_holder_and_end(api: Api) -> None:
    lock = await api.lock("w1")
    refused = (await request(api)).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_HELD
    assert (refused.subject, refused.holder, refused.queue_position) == ("i", "w1", 1)
    assert refused.retry_at == lock.expires_at
    assert 0 < refused.retry_after.ToSeconds() <= 15 * 60


async def test_by_default_a_lock_excludes_every_kind(api: Api) -> None:
    await api.lock("w1", kind="like")
    assert (await request(api, kind="reply")).HasField("refused")


async def test_the_same_request_id_gets_the_same_lock(api: Api) -> None:
    lock = await api.lock("w1", request_id="r")
    assert (await api.lock("w1", request_id="r")).fencing_token == lock.fencing_token
    assert (await request(api, "w2", request_id="r")).HasField("refused")


async def test_a_renewal_moves_the_end(api: Api) -> None:
    lock = await api.lock("w1", ttl=length(60))
    response = await api.engagement.RenewLock(
        pb.RenewLockRequest(item="i", worker="w1", fencing_token=lock.fencing_token, ttl=length(600))
    )
    assert response.lock.fencing_token == lock.fencing_token
    assert response.lock.expires_in.ToSeconds() > 60


async def test_a_release_writes_history_and_can_be_repeated(api: Api) -> None:
    lock = await api.lock("w1", "i", "like")
    first = await api.unlock(lock, pb.OUTCOME_SUCCESS)
    again = await api.unlock(lock, pb.OUTCOME_FAILURE)
    assert (first.already_released, again.already_released) == (False, True)
    assert again.engagement == first.engagement
    assert first.engagement.outcome == pb.OUTCOME_SUCCESS
    assert first.engagement.fencing_token == lock.fencing_token


async def test_an_item_is_free_in_progress_or_done(api: Api) -> None:
    assert (await get(api)).state == pb.ITEM_STATE_FREE
    lock = await api.lock("w1")
    held = await get(api)
    assert (held.state, held.lock.fencing_token) == (pb.ITEM_STATE_IN_PROGRESS, lock.fencing_token)
    await api.unlock(lock, pb.OUTCOME_SUCCESS)
    done = await get(api)
    assert (done.state, done.last_engagement.worker) == (pb.ITEM_STATE_DONE, "w1")
    assert not done.HasField("lock")


async def test_an_items_state_can_be_asked_for_one_kind(api: Api) -> None:
    await api.unlock(await api.lock("w1"), pb.OUTCOME_SUCCESS)
    assert (await get(api, kind="analysis")).state == pb.ITEM_STATE_DONE
    assert (await get(api, kind="like")).state == pb.ITEM_STATE_FREE


async def test_a_failure_leaves_the_item_free(api: Api) -> None:
    await api.unlock(await api.lock("w1", kind="like"), pb.OUTCOME_FAILURE)
    assert (await get(api)).state == pb.ITEM_STATE_FREE
    assert (await request(api, kind="like")).HasField("granted")


async def test_what_was_done_lately_is_not_done_again(api: Api) -> None:
    await api.unlock(await api.lock("w1", kind="reply"), pb.OUTCOME_SUCCESS)
    refused = (await request(api, kind="reply")).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED
    assert refused.holder == "w1"
    assert 3500 < refused.retry_after.ToSeconds() <= 3600
    assert refused.queue_position == 0
    waiting = api.await_lock("w2", kind="reply")
    assert [event.refused.reason async for event in rest(waiting)] == [refused.reason]


async def test_quality_may_bypass_the_interval(api: Api) -> None:
    await api.unlock(await api.lock("w1", kind="reply"), pb.OUTCOME_SUCCESS)
    assert (await request(api, kind="reply", quality=0.89)).HasField("refused")
    assert (await request(api, kind="reply", quality=0.9)).HasField("granted")


async def test_a_lock_that_runs_out_may_have_been_acted_upon(api: Api) -> None:
    await api.lock("w1", kind="reply", ttl=length(0.1))

    async def is_over() -> bool:
        return (await get(api)).state != pb.ITEM_STATE_IN_PROGRESS

    await until(is_over)
    state = await get(api)
    assert state.state == pb.ITEM_STATE_UNKNOWN
    assert state.last_engagement.outcome == pb.OUTCOME_UNKNOWN
    assert state.HasField("delayed_until")
    assert (await request(api)).refused.reason == common_pb2.REFUSAL_REASON_LOCK_DELAY
    assert (await request(api, kind="reply")).refused.reason == common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED


async def recent(api: Api, **more: Any) -> pb.HasRecentEngagementResponse:
    response: pb.HasRecentEngagementResponse = await api.engagement.HasRecentEngagement(
        pb.HasRecentEngagementRequest(item="i", **more)
    )
    return response


@pytest.fixture
async def by_kind(config: Path) -> AsyncIterator[Api]:
    """Stubs for a daemon whose locks are exclusive per item and kind."""
    config.write_text(config.read_text() + '[locks]\nexclusive = "item_and_kind"\n')  # noqa: ASYNC240
    daemon = Daemon(load(config, {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        yield Api(channel)
    await daemon.stop(0)


async def test_locks_may_exclude_their_own_kind_only(by_kind: Api) -> None:
    await by_kind.lock("w1", kind="like")
    await by_kind.lock("w2", kind="reply")
    assert (await get(by_kind, kind="like")).lock.worker == "w1"
    assert (await get(by_kind, kind="quote")).state == pb.ITEM_STATE_FREE
    code, reason, metadata = await refusal(by_kind.engagement.GetLock(pb.GetLockRequest(item="i")))
    assert (code, reason, metadata["field"]) == ("INVALID_ARGUMENT", "INVALID_ID", "kind")


async def test_recent_engagements(api: Api) -> None:
    assert not (await recent(api)).engaged
    await api.unlock(await api.lock("w1"), pb.OUTCOME_FAILURE)
    assert not (await recent(api)).engaged
    assert (await recent(api, include_failures=True)).latest.outcome == pb.OUTCOME_FAILURE
    await api.unlock(await api.lock("w2"), pb.OUTCOME_UNKNOWN)
    found = await recent(api)
    assert (found.engaged, found.latest.worker, found.latest.kind) == (True, "w2", "analysis")
    assert not (await recent(api, kinds=["like", "reply"])).engaged
    assert (await recent(api, kinds=["like", "analysis"])).engaged
    assert not (await recent(api, within=length(1e-9))).engaged
    assert (await recent(api, within=length(10 * 365 * 86_400))).engaged


async def test_statistics(api: Api) -> None:
    for number, (worker, outcome) in enumerate(
        [
            ("w1", pb.OUTCOME_SUCCESS),
            ("w1", pb.OUTCOME_FAILURE),
            ("w2", pb.OUTCOME_SUCCESS),
            ("w2", pb.OUTCOME_UNKNOWN),
        ]
    ):
        await api.unlock(await api.lock(worker, f"i{number}", "like"), outcome)
    stats = await api.engagement.GetEngagementStats(pb.GetEngagementStatsRequest())
    assert (stats.total, stats.successful, stats.failed, stats.unknown) == (4, 2, 1, 1)
    assert stats.success_rate == 0.5
    assert sorted(stats.by_kind) == ["analysis", "like", "quote", "reply"]
    assert stats.by_kind["like"].total == 4
    own = await api.engagement.GetEngagementStats(pb.GetEngagementStatsRequest(worker="w1"))
    assert (own.total, own.successful, own.failed) == (2, 1, 1)


async def test_locks_are_listed_in_pages_oldest_first(api: Api) -> None:
    for number in range(5):
        await api.lock("w1" if number % 2 else "w2", f"i{number}")
    pages, token = [], ""
    while True:
        page = await api.engagement.ListLocks(pb.ListLocksRequest(page_size=2, page_token=token))
        pages.append([lock.item for lock in page.locks])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["i0", "i1"], ["i2", "i3"], ["i4"]]
    own = await api.engagement.ListLocks(pb.ListLocksRequest(worker="w1"))
    assert [lock.item for lock in own.locks] == ["i1", "i3"]
    assert not own.next_page_token


async def test_a_full_last_page_says_that_it_is_the_last(api: Api) -> None:
    for number in range(2):
        await api.lock("w1", f"i{number}")
    page = await api.engagement.ListLocks(pb.ListLocksRequest(page_size=2))
    assert len(page.locks) == 2
    assert not page.next_page_token
