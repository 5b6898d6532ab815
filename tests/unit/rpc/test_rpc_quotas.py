"""The quota of a namespace's calls: how many at once, how many a second, and what a refusal costs."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from coordd.core.errors import ResourceExhausted
from coordd.core.limits import SECOND
from coordd.rpc import quotas
from coordd.rpc.quotas import CallQuota, limited


class Context:
    """A call with so much time left."""

    def __init__(self, left_s: float | None = 0.0) -> None:
        self._left_s = left_s

    def time_remaining(self) -> float | None:
        return self._left_s


def entered(quota: CallQuota, now: int, count: int) -> int:
    """Return how many of `count` calls at `now` are within the quota; they go on."""
    done = 0
    for _ in range(count):
        try:
            quota.enter(now)
        except ResourceExhausted:
            continue
        done += 1
    return done


def test_so_many_calls_may_be_under_way_at_once() -> None:
    quota = CallQuota(2, 0)
    assert entered(quota, 0, 3) == 2
    with pytest.raises(ResourceExhausted, match="There may be 2 calls under way at once") as refused:
        quota.enter(0)
    assert (refused.value.reason, refused.value.metadata) == (
        "QUOTA_EXCEEDED",
        {"quota": "calls", "limit": "2"},
    )
    quota.leave()
    assert entered(quota, 0, 3) == 1


def test_a_second_s_worth_may_come_at_once_and_then_they_come_evenly() -> None:
    quota = CallQuota(0, 4)
    assert entered(quota, 10 * SECOND, 9) == 4
    assert entered(quota, 10 * SECOND + SECOND // 4 - 1, 9) == 0
    assert entered(quota, 10 * SECOND + SECOND // 4, 9) == 1
    assert entered(quota, 11 * SECOND, 9) == 3
    assert entered(quota, 99 * SECOND, 9) == 4
    with pytest.raises(ResourceExhausted) as refused:
        quota.enter(99 * SECOND)
    assert refused.value.metadata == {"quota": "calls_per_second", "limit": "4"}


async def test_other_numbers_hold_from_when_they_are_said_and_none_is_none() -> None:
    quota, gate = CallQuota(0, 0), asyncio.Event()

    async def behaviour(request: str, _: Context) -> str:
        await gate.wait()
        return request

    call = limited(behaviour, quota)
    calls = [asyncio.ensure_future(call("uncounted", Context())) for _ in range(9)]
    quota.change(1, 0)
    calls.append(asyncio.ensure_future(call("counted", Context())))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted):
        await call("refused", Context())
    quota.change(0, 0)
    calls.append(asyncio.ensure_future(call("uncounted", Context())))
    gate.set()
    assert len(await asyncio.gather(*calls)) == 11
    quota.change(1, 0)
    assert await call("at last", Context()) == "at last"


def test_in_any_time_no_more_than_the_rate_and_one_second_s_worth() -> None:
    quota = CallQuota(0, 7)
    begun = sum(entered(quota, now * SECOND // 100, 3) for now in range(1_000))
    assert 7 * 10 <= begun <= 7 * 11


async def test_a_call_is_under_way_until_it_has_ended_however_it_ends() -> None:
    quota, gate = CallQuota(1, 0), asyncio.Event()

    async def behaviour(request: str, _: Context) -> str:
        await gate.wait()
        if request == "fail":
            raise ValueError
        return request

    call = limited(behaviour, quota)
    for request in ("fail", "answer", "leave"):
        gate.clear()
        first = asyncio.create_task(call(request, Context()))
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted):
            await call("other", Context())
        if request == "leave":
            first.cancel()
        gate.set()
        await asyncio.wait([first])
    assert await call("at last", Context()) == "at last"


async def test_a_stream_is_under_way_until_it_is_closed() -> None:
    quota, closed = CallQuota(1, 0), []

    async def behaviour(request: str, _: Context) -> AsyncGenerator[str, None]:
        try:
            yield request
            yield request
        finally:
            closed.append(request)

    call = limited(behaviour, quota)
    stream = call("a", Context())
    assert await anext(stream) == "a"
    with pytest.raises(ResourceExhausted):
        await anext(call("b", Context()))
    await stream.aclose()
    assert closed == ["a"]
    assert [message async for message in call("c", Context())] == ["c", "c"]


@pytest.mark.parametrize(("left_s", "held_s"), [(None, 0.5), (60.0, 0.5), (0.4, 0.2)])
async def test_a_refusal_is_held_back_but_not_beyond_its_deadline(
    monkeypatch: pytest.MonkeyPatch, left_s: float | None, held_s: float
) -> None:
    slept: list[float] = []

    async def sleep(length_s: float) -> None:
        slept.append(length_s)

    monkeypatch.setattr(quotas.asyncio, "sleep", sleep)
    quota = CallQuota(1, 0)
    await quota.admit(Context())
    with pytest.raises(ResourceExhausted):
        await quota.admit(Context(left_s))
    assert slept == [held_s]


async def test_only_so_many_refusals_are_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "REFUSALS_HELD_BACK_MAX", 2)
    quota: Any = CallQuota(1, 0)
    await quota.admit(Context())
    held = [asyncio.create_task(quota.admit(Context(None))) for _ in range(2)]
    await asyncio.sleep(0)
    at_once = asyncio.create_task(quota.admit(Context(None)))
    await asyncio.sleep(0)
    assert [task.done() for task in (*held, at_once)] == [False, False, True]
    assert isinstance(at_once.exception(), ResourceExhausted)
    for task in held:
        task.cancel()
    await asyncio.wait(held)
