"""A watch sees every outcome and notice, in order, after its commit; what it can't take is counted."""

import asyncio
import tracemalloc

from engine_rig import GatedStore, granted, lock, release, turns, waiting_lock

from coordd.core.commands import RecordUsage
from coordd.core.limits import MILLISECOND
from coordd.core.outcomes import Expired, Granted, LockReleased, Reason, Refused, UsageRecorded
from coordd.engine import DrainChanged, Engine, Event
from coordd.engine.watch import BYTES_PER_EVENT, BYTES_PER_WATCH_MAX, Watch


async def test_outcomes_come_in_order_with_their_commands(engine: Engine) -> None:
    async with engine.watch() as watch:
        held = await granted(engine, lock())
        await engine.submit(lock(worker="w2"))
        await engine.submit(release(held))
        events = [await anext(watch) for _ in range(3)]
    assert [type(event.outcome) for event in events] == [Granted, Refused, LockReleased]
    assert [event.command for event in events] == [lock(), lock(worker="w2"), release(held)]
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert not engine.watchers


async def test_nothing_is_shown_before_its_commit(engine: Engine, store: GatedStore) -> None:
    async with engine.watch() as watch:
        store.hold()
        answer = asyncio.create_task(engine.submit(lock()))
        await store.arrival()
        event = asyncio.create_task(anext(watch))
        await turns()
        assert not event.done()
        store.let_go()
        assert isinstance((await event).outcome, Granted)
        await answer


async def test_what_time_does_has_no_command(engine: Engine) -> None:
    async with engine.watch() as watch:
        await granted(engine, lock(ttl_ns=MILLISECOND))
        assert isinstance((await anext(watch)).outcome, Granted)
        expired = await anext(watch)
    assert isinstance(expired.outcome, Expired)
    assert expired.command is None


async def test_a_waiters_grant_is_shown(engine: Engine) -> None:
    held = await granted(engine, lock())
    async with engine.wait(waiting_lock("w2")) as wait, engine.watch() as watch:
        await anext(wait)
        await engine.submit(release(held))
        names = [type((await anext(watch)).outcome).__name__ for _ in range(3)]
        assert names == ["Queued", "LockReleased", "WaitGranted"]
        await anext(wait)


async def test_a_slow_watcher_is_told_how_many_it_missed() -> None:
    watch = Watch(set())
    count_max = BYTES_PER_WATCH_MAX // BYTES_PER_EVENT
    events = [Event(at=at, command=None, outcome=_refused()) for at in range(count_max + 5)]
    for event in events:
        watch.put(event)
    assert [(await anext(watch)).at for _ in range(2)] == [0, 1]
    watch.put(Event(at=99, command=None, outcome=_refused()))
    watch.put(Event(at=100, command=None, outcome=_refused()))
    rest = [await anext(watch) for _ in range(count_max)]
    assert [event.missed for event in rest[-3:]] == [0, 5, 0]
    assert [event.at for event in rest[-2:]] == [99, 100]


async def test_one_slow_watcher_holds_nobody_up(engine: Engine) -> None:
    async with engine.watch(), engine.watch() as fast:
        await granted(engine, lock())
        assert isinstance((await anext(fast)).outcome, Granted)


def _refused() -> Refused:
    return Refused(reason=Reason.HELD, subject="x")


async def test_a_slow_watcher_holds_no_more_than_its_bytes_whatever_the_headers() -> None:
    tracemalloc.start()
    try:
        watch = Watch(set())
        for index in range(200):
            # Two bytes a character, as it comes from the wire: nothing is shared.
            headers = tuple((f"x-{index}-{field}", f"{index}-{field}" + "ü" * 2_000) for field in range(100))
            used = RecordUsage(
                endpoint="post", worker="w1", id=index, is_sent=True, is_success=True, headers=headers
            )
            watch.put(Event(at=index, command=used, outcome=UsageRecorded(permit=None)))
            del headers, used
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert BYTES_PER_WATCH_MAX // 2 < held_bytes < BYTES_PER_WATCH_MAX * 1.1
    # Reading makes room again.
    assert (await anext(watch)).at == 0
    watch.put(Event(at=999, command=None, outcome=_refused()))
    while (event := await anext(watch)).at != 999:
        pass
    assert event.missed > 100


async def test_an_operators_drain_is_shown(engine: Engine) -> None:
    async with engine.watch() as watch:
        engine.drain("upgrade")
        engine.undrain()
        engine.undrain()
        await granted(engine, lock())
        events = [await anext(watch) for _ in range(3)]
    assert [event.outcome for event in events[:2]] == [
        DrainChanged(is_draining=True, reason="upgrade"),
        DrainChanged(is_draining=False, reason=""),
    ]
    assert isinstance(events[2].outcome, Granted)


async def test_an_operators_drain_is_shown_at_once(engine: Engine) -> None:
    async with engine.watch() as watch:
        engine.drain("upgrade")
        assert isinstance((await asyncio.wait_for(anext(watch), 5)).outcome, DrainChanged)
