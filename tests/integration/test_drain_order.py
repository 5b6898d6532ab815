"""The end of a daemon, in its order, by real gRPC; and what a supervisor is told, by a real socket."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import BIN, Api, DaemonProcess, failure, rest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordd.server import Daemon
from coordd.v1 import admin_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Order:
    """What has happened, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def note(self, event: str) -> None:
        self.events.append(event)

    async def ends(self, name: str, stream: Any) -> None:
        """Note how a stream ends."""
        try:
            async for _ in rest(stream):
                pass
            self.note(f"{name} ended")
        except grpc.aio.AioRpcError as error:
            self.note(f"{name} {failure(error)[1]}")


async def test_health_goes_first_then_waits_then_calls_end_then_watches(daemon: Daemon, api: Api) -> None:
    """Each is told over its own connection; a commit under way is answered, and seen by who watches."""
    order = Order()
    store = daemon.engine.store
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        await api.lock("w1")
        wait = api.await_lock("w2", request_id="r")
        assert (await wait.read()).HasField("queued")
        events = api.admin.WatchEvents(admin_pb2.WatchEventsRequest())
        await events.initial_metadata()
        held, commit, is_committing = asyncio.Event(), store.commit, asyncio.Event()

        async def slow_commit(batch: Any) -> None:
            is_committing.set()
            await held.wait()
            await commit(batch)
            order.note("committed")

        store.commit = slow_commit  # type: ignore[method-assign]
        call = asyncio.create_task(api.lock("w3", "another"))
        call.add_done_callback(lambda _: order.note("call answered"))
        await is_committing.wait()
        stopping = asyncio.create_task(daemon.stop(20))
        waiting = asyncio.create_task(order.ends("wait", wait))
        watching = asyncio.create_task(order.ends("watch", events))
        assert (await watch.read()).status == NOT_SERVING
        order.note("health")
        await waiting
        # Nothing new, but who holds may still give back: that waits for the commit, too.
        assert not call.done()
        assert not watching.done()
        held.set()
        assert (await call).worker == "w3"
        await watching
        await stopping
    assert order.events == ["health", "wait DRAINING", "committed", "call answered", "watch DRAINING"]


async def test_the_second_signal_does_not_wait(process: DaemonProcess) -> None:
    """A call that does not end, since its client does not read, holds the first one up for drain_timeout."""
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        for number in range(300):
            await api.lock("w", f"{number}/" + "x" * 500)
        # Larger than the windows of the connection: its stream waits for a reader that does not come.
        backup = api.admin.Backup(admin_pb2.BackupRequest())
        await backup.read()
        code, errors = await process.stop(signal.SIGTERM, signal.SIGTERM)
        assert code == 0
        assert "Traceback" not in errors
        backup.cancel()


@pytest.fixture
async def supervised(config: Path, tmp_path: Path) -> AsyncIterator[tuple[Any, socket.socket]]:
    """The daemon, as a supervisor starts it that wants to be told; and what it is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        process = await asyncio.create_subprocess_exec(
            BIN / "coordd",
            "serve",
            "--config",
            config,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        yield process, listening
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(listening: socket.socket) -> dict[str, str]:
    """Return what the supervisor is told next, signs of life aside."""
    while True:
        text = (await asyncio.to_thread(listening.recv, 4096)).decode()
        if text != "WATCHDOG=1":
            return dict(line.split("=", 1) for line in text.splitlines())


async def test_a_supervisor_is_told_of_its_life(supervised: tuple[Any, socket.socket]) -> None:
    process, listening = supervised
    ready = await told(listening)
    assert ready["READY"] == "1"
    address = ready["STATUS"].removeprefix("serving on ")
    async with grpc.aio.insecure_channel(address) as channel:
        await Api(channel).lock()
    for _ in range(2):
        while (await asyncio.to_thread(listening.recv, 4096)) != b"WATCHDOG=1":
            pass
    process.send_signal(signal.SIGHUP)
    assert (await told(listening))["RELOADING"] == "1"
    assert (await told(listening))["READY"] == "1"
    process.send_signal(signal.SIGTERM)
    stopping = await told(listening)
    assert stopping["STOPPING"] == "1"
    assert stopping["STATUS"] == "stopping: waits up to 5 s for calls under way"
    await process.communicate()
    assert process.returncode == 0
