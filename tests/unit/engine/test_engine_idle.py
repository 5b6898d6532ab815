"""An engine on which nothing changes answers all the same."""

import asyncio

from engine_rig import MemoryStore, VirtualTime, granted, lock, permit, running

from coordd.core.limits import COMMANDS_PER_BATCH_MAX, HOUR, SECOND
from coordd.core.outcomes import Refused
from coordd.engine import Engine


async def test_refusals_without_end_never_fill_the_batch(engine: Engine) -> None:
    await granted(engine, lock(worker="w1"))
    for _ in range(COMMANDS_PER_BATCH_MAX + 10):
        assert isinstance(await engine.submit(lock(worker="w2")), Refused)


def test_a_read_that_finds_charges_gone_is_answered(time: VirtualTime) -> None:
    async def story() -> None:
        async with running(MemoryStore(), clock=time.clock()) as engine:
            await granted(engine, permit())
            await asyncio.sleep(2 * HOUR // SECOND)
            view = await engine.read(lambda machine, now: machine.limit("post", now))
            assert view.remaining == 5

    time.run(story())
