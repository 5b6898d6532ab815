"""Nothing is answered before it is durable; what comes meanwhile is one batch; nobody disturbs another."""

import asyncio
from typing import Any

import pytest
from engine_rig import GatedStore, VirtualTime, granted, lock, permit, release, running, turns

from coordd.core.commands import ReleaseLock, RenewLock
from coordd.core.errors import CommandError, FailedPrecondition
from coordd.core.limits import COMMANDS_PER_BATCH_MAX, DAY, DUE_PER_TICK_MAX, HOUR, RECORDS_PER_BATCH_MAX
from coordd.core.outcomes import Granted, LockReleased, Reason, Refused
from coordd.core.records import Batch, Table
from coordd.engine import Engine


async def _logged(store: GatedStore, name: str, answer: Any) -> Any:
    try:
        return await answer
    finally:
        store.log.append(name)


async def test_a_grant_is_answered_after_its_commit(engine: Engine, store: GatedStore) -> None:
    store.hold()
    answer = asyncio.create_task(_logged(store, "granted", engine.submit(lock())))
    await store.arrival()
    await turns()
    assert not answer.done()
    store.let_go()
    assert isinstance(await answer, Granted)
    assert store.log == ["commit 1", "granted"]


async def test_a_refusal_waits_for_what_it_saw(engine: Engine, store: GatedStore) -> None:
    store.hold()
    grant = asyncio.create_task(_logged(store, "granted", engine.submit(lock())))
    await store.arrival()
    refusal = asyncio.create_task(_logged(store, "refused", engine.submit(lock(worker="w2"))))
    await turns()
    assert not refusal.done()
    store.let_go()
    refused = await refusal
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.holder) == (Reason.HELD, "w1")
    await grant
    assert store.log == ["commit 1", "granted", "refused"]


async def test_an_error_waits_for_what_it_saw(engine: Engine, store: GatedStore) -> None:
    held = await granted(engine, lock())
    store.hold()
    released = asyncio.create_task(_logged(store, "released", engine.submit(release(held))))
    await store.arrival()
    await store.arrival()
    stale = release(held)
    renewal = asyncio.create_task(_logged(store, "lost", engine.submit(_renewal(stale))))
    await turns()
    assert not renewal.done()
    store.let_go()
    with pytest.raises(FailedPrecondition):
        await renewal
    await released
    assert store.log[-3:] == ["commit 2", "released", "lost"]


def _renewal(command: Any) -> Any:
    return RenewLock(item=command.item, worker=command.worker, token=command.token)


async def test_a_read_waits_for_what_it_saw(engine: Engine, store: GatedStore) -> None:
    store.hold()
    grant = asyncio.create_task(_logged(store, "granted", engine.submit(lock())))
    await store.arrival()
    read = asyncio.create_task(
        _logged(store, "read", engine.read(lambda machine, now: machine.item("tweet:1", "", now)))
    )
    await turns()
    assert not read.done()
    store.let_go()
    view = await read
    assert view.lock is not None
    assert view.lock.worker == "w1"
    await grant
    assert store.log == ["commit 1", "granted", "read"]


async def test_a_read_that_fails_waits_too(engine: Engine, store: GatedStore) -> None:
    store.hold()
    grant = asyncio.create_task(engine.submit(lock()))
    await store.arrival()
    read = asyncio.create_task(engine.read(lambda machine, now: machine.item("tweet:1", "none", now)))
    await turns()
    assert not read.done()
    store.let_go()
    with pytest.raises(CommandError):
        await read
    await grant


async def test_with_nothing_open_a_read_does_not_commit(engine: Engine, store: GatedStore) -> None:
    view = await engine.read(lambda machine, now: machine.item("tweet:1", "", now))
    assert view.lock is None
    assert store.batches == []


async def test_a_refusal_that_saw_only_durable_state_does_not_commit(
    engine: Engine, store: GatedStore
) -> None:
    await granted(engine, lock())
    assert isinstance(await engine.submit(lock(worker="w2")), Refused)
    assert len(store.batches) == 1


