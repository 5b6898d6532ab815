"""Fair shares over real gRPC: who is next, weights of sessions, and what is told of it."""

import asyncio
from pathlib import Path

import grpc
import pytest
from daemon_api import CONFIG, Api
from google.protobuf.duration_pb2 import Duration

from coordd.config import load
from coordd.server import Daemon
from coordd.v1 import common_pb2
from coordd.v1 import rate_limit_pb2 as pb
from coordd_client import Client, WorkerShare, blocking

FAIR = """
[limits.fair]
windows = { "1h" = 12 }
allocation = "fair"
share = "proportional"

[workers]
heavy = { weight = 2.0 }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The usual configuration, and an endpoint that is shared."""
    file = tmp_path / "coordd.toml"
    file.write_text(CONFIG.format(address="127.0.0.1:0", path=tmp_path / "data" / "coordd.db") + FAIR)
    return file


async def take(api: Api, worker: str, permits: int) -> pb.CanMakeRequestResponse:
    request = pb.CanMakeRequestRequest(endpoint="fair", worker=worker, permits=permits)
    response: pb.CanMakeRequestResponse = await api.rate_limit.CanMakeRequest(request)
    return response


async def test_parts_of_all_who_share_are_told_page_by_page(api: Api) -> None:
    for worker, permits in (("heavy", 2), ("light", 5), ("other", 1)):
        assert (await take(api, worker, permits)).HasField("granted")
    workers, token = [], ""
    while True:
        page = await api.rate_limit.ListWorkerAllocations(
            pb.ListWorkerAllocationsRequest(endpoint="fair", page_size=2, page_token=token)
        )
        workers += page.workers
        token = page.next_page_token
        if not token:
            break
    assert [(each.worker, each.weight, each.efficiency) for each in workers] == [
        ("heavy", 2.0, 1.0),
        ("light", 1.0, 1.0),
        ("other", 1.0, 1.0),
    ]
    assert [(w.own, w.used, w.borrowed) for each in workers for w in each.windows] == [
        (6, 2, 0),
        (3, 5, 2),
        (3, 1, 0),
    ]
    one = await api.rate_limit.GetWorkerAllocation(
        pb.GetWorkerAllocationRequest(endpoint="fair", worker="light")
    )
    assert (one.windows[0], one.active_workers) == (workers[1].windows[0], 3)
    assert one.demand_per_s == pytest.approx(workers[1].demand_per_s, rel=0.1)


async def test_a_client_reads_the_parts_of_all(api: Api, daemon: Daemon) -> None:
    for worker, permits in (("heavy", 2), ("light", 5)):
        assert (await take(api, worker, permits)).HasField("granted")
    async with Client(daemon.address, worker="light") as client:
        shares = [each async for each in client.worker_allocations("fair", page_size=1)]
        assert [(each.worker, each.weight, each.windows[0].used) for each in shares] == [
            ("heavy", 2.0, 2),
            ("light", 1.0, 5),
        ]
        assert (await client.worker_allocation("fair")).windows == shares[1].windows
        assert [each async for each in client.worker_allocations("post")] == []

    def read() -> list[WorkerShare]:
        with blocking.Client(daemon.address, worker="heavy") as client:
            return list(client.worker_allocations("fair"))

    assert [each.windows for each in await asyncio.to_thread(read)] == [each.windows for each in shares]


async def test_who_has_had_least_goes_first_and_a_restart_knows(
    api: Api, daemon: Daemon, config: Path
) -> None:
    assert (await take(api, "light", 10)).HasField("granted")
    stream = api.rate_limit.AwaitPermit(
        pb.AwaitPermitRequest(
            endpoint="fair", worker="light", permits=4, request_id="r1", wait_timeout=Duration(seconds=7_200)
        )
    )
    assert (await stream.read()).HasField("queued")
    # It wants more than there is, and has had much; whoever has had nothing is not behind it.
    assert (await take(api, "heavy", 1)).HasField("granted")
    assert (await take(api, "light", 1)).refused.reason == common_pb2.REFUSAL_REASON_QUEUED_AHEAD
    stream.cancel()
    await daemon.stop(0)
    again = Daemon(load(config, {}))
    await again.start()
    async with grpc.aio.insecure_channel(again.address) as channel:
        listed = await Api(channel).rate_limit.ListWorkerAllocations(
            pb.ListWorkerAllocationsRequest(endpoint="fair")
        )
        assert [(each.worker, each.windows[0].used) for each in listed.workers] == [
            ("heavy", 1),
            ("light", 10),
        ]
    await again.stop(0)
