"""Virtual time: what runs in which order, and what of a process that is killed or frozen."""

import asyncio
import itertools

import pytest

from simulation.loop import SECOND, Loop, Process, Stuck


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_time_jumps_to_the_next_timer_and_callbacks_keep_their_order(loop: Loop) -> None:
    log: list[tuple[int, str]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        log.append((loop.now_ns, name))

    async def main() -> None:
        await asyncio.gather(sleeper("b", 3600), sleeper("a", 1), sleeper("c", 3600))

    loop.run_until_complete(main())
    assert log == [(SECOND, "a"), (3600 * SECOND, "b"), (3600 * SECOND, "c")]


def test_a_killed_process_runs_nothing_more_not_even_its_finally(loop: Loop) -> None:
    log: list[str] = []

    async def victim() -> None:
        try:
            await asyncio.sleep(1)
            log.append("lived")
        finally:
            log.append("finally")

    async def main() -> None:
        process = Process("victim")
        task = loop.spawn(process, victim())
        await asyncio.sleep(0.5)
        process.is_dead = True
        await asyncio.sleep(10)
        assert not task.done()

    loop.run_until_complete(main())
    assert log == []


def test_a_process_is_killed_at_exactly_the_step_it_has_fuel_for(loop: Loop) -> None:
    steps: list[int] = []

    async def victim() -> None:
        for step in range(100):
            steps.append(step)
            await asyncio.sleep(0)

    async def main() -> None:
        process = Process("victim")
        process.fuel = 7
        process.on_exhausted = lambda: setattr(process, "is_dead", True)
        loop.spawn(process, victim())
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert steps == list(range(7))


def test_a_frozen_process_does_in_order_what_it_has_missed(loop: Loop) -> None:
    log: list[tuple[int, str]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        log.append((loop.now_ns // SECOND, name))

    async def main() -> None:
        process = Process("frozen")
        tasks = [loop.spawn(process, sleeper(name, at)) for at, name in enumerate("abc", start=1)]
        loop.freeze(process)
        await asyncio.sleep(10)
        assert log == []
        loop.thaw(process)
        await asyncio.wait(tasks)

    loop.run_until_complete(main())
    # Their sleep began when they did: at the thaw.
    assert log == [(11, "a"), (12, "b"), (13, "c")]


def test_a_process_that_takes_time_moves_the_clock_and_its_timers_are_late(loop: Loop) -> None:
    async def main() -> None:
        process = Process("slow")
        process.cost_ns, process.lateness_ns_max = 1_000, 1_000_000

        async def nap() -> int:
            began_ns = loop.now_ns
            await asyncio.sleep(1)
            return loop.now_ns - began_ns

        took_ns = await loop.spawn(process, nap())
        assert SECOND < took_ns <= SECOND + 1_002_000

    loop.run_until_complete(main())


def test_what_can_not_end_is_told(loop: Loop) -> None:
    async def waits_for_nobody() -> None:
        await loop.create_future()

    async def goes_in_circles() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="nothing is left"):
        loop.run_until_complete(waits_for_nobody())
    with pytest.raises(Stuck, match="at one instant"):
        Loop().run_until_complete(goes_in_circles())


def test_an_error_that_nobody_caught_is_kept(loop: Loop) -> None:
    async def main() -> None:
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    [error] = loop.errors
    assert isinstance(error["exception"], ZeroDivisionError)