async def test_what_comes_during_a_commit_is_one_batch(engine: Engine, store: GatedStore) -> None:
    store.hold()
    first = asyncio.create_task(engine.submit(lock("first")))
    await store.arrival()
    rest = [asyncio.create_task(engine.submit(lock(f"item:{index}"))) for index in range(100)]
    await turns()
    assert len(store.batches) == 1
    store.let_go()
    await asyncio.gather(first, *rest)
    assert [len(batch.puts[Table.LOCKS]) for batch in store.batches] == [1, 100]
    assert [batch.sequence for batch in store.batches] == [1, 2]


async def test_what_came_and_went_within_a_batch_is_no_lock_but_history(
    engine: Engine, store: GatedStore
) -> None:
    store.hold()
    first = asyncio.create_task(engine.submit(lock("first")))
    await store.arrival()
    grants = asyncio.create_task(engine.submit(lock("second")))
    await turns()
    # Nobody can know the token before its commit; the next one after the first is it.
    token = store.batches[0].last_id + 1
    ended = asyncio.create_task(
        engine.submit(ReleaseLock(item="second", worker="w1", token=token, outcome=1))
    )
    await turns()
    store.let_go()
    await asyncio.gather(first, grants)
    assert isinstance(await ended, LockReleased)
    [_, batch] = store.batches
    assert batch.puts[Table.LOCKS] == []
    assert batch.deletes[Table.LOCKS] == [(token,)]
    assert [row[0] for row in batch.puts[Table.ENGAGEMENTS]] == [token]


async def test_cancelling_one_request_disturbs_no_other(engine: Engine, store: GatedStore) -> None:
    store.hold()
    answers = [asyncio.create_task(engine.submit(lock(f"item:{index}"))) for index in range(3)]
    await store.arrival()
    answers += [asyncio.create_task(engine.submit(lock(f"item:{index}"))) for index in range(3, 6)]
    await turns()
    for index in (0, 4):
        answers[index].cancel()
    store.let_go()
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        asyncio.CancelledError,
        Granted,
        Granted,
        Granted,
        asyncio.CancelledError,
        Granted,
    ]
    # What was decided stays decided: its caller may have gone, its grant is there.
    assert isinstance(await engine.submit(lock("item:4", worker="w2")), Refused)


async def test_a_full_batch_admits_no_more_until_it_is_closed(engine: Engine, store: GatedStore) -> None:
    store.hold()
    first = asyncio.create_task(engine.submit(lock("first")))
    await store.arrival()
    count = 2 * COMMANDS_PER_BATCH_MAX + 10
    rest = [asyncio.create_task(engine.submit(lock(f"item:{index}"))) for index in range(count)]
    await turns()
    assert engine.status().commands == 1 + COMMANDS_PER_BATCH_MAX
    store.let_go()
    await asyncio.gather(first, *rest)
    sizes = [len(batch.puts[Table.LOCKS]) for batch in store.batches]
    assert sum(sizes) == 1 + count
    assert max(sizes) <= COMMANDS_PER_BATCH_MAX


async def test_a_batch_full_of_refusals_is_closed_too(engine: Engine) -> None:
    await granted(engine, lock())
    for _ in range(COMMANDS_PER_BATCH_MAX + 10):
        assert isinstance(await engine.submit(lock(worker="w2")), Refused)


async def test_one_who_gives_up_before_the_door_changes_nothing(engine: Engine, store: GatedStore) -> None:
    store.hold()
    first = asyncio.create_task(engine.submit(lock("first")))
    await store.arrival()
    full = [
        asyncio.create_task(engine.submit(lock(f"item:{index}"))) for index in range(COMMANDS_PER_BATCH_MAX)
    ]
    late = asyncio.create_task(engine.submit(lock("late")))
    await turns()
    late.cancel()
    store.let_go()
    await asyncio.gather(first, *full)
    assert isinstance(await engine.submit(lock("late", worker="w2")), Granted)


