import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from client_servers import FAST, ScriptedServer, fail, lock, reply

from coordd.v1 import common_pb2
from coordd.v1 import engagement_pb2 as pb
from coordd_client import (
    Client,
    Config,
    Queued,
    QueueFull,
    RefusalReason,
    Refused,
    Superseded,
    Unavailable,
    WaitTimeout,
)

_HELD = common_pb2.Refusal(
    reason=common_pb2.REFUSAL_REASON_HELD,
    subject="tweet:1",
    holder="w2",
    retry_after={"seconds": 60},
    retry_at={"seconds": 1_800_000_000},
    queue_position=1,
)
_QUEUED = pb.AwaitLockResponse(
    queued={
        "position": 2,
        "estimated_wait": {"seconds": 3},
        "blocked_by": _HELD,
        "times_out_in": {"seconds": 30},
    }
)
_GRANTED = pb.AwaitLockResponse(granted=lock())


def _refused(reason: common_pb2.RefusalReason.ValueType) -> pb.AwaitLockResponse:
    return pb.AwaitLockResponse(refused=common_pb2.Refusal(reason=reason, subject="tweet:1"))


def _stream(*messages: pb.AwaitLockResponse) -> Any:
    async def answer(request: Any, context: Any) -> AsyncIterator[pb.AwaitLockResponse]:  # noqa: ARG001
        for message in messages:
            yield message

    return answer


def _in_turn(*answers: Any) -> Any:
    """The first wait gets the first answer, and so on."""
    left = list(answers)

    def answer(request: Any, context: Any) -> Any:
        return left.pop(0)(request, context)

    return answer


