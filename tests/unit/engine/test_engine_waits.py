"""Waits: a place at once, then a grant once it is durable; and what becomes of a grant nobody can be told."""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from engine_rig import (
    GatedStore,
    MemoryStore,
    Reader,
    VirtualTime,
    granted,
    lock,
    release,
    running,
    turns,
    waiting_lock,
)

from coordd.core.errors import InvalidArgument
from coordd.core.limits import HOUR, MILLISECOND, SECOND
from coordd.core.outcomes import Granted, Place, Reason, Refused
from coordd.engine import Engine
from coordd.engine.wait import is_news_of


def _is_place(position: int) -> Any:
    return lambda event: isinstance(event, Place) and event.position == position


async def _queue(engine: Engine, *waiters: str, **fields: Any) -> list[Reader]:
    """Let each worker wait in turn; return once all stand in the queue and were told so."""
    readers = []
    for place, worker in enumerate(waiters, start=1):
        request_id = f"request-{worker}" if fields.get("with_ids") else ""
        reader = Reader(engine.wait(waiting_lock(worker, request_id=request_id)))
        await reader.told(_is_place(place))
        readers.append(reader)
    return readers


async def _holder(engine: Engine) -> str:
    view = await engine.read(lambda machine, now: machine.item("tweet:1", "", now))
    return view.lock.worker if view.lock is not None else ""


async def test_a_wait_for_something_free_is_granted_at_once(engine: Engine) -> None:
    reader = Reader(engine.wait(waiting_lock("w1")))
    assert isinstance(await reader.task, Granted)
    assert len(reader.events) == 1


async def test_a_waiter_is_told_its_place_at_once_and_what_blocks_it(engine: Engine) -> None:
    await granted(engine, lock())
    [first, second] = await _queue(engine, "w2", "w3")
    [place] = second.events
    assert (place.position, place.blocked_by.reason, place.blocked_by.holder) == (2, Reason.HELD, "w1")
    assert first.events[0].position == 1
    await first.gone()
    await second.gone()


async def test_the_place_of_a_waiter_with_a_request_id_is_told_once_it_is_durable(
    engine: Engine, store: GatedStore
) -> None:
    await granted(engine, lock())
    await store.arrival()
    store.hold()
    reader = Reader(engine.wait(waiting_lock("w2", request_id="r")))
    await store.arrival()
    await turns()
    assert reader.events == []
    store.let_go()
    await reader.told(_is_place(1))
    await reader.gone()


async def test_a_grant_is_told_after_its_commit(engine: Engine, store: GatedStore) -> None:
    held = await granted(engine, lock())
    [reader] = await _queue(engine, "w2")
    await store.arrival()
    store.hold()
    released = asyncio.create_task(engine.submit(release(held)))
    await store.arrival()
    await turns()
    assert not reader.task.done()
    assert not released.done()
    store.let_go()
    assert (await reader.task).grant.worker == "w2"
    await released


async def test_those_behind_are_told_their_new_place(engine: Engine) -> None:
    held = await granted(engine, lock())
    readers = await _queue(engine, "w2", "w3", "w4")
    await engine.submit(release(held))
    second = await readers[0].task
    assert (await readers[1].told(_is_place(1))).blocked_by.holder == "w2"
    assert (await readers[2].told(_is_place(2))).blocked_by.holder == "w2"
    await engine.submit(release(second))
    await engine.submit(release(await readers[1].task))
    assert (await readers[2].task).grant.worker == "w4"


async def test_a_wait_that_times_out_is_refused(engine: Engine) -> None:
    await granted(engine, lock())
    reader = Reader(engine.wait(waiting_lock("w2", wait_ns=MILLISECOND)))
    refused = await reader.task
    assert (refused.reason, refused.subject) == (Reason.WAIT_TIMEOUT, "tweet:1")


async def test_a_wait_that_is_no_use_is_refused(engine: Engine) -> None:
    reader = Reader(engine.wait(lock(worker="w2", wait_ns=0)))
    assert isinstance(await reader.task, Granted)
    reader = Reader(engine.wait(lock(worker="w3", wait_ns=0)))
    assert isinstance(await reader.task, Refused)


async def test_a_wait_raises_what_its_command_raises(engine: Engine) -> None:
    async with engine.wait(msgspec.structs.replace(waiting_lock("w1"), kind="none")) as wait:
        with pytest.raises(InvalidArgument):
            await anext(wait)


# -- streams that end ----------------------------------------------------------------------------------------


async def test_a_stream_that_ends_without_a_request_id_is_out_of_the_queue(engine: Engine) -> None:
    held = await granted(engine, lock())
    [gone, next_one] = await _queue(engine, "w2", "w3")
    await gone.gone()
    await next_one.told(_is_place(1))
    await engine.submit(release(held))
    assert (await next_one.task).grant.worker == "w3"
    assert engine.waits == {}


