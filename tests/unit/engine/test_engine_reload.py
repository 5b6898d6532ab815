"""Other rules under a running engine: who asks meanwhile waits, and all that comes of it is durable."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_rig import RULES, GatedStore, granted, lock, permit, release, running, waiting_lock
from msgspec.structs import replace

from coordd.core.commands import ReserveResource
from coordd.core.errors import InvalidArgument
from coordd.core.outcomes import WaitVoided
from coordd.core.records import Row, Table
from coordd.core.rules import KindRule, PoolRule, Rules
from coordd.engine import Engine, StoreFailed, Wait
from coordd.store.protocol import CommitFailed, Unreadable

OTHER = replace(RULES, kinds={"reply": KindRule(ttl_ns=7 * 10**9), "like": KindRule()})


class SlowStore(GatedStore):
    """Reads what a reload needs when it is let to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.unreadable = False

    async def recent(self, history_ns: int) -> Mapping[Table, Sequence[Row]]:
        self.is_asked.set()
        await self.may_answer.wait()
        if self.unreadable:
            raise Unreadable("the disk is gone")
        return await super().recent(history_ns)


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path / "coordd.db")


def reload(engine: Engine, rules: Rules = OTHER) -> "asyncio.Task[None]":
    return asyncio.create_task(engine.reload(rules, history_retention_ns=10**15))


async def last(wait: Wait) -> Any:
    """Return how a wait ends."""
    return [told async for told in wait][-1]


async def test_who_asks_meanwhile_is_answered_by_the_new_rules(store: SlowStore) -> None:
    async with running(store) as engine:
        held = await granted(engine, lock())
        reloading = reload(engine)
        await store.is_asked.wait()
        asked = asyncio.create_task(granted(engine, lock("tweet:2")))
        read = asyncio.create_task(engine.read(lambda machine, _: machine.rules))
        again = reload(engine, RULES)
        await asyncio.sleep(0)
        assert not asked.done()
        assert not read.done()
        store.may_answer.set()
        await reloading
        assert (await asked).grant.ttl_ns == 7 * 10**9
        assert (await read).kinds == OTHER.kinds
        await again
        assert (await granted(engine, lock("tweet:3"))).grant.ttl_ns == RULES.kinds["reply"].ttl_ns
        await engine.submit(release(held))


async def test_waits_go_on_over_it_and_a_stream_that_leaves_meanwhile_is_away(store: SlowStore) -> None:
    async with running(store) as engine:
        held = await granted(engine, lock())
        leaving, staying = waiting_lock("w2", request_id="r"), waiting_lock("w3")
        async with engine.wait(leaving) as leaver, engine.wait(staying) as stayer:
            await anext(leaver)
            await anext(stayer)
            reloading = reload(engine)
            await store.is_asked.wait()
            engine.end_wait(leaver)
            store.may_answer.set()
            await reloading
            counts = await engine.read(lambda machine, _: machine.counts())
            assert (counts.waiters, counts.waiters_away) == (2, 1)
            await engine.submit(release(held, 2))
            final = await last(stayer)
            assert final.grant.worker == "w3"


async def test_a_wait_for_what_is_gone_ends_with_the_error_a_newcomer_gets(store: SlowStore) -> None:
    store.may_answer.set()
    async with running(store) as engine:
        await granted(engine, lock())
        async with engine.wait(waiting_lock("w2", request_id="r")) as wait, engine.watch() as watch:
            await anext(wait)
            await reload(engine, replace(RULES, kinds={"like": KindRule()}))
            with pytest.raises(InvalidArgument, match="reply"):
                await last(wait)
            while not isinstance((event := await anext(watch)).outcome, WaitVoided):
                pass
            assert event.outcome.error.reason == "UNKNOWN_KIND"
        assert not engine.waits


async def test_what_it_gives_and_drops_is_durable(store: SlowStore, tmp_path: Path) -> None:
    store.may_answer.set()
    async with running(store) as engine:
        await granted(engine, permit(request_id="r"))
        await reload(engine, replace(RULES, limits={}))
    async with running(GatedStore(tmp_path / "coordd.db")) as engine:
        assert (await engine.read(lambda machine, _: machine.counts())).permits == 0


async def test_a_lease_runs_out_as_promised_though_a_reload_stands_in_between(store: SlowStore) -> None:
    async with running(store) as engine, engine.watch() as watch:
        await granted(engine, lock(ttl_ns=10**8))
        await anext(watch)
        reloading = reload(engine)
        await store.is_asked.wait()
        store.may_answer.set()
        await reloading
        assert type((await anext(watch)).outcome).__name__ == "Expired"


async def test_what_can_not_be_read_leaves_the_old_rules(store: SlowStore) -> None:
    store.unreadable = True
    store.may_answer.set()
    async with running(store) as engine:
        with pytest.raises(Unreadable):
            await reload(engine)
        assert (await granted(engine, lock())).grant.ttl_ns == RULES.kinds["reply"].ttl_ns


async def test_a_store_that_fails_meanwhile_is_told_as_ever(store: SlowStore) -> None:
    store.may_answer.set()
    async with running(store) as engine:
        store.error = CommitFailed("disk full")
        store.hold()
        asked = asyncio.create_task(engine.submit(lock()))
        await store.arrival()
        reloading = reload(engine)
        await asyncio.sleep(0)
        store.let_go()
        for each in (asked, reloading):
            with pytest.raises(StoreFailed):
                await each


async def test_a_waiter_is_served_by_what_a_reload_adds(store: SlowStore) -> None:
    store.may_answer.set()
    async with running(store) as engine:
        await granted(engine, ReserveResource(type="content", worker="w1", units=2))
        async with engine.wait(ReserveResource(type="content", worker="w2", wait_ns=10**12)) as wait:
            await anext(wait)
            await reload(engine, replace(RULES, pools={"slots": PoolRule(capacity=3)}))
            final = await last(wait)
            assert final.grant.worker == "w2"
