"""Time: it never runs backwards, and what falls due happens by itself, once each, however far off."""

import asyncio
from typing import Any

import pytest
from engine_rig import (
    MemoryStore,
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

from coordd.core.commands import RenewLock, ScheduleRequest
from coordd.core.errors import FailedPrecondition
from coordd.core.limits import COMMANDS_PER_BATCH_MAX, DAY, DUE_PER_TICK_MAX, HOUR, MINUTE, SECOND
from coordd.core.outcomes import Booked, Expired, Granted, Place, Reason
from coordd.core.records import Table
from coordd.engine import Clock


def test_a_lease_expires_by_itself_and_its_waiter_is_granted(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine:
            held = await granted(engine, lock(ttl_ns=MINUTE))
            reader = Reader(engine.wait(waiting_lock("w2")))
            lease = (await reader.task).grant
            # Not before the lease and the rest after it are over, and within a breath of it.
            due_at = held.grant.granted_at + MINUTE + SECOND
            assert 0 <= lease.granted_at - due_at <= SECOND // 1_000

    time.run(story())


def test_everything_due_happens_in_its_order(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine, engine.watch() as watch:
            for item, ttl_ns in (("c", 3 * MINUTE), ("a", MINUTE), ("b", 2 * MINUTE)):
                await granted(engine, lock(item, ttl_ns=ttl_ns))
            await granted(engine, permit())
            booked = await engine.submit(ScheduleRequest(endpoint="post", worker="w1", not_before_ns=HOUR))
            assert isinstance(booked, Booked)
            expired: list[Any] = []
            while len(expired) < 5:
                event = await anext(watch)
                if isinstance(event.outcome, Expired):
                    expired.append(event.outcome.grant)
            assert [getattr(grant, "item", type(grant).__name__) for grant in expired] == [
                "Permit",
                "a",
                "b",
                "c",
                "Booking",
            ]

    time.run(story())


def test_a_renewed_lease_does_not_expire_at_its_first_end(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine, engine.watch() as watch:
            held = await granted(engine, lock(ttl_ns=MINUTE))
            token = held.grant.token  # type: ignore[union-attr]
            await engine.submit(RenewLock(item="tweet:1", worker="w1", token=token, ttl_ns=HOUR))
            events = [await anext(watch) for _ in range(3)]
            assert isinstance(events[-1].outcome, Expired)
            assert events[-1].at - held.grant.granted_at >= HOUR

    time.run(story())


def test_a_wait_times_out_by_itself(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine:
            await granted(engine, lock(ttl_ns=DAY))
            began = engine.now()
            refused = await Reader(engine.wait(waiting_lock("w2", wait_ns=HOUR))).task
            assert refused.reason == Reason.WAIT_TIMEOUT
            assert 0 <= engine.now() - began - HOUR <= SECOND // 1_000

    time.run(story())


def test_an_away_waiter_is_dropped_after_its_grace(time: VirtualTime) -> None:
    async def story() -> None:
        store = MemoryStore()
        async with running(store, clock=time.clock()) as engine, engine.watch() as watch:
            await granted(engine, lock(ttl_ns=DAY))
            reader = Reader(engine.wait(waiting_lock("w2", request_id="r")))
            await reader.told(lambda event: isinstance(event, Place))
            assert len(store.tables[Table.WAITERS]) == 1
            await reader.gone()
            names = [type((await anext(watch)).outcome).__name__ for _ in range(4)]
            assert names == ["Granted", "Queued", "WaiterLeft", "WaitRefused"]
            assert store.tables[Table.WAITERS] == {}

    time.run(story())


def test_a_crowd_that_expires_at_once_is_done_in_several_steps(time: VirtualTime) -> None:
    count = 2 * DUE_PER_TICK_MAX + 10

    async def story() -> None:
        store = MemoryStore()
        async with running(store, clock=time.clock()) as engine, engine.watch() as watch:
            for index in range(count):
                await granted(engine, lock(f"item:{index}", ttl_ns=HOUR))
            ended = 0
            while ended < count:
                ended += isinstance((await anext(watch)).outcome, Expired)
            await turns()
            assert store.tables[Table.LOCKS] == {}
            assert len(store.tables[Table.ENGAGEMENTS]) == count

    time.run(story())


def test_what_is_due_happens_however_many_errors_fill_the_batch(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine, engine.watch() as watch:
            held = await granted(engine, lock(ttl_ns=MINUTE))
            assert isinstance((await anext(watch)).outcome, Granted)
            stale = RenewLock(item="tweet:1", worker="w1", token=held.grant.token - 1)  # type: ignore[union-attr]
            for _ in range(COMMANDS_PER_BATCH_MAX):
                with pytest.raises(FailedPrecondition):
                    await engine.submit(stale)
            async with asyncio.timeout(HOUR // SECOND):
                assert isinstance((await anext(watch)).outcome, Expired)

    time.run(story())


def test_a_read_that_finds_that_charges_have_left_is_answered(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine:
            await granted(engine, permit())
            # The permit's own time passes, which is an event; that its charge leaves the window is none.
            time.pass_ns(MINUTE)
            view = await engine.read(lambda machine, now: machine.limit("post", now))
            assert [window.used for window in view.windows] == [1]
            time.pass_ns(3 * HOUR)
            view = await engine.read(lambda machine, now: machine.limit("post", now))
            assert [window.used for window in view.windows] == [0]

    time.run(story())


# -- the clock -----------------------------------------------------------------------------------------------


def test_the_clock_follows_the_monotonic_source_whatever_the_wall_does(time: VirtualTime) -> None:
    clock = time.clock()
    start = clock.start(0)
    assert start == time.wall_ns
    time.wall_ns -= DAY
    assert clock.now() == start
    time.monotonic_ns += 5
    time.wall_ns += 2 * DAY
    assert clock.now() == start + 5


def test_the_clock_starts_above_its_floor() -> None:
    clock = Clock(wall_ns=lambda: 1_000, monotonic_ns=lambda: 7)
    assert clock.now() == 1_000
    assert clock.start(2_000) == 2_001
    assert clock.now() == 2_001


def test_after_a_restart_with_the_wall_clock_set_back_time_goes_on(time: VirtualTime) -> None:
    async def story() -> None:
        store = MemoryStore()
        async with running(store, clock=time.clock()) as engine:
            held = await granted(engine, lock(ttl_ns=HOUR))
            token = held.grant.token  # type: ignore[union-attr]
        time.wall_ns -= 30 * DAY
        async with running(store, clock=time.clock()) as again:
            assert again.now() > store.batches[-1].instant
            # The lease that was live is live, and ends; it does not last 30 days longer.
            view = await again.read(lambda machine, now: machine.item("tweet:1", "", now))
            assert view.lock is not None
            assert view.lock.expires_at == held.grant.granted_at + HOUR
            fresh = await granted(again, lock("tweet:2"))
            assert fresh.grant.token > token  # type: ignore[union-attr]
            assert fresh.grant.granted_at > held.grant.granted_at
            await again.submit(release(held))

    time.run(story())


def test_after_a_restart_a_lease_has_at_least_the_recovery_grace(time: VirtualTime) -> None:
    async def story() -> None:
        store = MemoryStore()
        async with running(store, clock=time.clock()) as engine:
            await granted(engine, lock(ttl_ns=MINUTE))
        time.pass_ns(HOUR)
        async with running(store, clock=time.clock()) as again, again.watch() as watch:
            began = again.now()
            event = await anext(watch)
            assert isinstance(event.outcome, Expired)
            assert 30 * SECOND <= event.at - began <= 31 * SECOND

    time.run(story())


def test_old_history_is_pruned_at_most_once_a_minute(time: VirtualTime) -> None:
    async def story() -> None:
        store = MemoryStore()
        async with running(store, clock=time.clock(), history_retention_ns=HOUR) as engine:
            for _ in range(3):
                await engine.submit(release(await granted(engine, lock())))
            time.pass_ns(2 * MINUTE)
            for _ in range(3):
                await engine.submit(release(await granted(engine, lock())))
        pruned = [batch for batch in store.batches if batch.prune_before]
        assert len(pruned) == 1
        assert pruned[0].prune_before == pruned[0].instant - HOUR

    time.run(story())