class _Silent:
    """A wait that is queued, and then nothing happens."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> AsyncIterator[pb.AwaitLockResponse]:
        try:
            yield _QUEUED
            self.began.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_without_a_wait_a_refusal_is_raised_as_a_value(server: ScriptedServer, client: Client):
    server.answers["RequestLock"] = reply(pb.RequestLockResponse(refused=_HELD))
    with pytest.raises(Refused) as caught:
        async with client.lock("tweet:1", kind="reply", wait=0):
            pytest.fail("it is not ours")
    refusal = caught.value.refusal
    assert (refusal.reason, refusal.holder, refusal.retry_after_s) == (RefusalReason.HELD, "w2", 60.0)
    assert refusal.until is not None
    assert refusal.until.timestamp() == 1_800_000_000
    assert str(caught.value) == "HELD: tweet:1 (holder w2), retry after 60 s"
    assert server.names == ["RequestLock"]


async def test_a_wait_is_told_its_place_and_then_granted(server: ScriptedServer, client: Client):
    server.answers["AwaitLock"] = _stream(_QUEUED, _GRANTED)
    places: list[Queued] = []
    async with client.lock(
        "tweet:1", kind="reply", wait=30, ttl=60, quality=0.5, on_queued=places.append
    ) as held:
        assert held.fencing_token == 7
    (place,) = places
    assert (place.position, place.estimated_wait_s, place.times_out_in_s) == (2, 3.0, 30.0)
    assert place.blocked_by is not None
    assert place.blocked_by.holder == "w2"
    (request,) = server.requests("AwaitLock")
    assert (request.wait_timeout.ToSeconds(), request.ttl.ToSeconds(), request.quality) == (30, 60, 0.5)


async def test_the_stream_may_outlast_the_wait_for_the_last_word(server: ScriptedServer):
    deadlines: list[float] = []

    async def late(request: Any, context: Any) -> AsyncIterator[pb.AwaitLockResponse]:  # noqa: ARG001
        deadlines.append(context.time_remaining())
        yield _GRANTED

    server.answers["AwaitLock"] = late
    async with (
        Client(server.address, worker="w1", config=Config(wait_grace_s=5.0)) as client,
        client.lock("tweet:1", kind="reply", wait=30),
    ):
        pass
    assert 30.0 < deadlines[0] < 36.0, "gRPC rounds a deadline up"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (common_pb2.REFUSAL_REASON_WAIT_TIMEOUT, WaitTimeout),
        (common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED, Refused),
        (common_pb2.REFUSAL_REASON_SUPERSEDED, Superseded),
    ],
)
async def test_a_wait_that_ends_without_a_grant_is_over(
    server: ScriptedServer,
    client: Client,
    reason: common_pb2.RefusalReason.ValueType,
    expected: type[Refused],
):
    server.answers["AwaitLock"] = _stream(_QUEUED, _refused(reason))
    with pytest.raises(Refused) as caught:
        async with client.lock("tweet:1", kind="reply", wait=30):
            pytest.fail("it is not ours")
    assert type(caught.value) is expected
    assert server.names == ["AwaitLock"], "asking again would take the place of whoever superseded us"


async def test_a_restart_in_the_middle_keeps_the_place(server: ScriptedServer, client: Client):
    silent = _Silent()
    server.answers["AwaitLock"] = _in_turn(silent, _stream(_QUEUED, _GRANTED))

    async def hold() -> int:
        async with client.lock("tweet:1", kind="reply", wait=30) as held:
            return held.fencing_token

    holding = asyncio.create_task(hold())
    await silent.began.wait()
    await server.restart()
    assert await holding == 7
    first, second = server.requests("AwaitLock")
    assert first.request_id == second.request_id != ""
    assert first.wait_timeout.ToMilliseconds() == 30_000
    assert 20_000 < second.wait_timeout.ToMilliseconds() < 30_000, "only what is left of it"
    assert first.item == second.item


async def test_a_grant_made_while_away_is_found_at_once(server: ScriptedServer, client: Client):
    async def cut(request: Any, context: Any) -> AsyncIterator[pb.AwaitLockResponse]:  # noqa: ARG001
        yield _QUEUED
        await fail(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")

    server.answers["AwaitLock"] = _in_turn(cut, _stream(_GRANTED))
    async with client.lock("tweet:1", kind="reply", wait=30) as held:
        assert held.fencing_token == 7


async def test_a_wait_that_the_daemon_cancels_is_resumed(server: ScriptedServer, client: Client):
    async def stopping(request: Any, context: Any) -> AsyncIterator[pb.AwaitLockResponse]:  # noqa: ARG001
        yield _QUEUED
        await context.abort(grpc.StatusCode.CANCELLED, "stopping")

    server.answers["AwaitLock"] = _in_turn(stopping, _stream(_GRANTED))
    async with client.lock("tweet:1", kind="reply", wait=30):
        assert server.names == ["AwaitLock", "AwaitLock"]


async def test_a_stream_without_a_last_word_is_resumed(server: ScriptedServer, client: Client):
    server.answers["AwaitLock"] = _in_turn(_stream(_QUEUED), _stream(_GRANTED))
    async with client.lock("tweet:1", kind="reply", wait=30):
        assert server.names == ["AwaitLock", "AwaitLock"]


async def test_a_daemon_that_stays_away_ends_the_wait_when_it_is_over(server: ScriptedServer, client: Client):
    await server.stop()
    with pytest.raises(Unavailable):
        async with client.lock("tweet:1", kind="reply", wait=0.1):
            pytest.fail("nobody granted it")


async def test_a_full_queue_is_not_asked_again(server: ScriptedServer, client: Client):
    async def full(request: Any, context: Any) -> AsyncIterator[pb.AwaitLockResponse]:  # noqa: ARG001
        await fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_s=2)
        yield _GRANTED

    server.answers["AwaitLock"] = full
    with pytest.raises(QueueFull):
        async with client.lock("tweet:1", kind="reply", wait=30):
            pytest.fail("it is not ours")
    assert server.names == ["AwaitLock"]


async def test_cancelling_a_wait_cancels_its_stream_and_gives_up_its_place(server: ScriptedServer):
    silent = _Silent()
    gone = _refused(common_pb2.REFUSAL_REASON_WAIT_TIMEOUT)
    server.answers["AwaitLock"] = _in_turn(silent, _stream(gone))
    async with Client(server.address, worker="w1", config=FAST) as client:
        waiting = asyncio.create_task(_hold(client, wait=30))
        await silent.began.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await silent.ended.wait()
    first, second = server.requests("AwaitLock")
    assert first.request_id == second.request_id
    assert second.wait_timeout.ToMilliseconds() == 1
    assert "ReleaseLock" not in server.names


async def test_a_grant_that_crosses_a_cancellation_goes_back(server: ScriptedServer):
    silent = _Silent()
    server.answers["AwaitLock"] = _in_turn(silent, _stream(_GRANTED))
    async with Client(server.address, worker="w1", config=FAST) as client:
        waiting = asyncio.create_task(_hold(client, wait=30))
        await silent.began.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
    (release,) = server.requests("ReleaseLock")
    assert (release.fencing_token, release.outcome) == (7, pb.OUTCOME_FAILURE)


async def test_so_does_one_that_crosses_the_end_of_a_call(server: ScriptedServer):
    asked = asyncio.Event()

    async def silent(request: Any, context: Any) -> None:  # noqa: ARG001
        server.answers["RequestLock"] = reply(pb.RequestLockResponse(granted=lock()))
        asked.set()
        await asyncio.Event().wait()

    server.answers["RequestLock"] = silent
    async with Client(server.address, worker="w1", config=FAST) as client:
        waiting = asyncio.create_task(_hold(client, wait=None))
        await asked.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
    first, second = server.requests("RequestLock")
    assert first.request_id == second.request_id
    assert server.requests("ReleaseLock")[0].outcome == pb.OUTCOME_FAILURE


async def test_what_a_callback_raises_ends_the_wait(server: ScriptedServer, client: Client):
    silent = _Silent()

    def refuse_to_wait(place: Queued) -> None:
        raise LookupError(f"{place.position} is too far back")

    server.answers["AwaitLock"] = _in_turn(silent, _stream(_refused(common_pb2.REFUSAL_REASON_WAIT_TIMEOUT)))
    with pytest.raises(LookupError, match="2 is too far back"):
        async with client.lock("tweet:1", kind="reply", wait=30, on_queued=refuse_to_wait):
            pytest.fail("it is not ours")
    await silent.ended.wait()


async def _hold(client: Client, wait: float | None) -> None:
    async with client.lock("tweet:1", kind="reply", wait=wait):
        pytest.fail("nobody is there to hold it")
