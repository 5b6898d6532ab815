"""One namespace's store fails, or can't be opened: the other serves on, and whoever looks is told."""

import asyncio
import resource
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, DaemonProcess, failure, launch, refusal, stream_refusal
from grpc_health.v1 import health_pb2, health_pb2_grpc
from namespace_api import fleets, in_namespace

from coordd.v1 import admin_pb2, engagement_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def small_files() -> None:
    """Let no file of the process grow beyond 600 kB: to SQLite, a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))


async def health_of(channel: Any, name: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
    return status


async def fill(api: Api) -> tuple[str, str]:
    """Take locks until that fails; return how."""
    number = 0
    while True:
        try:
            await api.lock("w1", f"{number}/" + "x" * 500)
        except grpc.aio.AioRpcError as error:
            return failure(error)[:2]
        number += 1


STORE_FAILED = ("UNAVAILABLE", "STORE_FAILED")


async def test_a_store_that_fails_ends_its_own_namespace_only(tmp_path: Path) -> None:
    process = await DaemonProcess.start(fleets(tmp_path), small_files)
    async with grpc.aio.insecure_channel(process.address) as channel:
        api, blue = Api(channel), in_namespace(channel, "blue")
        lock = await api.lock("w1", "tweet:1")
        waiting = api.await_lock("w2", "tweet:1")
        assert (await waiting.read()).HasField("queued")
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="namespace/blue"))
        assert (await watch.read()).status == SERVING
        await blue.lock("w1", "tweet:1")
        blue_wait = blue.await_lock("w2", "tweet:1")
        assert (await blue_wait.read()).HasField("queued")
        assert await fill(blue) == STORE_FAILED
        assert (await stream_refusal(blue_wait))[:2] == STORE_FAILED
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        # Nothing of it is answered any more, not even what only looks.
        for call in (
            blue.engagement.ListLocks(engagement_pb2.ListLocksRequest()),
            blue.admin.GetStatus(admin_pb2.GetStatusRequest()),
            blue.lock("w9", "another"),
        ):
            assert (await refusal(call))[:2] == STORE_FAILED
        # The other keeps its promises.
        await api.unlock(lock)
        assert (await waiting.read()).granted.worker == "w2"
        assert [await health_of(channel, name) for name in ("", "namespace/default")] == [SERVING, SERVING]
    code, errors = await process.stop()
    assert code == 0
    [failed] = [line for line in errors.splitlines() if "the store failed; nothing unsaved" in line]
    assert "namespace=blue" in failed


async def test_when_the_last_one_fails_the_daemon_ends(tmp_path: Path) -> None:
    process = await DaemonProcess.start(fleets(tmp_path), small_files)
    async with grpc.aio.insecure_channel(process.address) as channel:
        assert await fill(in_namespace(channel, "blue")) == STORE_FAILED
        assert await fill(Api(channel)) == STORE_FAILED
    _, errors = await process.process.communicate()
    assert process.process.returncode == 4
    failed = [line for line in errors.decode().splitlines() if "the store failed; nothing unsaved" in line]
    assert ["namespace=blue" in failed[0], "namespace=default" in failed[1]] == [True, True]


@pytest.mark.parametrize(("broken", "sound"), [("coordd.db", "blue"), ("blue.db", "default")])
async def test_a_store_that_can_not_be_opened_leaves_the_others_served(
    tmp_path: Path, broken: str, sound: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / broken).write_text("not a database")
    process = await DaemonProcess.start(fleets(tmp_path))
    async with grpc.aio.insecure_channel(process.address) as channel:
        [other] = {"default", "blue"} - {sound}
        assert [await health_of(channel, f"namespace/{name}") for name in (sound, other)] == [
            SERVING,
            NOT_SERVING,
        ]
        await in_namespace(channel, sound).lock()
        code, reason, _ = await refusal(in_namespace(channel, other).lock())
        assert (code, reason) == STORE_FAILED
    code, errors = await process.stop()
    assert code == 0
    [line] = [line for line in errors.splitlines() if "not served" in line]
    assert f"namespace={other}" in line
    assert f"{broken}: is not an SQLite database" in line


async def test_a_daemon_none_of_whose_stores_can_be_opened_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("coordd.db", "blue.db"):
        (tmp_path / "data" / name).write_text("not a database")
    process = await launch(fleets(tmp_path))
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, output) == (3, b"")
    for name, line in zip(("coordd.db", "blue.db"), errors.decode().splitlines(), strict=True):
        assert line.endswith(f"{name}: is not an SQLite database")