async def test_a_batch_says_the_last_id_and_instant_of_its_decisions(
    engine: Engine, store: GatedStore
) -> None:
    before = engine.now()
    held = await granted(engine, lock())
    [batch] = store.batches
    assert batch.last_id == held.grant.token  # type: ignore[union-attr]
    assert before <= held.grant.granted_at <= batch.instant <= engine.now()


async def test_everything_acknowledged_is_there_after_a_restart(engine: Engine, store: GatedStore) -> None:
    held = await granted(engine, lock(request_id="r1"))
    await granted(engine, permit(request_id="r2"))
    await engine.stop()
    async with running(GatedStore(store._path)) as again:
        repeat = await granted(again, lock(request_id="r1"))
        assert repeat.is_repeat
        assert repeat.grant.token == held.grant.token  # type: ignore[union-attr]
        assert (await granted(again, permit(request_id="r2"))).is_repeat
        fresh = await granted(again, lock("tweet:2"))
        assert fresh.grant.token > held.grant.token  # type: ignore[union-attr]


async def test_status_counts_commits_and_commands(engine: Engine) -> None:
    assert engine.status().commit_ns_mean is None
    await granted(engine, lock())
    await engine.submit(lock(worker="w2"))
    status = engine.status()
    assert (status.commits, status.commands) == (1, 2)
    assert status.commit_ns_mean is not None
    assert status.commit_ns_mean > 0
    assert status.uptime_ns > 0


# What one step may add to a batch that was not full yet: every lease that ends is a lock less, an entry of
# the history more and a hold time.
_STEP = 3 * DUE_PER_TICK_MAX


def _records(batch: Batch) -> int:
    return sum(map(len, batch.puts.values())) + sum(map(len, batch.deletes.values()))


async def _filled(engine: Engine, count: int, ttl_ns: int = HOUR) -> None:
    await asyncio.gather(*(engine.submit(lock(f"item:{index}", ttl_ns=ttl_ns)) for index in range(count)))


async def test_what_falls_due_waits_for_room_in_the_batch(store: GatedStore, time: VirtualTime) -> None:
    count = 2 * RECORDS_PER_BATCH_MAX
    async with running(store, clock=time.clock()) as engine:
        await _filled(engine, count)
        store.batches.clear()
        store.hold()
        time.pass_ns(HOUR)
        engine._on_timer()
        # Many times as many steps as it takes to end all of them.
        await turns(count)
        store.let_go()
        while (await engine.read(lambda machine, _: machine.counts())).locks:
            pass
    ended = [row for batch in store.batches for row in batch.puts.get(Table.ENGAGEMENTS, ())]
    assert len(ended) == count
    assert max(map(_records, store.batches)) <= RECORDS_PER_BATCH_MAX + _STEP


async def test_questions_and_leaving_streams_do_not_make_a_full_batch_fuller(
    store: GatedStore, time: VirtualTime
) -> None:
    count = 2 * RECORDS_PER_BATCH_MAX
    async with running(store, clock=time.clock()) as engine:
        await _filled(engine, count)
        waits = [engine.wait(lock("item:0", worker=f"w{index}", wait_ns=DAY)) for index in range(100)]
        for wait in waits:
            await anext(wait)
        store.batches.clear()
        store.hold()
        time.pass_ns(HOUR)
        reads = [asyncio.create_task(engine.read(lambda machine, _: machine.counts())) for _ in range(100)]
        await turns()
        for wait in waits:
            await wait.__aexit__(None, None, None)
        store.let_go()
        await asyncio.gather(*reads)
    assert max(map(_records, store.batches)) <= RECORDS_PER_BATCH_MAX + _STEP


async def test_a_batch_of_many_records_admits_no_more(store: GatedStore, time: VirtualTime) -> None:
    async with running(store, clock=time.clock()) as engine:
        await _filled(engine, 2 * RECORDS_PER_BATCH_MAX)
        store.hold()
        time.pass_ns(HOUR)
        engine._on_timer()
        await turns(1_000)
        before = engine.status().commands
        late = asyncio.create_task(engine.submit(lock("late")))
        await turns()
        assert engine.status().commands == before
        store.let_go()
        assert isinstance(await late, Granted)
