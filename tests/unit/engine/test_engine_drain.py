"""Draining: nothing new is granted and every wait ends; what is held may be renewed or given back."""

import asyncio

import pytest
from engine_rig import (
    RULES,
    GatedStore,
    Reader,
    VirtualTime,
    granted,
    lock,
    permit,
    release,
    running,
    turns,
    waiting_lock,
)

from coordd.core.commands import RecordUsage, RenewLock, ReserveResource, ScheduleRequest
from coordd.core.limits import HOUR, RECORDS_PER_BATCH_MAX
from coordd.core.machine import Command
from coordd.core.outcomes import Granted, LockReleased, Place, Renewed, UsageRecorded
from coordd.engine import Draining, Engine, StoreFailed
from coordd.store.protocol import CommitFailed


@pytest.mark.parametrize(
    "command",
    [
        lock(),
        permit(),
        ReserveResource(type="content", worker="w1"),
        ScheduleRequest(endpoint="post", worker="w1"),
    ],
)
async def test_nothing_new_is_granted(engine: Engine, command: Command) -> None:
    engine.drain("upgrade")
    with pytest.raises(Draining):
        await engine.submit(command)
    assert engine.is_draining


async def test_what_is_held_goes_on(engine: Engine) -> None:
    held = await granted(engine, lock())
    charged = await granted(engine, permit())
    engine.drain("upgrade")
    token = held.grant.token  # type: ignore[union-attr]
    assert isinstance(await engine.submit(RenewLock(item="tweet:1", worker="w1", token=token)), Renewed)
    assert isinstance(await engine.submit(release(held)), LockReleased)
    used = RecordUsage(
        endpoint="post",
        worker="w1",
        id=charged.grant.id,  # type: ignore[union-attr]
        is_sent=True,
        is_success=True,
    )
    assert isinstance(await engine.submit(used), UsageRecorded)
    assert (await engine.read(lambda machine, _: machine.counts())).locks == 0


async def test_every_wait_ends_with_the_reason(engine: Engine) -> None:
    await granted(engine, lock())
    reader = Reader(engine.wait(waiting_lock("w2")))
    await reader.told(lambda event: isinstance(event, Place))
    engine.drain("upgrade")
    with pytest.raises(Draining, match=r"^the daemon is draining: upgrade$"):
        await reader.task
    with pytest.raises(Draining, match=r"^the daemon is draining: upgrade$"):
        await engine.submit(lock(worker="w3"))


async def test_without_a_reason_none_is_made_up(engine: Engine) -> None:
    engine.drain("")
    with pytest.raises(Draining, match=r"^the daemon is draining$"):
        await engine.submit(lock())


async def test_no_wait_begins(engine: Engine) -> None:
    await granted(engine, lock())
    engine.drain("upgrade")
    with pytest.raises(Draining):
        await Reader(engine.wait(waiting_lock("w2"))).task


async def test_a_wait_that_is_just_beginning_ends_too(engine: Engine, store: GatedStore) -> None:
    await granted(engine, lock())
    await store.arrival()
    store.hold()
    reader = Reader(engine.wait(waiting_lock("w2", request_id="r")))
    await store.arrival()
    engine.drain("upgrade")
    store.let_go()
    with pytest.raises(Draining):
        await reader.task
    assert reader.events == []


async def test_a_grant_under_way_when_draining_begins_is_told(engine: Engine, store: GatedStore) -> None:
    store.hold()
    answer = asyncio.create_task(engine.submit(lock()))
    await store.arrival()
    engine.drain("upgrade")
    store.let_go()
    assert isinstance(await answer, Granted)


async def test_undrain_grants_again_and_waiters_come_back_to_their_place(engine: Engine) -> None:
    held = await granted(engine, lock())
    reader = Reader(engine.wait(waiting_lock("w2", request_id="r")))
    await reader.told(lambda event: isinstance(event, Place))
    engine.drain("upgrade")
    with pytest.raises(Draining):
        await reader.task
    engine.undrain()
    behind = Reader(engine.wait(waiting_lock("w3")))
    await behind.told(lambda event: isinstance(event, Place))
    back = Reader(engine.wait(waiting_lock("w2", request_id="r")))
    await back.told(lambda event: isinstance(event, Place) and event.position == 1)
    await engine.submit(release(held))
    assert (await back.task).grant.worker == "w2"
    await behind.gone()


