"""Adaptive pools, overflow and shedding over the wire: daemon, stubs, client, coordctl."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import BIN, CONFIG, Api, length

from coordd.config import load
from coordd.server import Daemon
from coordd.v1 import admin_pb2, common_pb2, rate_limit_pb2
from coordd.v1 import reservation_pb2 as pb
from coordd_client import Client, Refused, units
from coordd_client.blocking import Client as BlockingClient

POOLS = """
[pools.db]
capacity = 10
capacity_min = 2
capacity_max = 20
latency_target = "10s"
decrease = 0.5
[pools.spare]
capacity = 2
[pools.narrow]
capacity = 1
overflow = "borrow"
borrow_from = "spare"
[pools.strict]
capacity = 1
overflow = "deny"
[types.db]
pool = "db"
[types.narrow]
pool = "narrow"
[types.strict]
pool = "strict"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "coordd.toml"
    file.write_text(CONFIG.format(address="127.0.0.1:0", path=tmp_path / "coordd.db") + POOLS)
    return file


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[Client]:
    async with Client(daemon.address, worker="w1") as client:
        yield client


async def pool(api: Api, name: str = "db") -> admin_pb2.Pool:
    pools = (await api.admin.ListPools(admin_pb2.ListPoolsRequest())).pools
    return next(pool for pool in pools if pool.name == name)


async def release(api: Api, held: Any, **more: Any) -> None:
    await api.reservation.ReleaseResource(
        pb.ReleaseResourceRequest(reservation_id=held.reservation_id, worker=held.worker, **more)
    )


async def test_a_pool_learns_from_how_work_went(api: Api) -> None:
    first, second = await api.reserve("db"), await api.reserve("db")
    await release(api, first, work_result=pb.WORK_RESULT_OVERLOADED)
    seen = await pool(api)
    assert (seen.capacity, seen.capacity_min, seen.capacity_max) == (5, 2, 20)
    assert (seen.overflow, seen.allocation, seen.is_overridden) == ("queue", "priority", False)
    await release(api, second, work_result=pb.WORK_RESULT_OVERLOADED)
    assert (await pool(api)).capacity == 5, "begun before the last decrease"
    await release(api, await api.reserve("db"), latency=length(10.5), work_result=pb.WORK_RESULT_SUCCESS)
    assert (await pool(api)).capacity == 2


async def test_what_was_learnt_survives_the_daemon(config: Path) -> None:
    for expected in (5, 2):
        daemon = Daemon(load(config, {}))
        await daemon.start()
        async with grpc.aio.insecure_channel(daemon.address) as channel:
            api = Api(channel)
            await release(api, await api.reserve("db"), work_result=pb.WORK_RESULT_OVERLOADED)
            assert (await pool(api)).capacity == expected
        await daemon.stop(0)


async def test_a_block_tells_what_a_pool_learns_from(api: Api, client: Client) -> None:
    async with client.reservation("db", units=10):
        pass
    assert (await pool(api)).capacity == 11
    with pytest.raises(ZeroDivisionError):
        async with client.reservation("db", units=11):
            _ = 1 / 0
    assert (await pool(api)).capacity == 11
    async with client.reservation("db") as held:
        held.overloaded()
    assert (await pool(api)).capacity == 5
    async with client.reservation("db") as held:
        held.latency(11)
    assert (await pool(api)).capacity == 2


async def test_so_does_a_bundle(api: Api, client: Client) -> None:
    async with client.bundle(units("db", 10)):
        pass
    assert (await pool(api)).capacity == 11
    with pytest.raises(ZeroDivisionError):
        async with client.bundle(units("db", 11)):
            _ = 1 / 0
    assert (await pool(api)).capacity == 11
    async with client.bundle(units("db", 1)) as bundle:
        bundle.overloaded()
    assert (await pool(api)).capacity == 5


async def test_so_does_a_blocking_one(api: Api, daemon: Daemon) -> None:
    def work() -> None:
        with BlockingClient(daemon.address, worker="w1") as client, client.reservation("db") as held:
            held.overloaded()

    await asyncio.to_thread(work)
    assert (await pool(api)).capacity == 5


async def test_operators_pin_and_unpin(api: Api, daemon: Daemon) -> None:
    code, shown = await coordctl(daemon, "pools", "set", "db", "--capacity", "7", "--json")
    assert (code, json.loads(shown)["is_overridden"]) == (
        0,
        True,
    )
    await release(api, await api.reserve("db"), work_result=pb.WORK_RESULT_OVERLOADED)
    assert (await pool(api)).capacity == 7
    code, shown = await coordctl(daemon, "pools", "set", "db", "--unpin")
    assert (code, "2..20" in shown, "its workers" in shown) == (0, True, True)
    await release(api, await api.reserve("db"), work_result=pb.WORK_RESULT_OVERLOADED)
    assert (await pool(api)).capacity == 3


async def test_a_pool_without_bounds_is_not_unpinned(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.admin.UpdatePool(admin_pb2.UpdatePoolRequest(name="spare", unpin=True))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_borrowed_unit_says_where_it_is_from(api: Api, client: Client) -> None:
    async with client.reservation("narrow") as own, client.reservation("narrow") as borrowed:
        assert (own.grant.pool, borrowed.grant.pool) == ("narrow", "spare")
        assert ((await pool(api, "spare")).used, (await pool(api, "narrow")).overflow) == (1, "borrow")
    assert (await pool(api, "spare")).used == 0


async def test_a_pool_that_denies_lets_nobody_wait(client: Client) -> None:
    async with client.reservation("strict"):
        with pytest.raises(Refused) as refused:
            async with client.reservation("strict", wait=30):
                pass
    assert refused.value.refusal.reason.name == "UNITS_TAKEN"


async def test_a_wait_that_would_time_out_is_refused_at_once_with_when_it_would_not(api: Api) -> None:
    await api.permit("post", permits=3)
    request = rate_limit_pb2.AwaitPermitRequest(endpoint="post", worker="w2", wait_timeout=length(60))
    [event] = [event async for event in api.rate_limit.AwaitPermit(request)]
    assert event.refused.reason == common_pb2.REFUSAL_REASON_WOULD_TIME_OUT
    # 15 minutes, and the bucket's width, less the minute that it would wait.
    assert 13 * 60 < event.refused.retry_after.ToSeconds() <= 15 * 60


async def coordctl(daemon: Daemon, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "coordctl", "--address", daemon.address, *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()
