import asyncio
import itertools
from typing import Any

import grpc
import pytest
from client_servers import FAST, ScriptedServer, fail, lock, reply

from coordd.v1 import engagement_pb2 as pb
from coordd_client import Client, Config, Unavailable
from coordd_client.retries import Backoff
from coordd_client.target import Target
from coordd_client.transport import CHANNEL_OPTIONS, GrpcTransport

_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class _RecordedClock:
    """Time that passes only by sleeping, and notes how long."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def now(self) -> float:
        return sum(self.sleeps)

    async def sleep(self, duration_s: float) -> None:
        self.sleeps.append(duration_s)


def _failing(times: int, answer: Any, *, trailer: str | None = None, retry_s: int | None = None) -> Any:
    calls = itertools.count()

    async def scripted(_: Any, context: Any) -> Any:
        if next(calls) >= times:
            return answer
        if trailer is not None:
            await context.abort(_UNAVAILABLE, "busy", (("grpc-retry-pushback-ms", trailer),))
        return await fail(context, _UNAVAILABLE, "DRAINING", retry_s=retry_s)

    return scripted


def test_pauses_grow_with_jitter_up_to_a_bound():
    config = Config(backoff_s=0.1, backoff_max_s=2.0)
    longest = [max(_pauses(config, 8)[n] for _ in range(200)) for n in range(8)]
    assert all(a < b for a, b in itertools.pairwise(longest[:4]))
    assert longest[-1] <= 2.0
    assert len(set(_pauses(config, 8))) == 8, "two clients must not come back together"
    assert Backoff(config).pause_s(Unavailable(retry_after_s=3.0)) == 3.0


def _pauses(config: Config, count: int) -> list[float]:
    backoff = Backoff(config)
    return [backoff.pause_s(Unavailable()) or 0.0 for _ in range(count)]


async def test_unavailable_is_retried_under_the_same_request_id(server: ScriptedServer, client: Client):
    server.answers["RequestLock"] = _failing(3, pb.RequestLockResponse(granted=lock()))
    async with client.lock("tweet:1", kind="reply") as held:
        assert held.fencing_token == 7
    ids = [request.request_id for request in server.requests("RequestLock")]
    assert len(ids) == 4
    assert len(set(ids)) == 1
    assert ids[0]


async def test_a_call_that_the_daemon_cancels_is_tried_again(server: ScriptedServer, client: Client):
    left = iter([True, False])

    async def stopping(_: Any, context: Any) -> pb.GetLockResponse:
        if next(left):
            await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        return pb.GetLockResponse(waiters=2)

    server.answers["GetLock"] = stopping
    assert (await client.get_lock("x")).waiters == 2
    assert server.names == ["GetLock", "GetLock"]


async def test_another_block_has_another_request_id(server: ScriptedServer, client: Client):
    for _ in range(2):
        async with client.lock("tweet:1", kind="reply"):
            pass
    first, second = server.requests("RequestLock")
    assert first.request_id != second.request_id


@pytest.mark.parametrize(
    ("script", "expected_s"), [({"retry_s": 4}, [4.0, 4.0]), ({"trailer": "1500"}, [1.5, 1.5])]
)
async def test_the_daemons_word_on_when_to_retry_is_kept(
    server: ScriptedServer, script: dict[str, Any], expected_s: list[float]
):
    server.answers["GetLock"] = _failing(2, pb.GetLockResponse(), **script)
    clock = _RecordedClock()
    async with Client(server.address, worker="w1", clock=clock) as client:
        await client.get_lock("x")
    assert clock.sleeps == expected_s


@pytest.mark.parametrize("trailer", ["-1", "not a number"])
async def test_a_daemon_can_forbid_retries(server: ScriptedServer, client: Client, trailer: str):
    server.answers["GetLock"] = _failing(2, pb.GetLockResponse(), trailer=trailer)
    with pytest.raises(Unavailable):
        await client.get_lock("x")
    assert server.names == ["GetLock"]


async def test_retries_end_with_the_calls_deadline(server: ScriptedServer):
    server.answers["GetLock"] = _failing(1000, pb.GetLockResponse())
    clock = _RecordedClock()
    async with Client(server.address, worker="w1", clock=clock) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get_lock("x")
    assert caught.value.reason == "DRAINING"
    assert 10.0 - 2.0 <= clock.now() < 10.0
    assert len(server.calls) == len(clock.sleeps) + 1


async def test_a_daemon_that_comes_back_is_found_soon(server: ScriptedServer, client: Client):
    server.answers["GetLock"] = reply(pb.GetLockResponse(state=pb.ITEM_STATE_FREE))
    await client.get_lock("x")
    await server.stop()
    asked = asyncio.create_task(client.get_lock("x"))
    await server.start()
    async with asyncio.timeout(10):
        assert (await asked).waiters == 0


def test_keepalive_fits_a_daemon_that_permits_a_ping_every_10_s():
    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.keepalive_time_ms"] > 10_000
    assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"]
    assert options["grpc.keepalive_permit_without_calls"] == 0
    assert options["grpc.max_reconnect_backoff_ms"] <= 2_000


async def test_a_closed_client_says_so(server: ScriptedServer):
    client = Client(server.address, worker="w1", config=FAST)
    server.answers["GetLock"] = reply(pb.GetLockResponse())
    await client.get_lock("x")
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get_lock("x")


def test_a_client_can_be_made_where_no_loop_runs():
    Client(worker="w1")
    GrpcTransport(Target("127.0.0.1:1"))