# -- stopping ------------------------------------------------------------------------------------------------


async def test_stop_commits_what_is_open(store: GatedStore) -> None:
    async with running(store) as engine:
        store.hold()
        first = asyncio.create_task(engine.submit(lock("first")))
        await store.arrival()
        second = asyncio.create_task(engine.submit(lock("second")))
        await turns()
        stopping = asyncio.create_task(engine.stop())
        await turns()
        assert not stopping.done()
        store.let_go()
        await stopping
        assert isinstance(await first, Granted)
        assert isinstance(await second, Granted)
    async with running(GatedStore(store._path)) as again:
        assert (await again.read(lambda machine, _: machine.counts())).locks == 2


async def test_stop_ends_every_wait(engine: Engine) -> None:
    await granted(engine, lock())
    reader = Reader(engine.wait(waiting_lock("w2")))
    await reader.told(lambda event: isinstance(event, Place))
    await engine.stop()
    with pytest.raises(Draining):
        await reader.task


async def test_once_stopped_nothing_is_decided_and_nobody_hangs(engine: Engine) -> None:
    held = await granted(engine, lock())
    await engine.stop()
    with pytest.raises((Draining, StoreFailed)):
        await engine.submit(release(held))
    with pytest.raises((Draining, StoreFailed)):
        await engine.submit(lock("tweet:2"))
    with pytest.raises((Draining, StoreFailed)):
        await engine.read(lambda machine, _: machine.counts())


async def test_stop_does_not_wait_for_all_that_is_due(store: GatedStore, time: VirtualTime) -> None:
    count = 4 * RECORDS_PER_BATCH_MAX
    async with running(store, clock=time.clock()) as engine:
        await asyncio.gather(*(engine.submit(lock(f"item:{index}", ttl_ns=HOUR)) for index in range(count)))
        store.batches.clear()
        store.hold()
        time.pass_ns(HOUR)
        first = asyncio.create_task(engine.read(lambda machine, _: machine.counts()))
        await turns()
        engine._on_timer()
        # The next batch fills up, and what is due waits for room.
        await turns(1_000)
        stopping = asyncio.create_task(engine.stop())
        await turns()
        store.let_go()
        await stopping
        await first
    # What was under way, and what was open.
    assert len(store.batches) <= 2


async def test_an_engine_that_never_started_stops(store: GatedStore) -> None:
    await Engine(RULES, store).stop()


async def test_winding_down_ends_every_wait_and_grants_nothing_more(engine: Engine) -> None:
    held = await granted(engine, lock())
    reader = Reader(engine.wait(waiting_lock("w2")))
    await reader.told(lambda event: isinstance(event, Place))
    engine.wind_down()
    with pytest.raises(Draining, match=r"^the daemon is stopping$"):
        await reader.task
    with pytest.raises(Draining, match=r"^the daemon is stopping$"):
        await engine.submit(lock(worker="w3"))
    assert isinstance(await engine.submit(release(held)), LockReleased)
    # Whatever an operator does meanwhile.
    engine.undrain()
    assert engine.is_draining
    with pytest.raises(Draining, match=r"^the daemon is stopping$"):
        await engine.submit(lock(worker="w3"))


async def test_a_watch_ends_once_it_has_shown_what_happened(engine: Engine) -> None:
    async with engine.watch() as watch:
        held = await granted(engine, lock())
        engine.wind_down()
        await engine.submit(release(held))
        engine.end_watches()
        assert [type((await anext(watch)).outcome) for _ in range(2)] == [Granted, LockReleased]
        with pytest.raises(Draining, match=r"^the daemon is stopping$"):
            await anext(watch)
    with pytest.raises(Draining):
        engine.watch()


async def test_winding_down_after_a_failure_says_what_failed(engine: Engine, store: GatedStore) -> None:
    held = await granted(engine, lock())
    reader = Reader(engine.wait(waiting_lock("w2")))
    await reader.told(lambda event: isinstance(event, Place))
    async with engine.watch() as watch:
        store.error = CommitFailed("disk full")
        with pytest.raises(StoreFailed):
            await engine.submit(release(held))
        engine.wind_down()
        engine.end_watches()
        with pytest.raises(StoreFailed):
            await anext(watch)
    with pytest.raises(StoreFailed):
        await reader.task