async def test_a_stream_that_ends_with_a_request_id_keeps_its_place(engine: Engine) -> None:
    held = await granted(engine, lock())
    [gone, behind] = await _queue(engine, "w2", "w3", with_ids=True)
    await gone.gone()
    counts = await engine.read(lambda machine, _: machine.counts())
    assert (counts.waiters, counts.waiters_away) == (2, 1)
    back = Reader(engine.wait(waiting_lock("w2", request_id="request-w2")))
    await back.told(_is_place(1))
    await engine.submit(release(held))
    assert (await back.task).grant.worker == "w2"
    await behind.gone()


async def test_a_waiter_keeps_its_place_over_a_restart(engine: Engine, store: GatedStore) -> None:
    held = await granted(engine, lock())
    readers = await _queue(engine, "w2", "w3", with_ids=True)
    engine.drain("test")
    await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
    await engine.stop()
    async with running(GatedStore(store._path)) as again:
        late = Reader(again.wait(waiting_lock("w3", request_id="request-w3")))
        await late.told(_is_place(1))
        early = Reader(again.wait(waiting_lock("w2", request_id="request-w2")))
        await early.told(_is_place(1))
        await again.submit(release(held))
        assert (await early.task).grant.worker == "w2"
        await late.gone()


async def test_a_second_stream_supersedes_the_first(engine: Engine) -> None:
    held = await granted(engine, lock())
    [first] = await _queue(engine, "w2", with_ids=True)
    second = Reader(engine.wait(waiting_lock("w2", request_id="request-w2")))
    assert (await first.task).reason == Reason.SUPERSEDED
    await second.told(_is_place(1))
    await engine.submit(release(held))
    assert (await second.task).grant.worker == "w2"


async def test_a_stream_gone_between_grant_and_commit_gives_the_grant_to_the_next(
    engine: Engine, store: GatedStore
) -> None:
    held = await granted(engine, lock())
    [gone, next_one] = await _queue(engine, "w2", "w3")
    await store.arrival()
    store.hold()
    released = asyncio.create_task(engine.submit(release(held)))
    await store.arrival()
    await gone.gone()
    store.let_go()
    await released
    assert (await next_one.task).grant.worker == "w3"


async def test_a_stream_gone_between_grant_and_commit_keeps_its_place_with_a_request_id(
    engine: Engine, store: GatedStore
) -> None:
    held = await granted(engine, lock())
    [gone] = await _queue(engine, "w2", with_ids=True)
    store.hold()
    released = asyncio.create_task(engine.submit(release(held)))
    await gone_at_commit(store, gone)
    await released
    next_one = await granted(engine, lock(worker="w4"))
    back = Reader(engine.wait(waiting_lock("w2", request_id="request-w2")))
    place = await back.told(_is_place(1))
    assert place.blocked_by.holder == "w4"
    await engine.submit(release(next_one))
    assert (await back.task).grant.worker == "w2"


async def gone_at_commit(store: GatedStore, reader: Reader) -> None:
    """Break a stream off while the commit of its grant is held, then let it go."""
    while len(store.batches) < 3:
        await store.arrival()
    await reader.gone()
    store.let_go()


async def test_a_stream_gone_between_commit_and_reading_gives_the_grant_back(engine: Engine) -> None:
    held = await granted(engine, lock())
    async with engine.wait(waiting_lock("w2")) as wait:
        assert (await anext(wait)).position == 1
        await engine.submit(release(held))
        await turns()
        # Granted, and told to the wait; its stream ends before it asks.
    assert await _holder(engine) == ""


async def test_a_grant_that_was_handed_over_stays_when_its_stream_breaks(engine: Engine) -> None:
    held = await granted(engine, lock())
    with suppress(ConnectionError):
        async with engine.wait(waiting_lock("w2")) as wait:
            assert (await anext(wait)).position == 1
            await engine.submit(release(held))
            assert isinstance(await anext(wait), Granted)
            raise ConnectionError
    assert await _holder(engine) == "w2"


async def test_a_grant_that_was_sent_stays(engine: Engine) -> None:
    async with engine.wait(waiting_lock("w2")) as wait:
        assert isinstance(await anext(wait), Granted)
        with pytest.raises(StopAsyncIteration):
            await anext(wait)
    assert await _holder(engine) == "w2"


async def test_an_immediate_grant_whose_stream_goes_before_its_commit_goes_back(
    engine: Engine, store: GatedStore
) -> None:
    store.hold()
    reader = Reader(engine.wait(waiting_lock("w1")))
    await store.arrival()
    await reader.gone()
    store.let_go()
    assert await _holder(engine) == ""


async def test_a_repeated_grant_stays_when_its_second_stream_breaks(engine: Engine) -> None:
    first = Reader(engine.wait(waiting_lock("w1", request_id="r")))
    await first.task
    async with engine.wait(waiting_lock("w1", request_id="r")) as wait:
        assert (await anext(wait)).is_repeat
    assert await _holder(engine) == "w1"


async def test_a_grant_told_to_the_stream_that_came_back_before_its_commit_stays(
    engine: Engine, store: GatedStore
) -> None:
    held = await granted(engine, lock())
    [gone] = await _queue(engine, "w2", with_ids=True)
    store.hold()
    released = asyncio.create_task(engine.submit(release(held)))
    while len(store.batches) < 3:
        await store.arrival()
    await gone.gone()
    back = Reader(engine.wait(waiting_lock("w2", request_id="request-w2")))
    await turns()
    store.let_go()
    assert (await back.task).grant.worker == "w2"
    await released
    assert await _holder(engine) == "w2"
    assert isinstance(await engine.submit(lock(worker="w3")), Refused)


async def test_a_grant_told_again_elsewhere_stays_when_the_first_stream_breaks(engine: Engine) -> None:
    held = await granted(engine, lock())
    async with engine.wait(waiting_lock("w2", request_id="r")) as wait:
        assert (await anext(wait)).position == 1
        await engine.submit(release(held))
        await turns()
        # The client's connection broke before the grant was read; it asks on another before this one knows.
        assert (await granted(engine, lock(worker="w2", request_id="r"))).is_repeat
    assert await _holder(engine) == "w2"


# -- places --------------------------------------------------------------------------------------------------


async def test_places_are_told_when_only_time_has_passed(engine: Engine) -> None:
    await granted(engine, lock(ttl_ns=100 * MILLISECOND))
    readers = await _queue(engine, "w2", "w3")
    # No command comes: the lease runs out, the item rests, and the first is granted.
    assert (await readers[0].task).grant.worker == "w2"
    assert (await readers[1].told(_is_place(1))).blocked_by.holder == "w2"
    await readers[1].gone()


async def test_everybody_is_told_in_turn_when_nothing_more_happens(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.engine.engine._PLACES_BUDGET_NS", 0)
    monkeypatch.setattr("coordd.engine.engine._PLACES_INTERVAL_S", 0.01)
    held = await granted(engine, lock())
    readers = await _queue(engine, "w2", "w3", "w4", "w5", "w6", "w7")
    await engine.submit(release(held))
    for place, reader in enumerate(readers[1:], start=1):
        await reader.told(_is_place(place))
    for reader in readers[1:]:
        await reader.gone()


# -- estimates -----------------------------------------------------------------------------------------------


def _place(wait_ns: int | None) -> Place:
    blocked_by = Refused(reason=Reason.HELD, subject="tweet:1", holder="w1")
    return Place(position=1, wait_ns=wait_ns, blocked_by=blocked_by, times_out_at=0)


@pytest.mark.parametrize(
    ("before", "passed", "after", "is_news"),
    [
        (None, 1, 7, True),
        (None, 1, None, False),
        (7, 1, None, True),
        (60, 10, 50, False),
        (60, 10, 60, False),
        (60, 10, 61, True),
        (60, 10, 39, True),
        (2, 1, 2, False),
        (2, 1, 2.5, True),
        # Overdue: what was told is over, and still it goes on.
        (10, 15, 0, False),
        (10, 15, 2, True),
    ],
)
def test_an_estimate_is_told_when_it_has_moved(
    before: float | None, passed: float, after: float | None, *, is_news: bool
) -> None:
    old, new = (_place(None if s is None else round(s * SECOND)) for s in (before, after))
    assert is_news_of(old, new, round(passed * SECOND)) == is_news


def test_the_first_estimate_is_told_and_what_time_alone_does_is_not(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine:
            other = await granted(engine, lock("tweet:2", ttl_ns=HOUR))
            await asyncio.sleep(60)
            await granted(engine, lock(ttl_ns=HOUR))
            reader = Reader(engine.wait(waiting_lock("w2")))
            assert (await reader.told(_is_place(1))).wait_ns is None
            await engine.submit(release(other))
            told = await reader.told(lambda event: event.wait_ns is not None)
            assert 59 * SECOND < told.wait_ns <= 61 * SECOND
            for _ in range(100):
                await asyncio.sleep(0.1)
                # A step, so that places are looked at again.
                await engine.submit(lock("tweet:3"))
            assert len(reader.events) == 2
            await reader.gone()

    time.run(story())
