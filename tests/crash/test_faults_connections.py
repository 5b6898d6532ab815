"""The real daemon and too many connections, idle ones, and clients that do not read what they are told."""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import idle_connections
import psutil
import pytest
from crash_daemon import KIND, Daemon
from crash_rig import Fleet, Stubs, duration
from crash_work import all_is_well, more, until, work

from coordd.v1 import admin_pb2, engagement_pb2

MIB = 1 << 20
STATUS = admin_pb2.GetStatusRequest()


@asynccontextmanager
async def stranger(daemon: Daemon) -> AsyncIterator[Stubs]:
    """A client with a connection of its own, which it has yet to make, and that takes 64 KiB unread."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(daemon.address, options=options) as channel:
        yield Stubs(channel)


def memory(daemon: Daemon) -> int:
    resident: int = psutil.Process(daemon.pid).memory_info().rss
    return resident


# -- out of file descriptors ---------------------------------------------------------------------------------

DESCRIPTORS = 128


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


async def test_out_of_file_descriptors_those_who_are_there_go_on_and_the_rest_is_served_later(
    daemon: Daemon, fleet: Fleet
) -> None:
    daemon.before = few_descriptors
    await work(daemon, fleet)
    host, _, port = daemon.address.rpartition(":")
    crowd = [idle_connections.Connection((host, int(port))) for _ in range(2 * DESCRIPTORS)]
    await until(lambda: psutil.Process(daemon.pid).num_fds() == DESCRIPTORS)
    await more(fleet)
    async with stranger(daemon) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stubs.admin.GetStatus(STATUS, timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: len(daemon.log()) == 1)
        for connection in crowd:
            connection.socket.close()
        await stubs.admin.GetStatus(STATUS, wait_for_ready=True)
    await until(lambda: len(daemon.log()) == 2)
    await more(fleet)
    await all_is_well(daemon, fleet)
    out, again = daemon.log()
    assert f"out of file descriptors, of which it may have {DESCRIPTORS}: new connections wait" in out
    assert "there are file descriptors again" in again


# -- idle connections ----------------------------------------------------------------------------------------

IDLE = 10_000
BYTES_PER_CONNECTION_MAX = 64 << 10


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 100:
        pytest.skip(
            f"needs {IDLE} file descriptors in each of two processes; {hard} are allowed (ulimit -Hn)"
        )
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.timeout(120)
async def test_ten_thousand_idle_connections_cost_little_and_hold_up_nobody(
    daemon: Daemon, fleet: Fleet
) -> None:
    # As a shell or a service manager starts it: what more it may open, it takes itself.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    daemon.before = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    await work(daemon, fleet)
    before = memory(daemon)
    crowd = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(idle_connections.__file__),
        daemon.address,
        str(IDLE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert crowd.stdout is not None
        assert await crowd.stdout.readline() == f"{IDLE}\n".encode()
        each = (memory(daemon) - before) // IDLE
        print(f"{each} bytes for each idle connection")  # noqa: T201
        assert each < BYTES_PER_CONNECTION_MAX
        async with stranger(daemon) as stubs:
            await stubs.admin.GetStatus(STATUS)
        await more(fleet)
    finally:
        left, _ = await crowd.communicate(b"")
    assert left == f"{IDLE}\n".encode()
    await until(lambda: psutil.Process(daemon.pid).num_fds() < 100)
    await all_is_well(daemon, fleet)


# -- slow readers --------------------------------------------------------------------------------------------

WATCHERS = 10
WAITERS = 200
# More than a watcher's 10 MiB hold, at the 1 KiB that an event is reckoned at.
EVENTS = 13_000


async def ask(stubs: Stubs, count: int) -> None:
    """Ask for what somebody holds."""
    request = engagement_pb2.RequestLockRequest(item="held", worker="asker", kind=KIND)
    for _ in range(count):
        await stubs.engagement.RequestLock(request)


@pytest.mark.timeout(120)
async def test_clients_that_read_nothing_cost_little_and_hold_up_nobody(daemon: Daemon, fleet: Fleet) -> None:
    await work(daemon, fleet)
    held = await fleet.take_lock("holder", "held", ttl_s=600)
    assert held is not None
    async with stranger(daemon) as deaf:
        watches = [deaf.admin.WatchEvents(admin_pb2.WatchEventsRequest()) for _ in range(WATCHERS)]
        for watch in watches:
            await watch.initial_metadata()
        waits = [
            deaf.engagement.AwaitLock(
                engagement_pb2.AwaitLockRequest(
                    item="held", worker=f"deaf{number}", kind=KIND, wait_timeout=duration(600)
                )
            )
            for number in range(WAITERS)
        ]
        for wait in waits:
            await wait.initial_metadata()
        await asyncio.gather(*(ask(deaf, 10) for _ in range(64)))
        before = memory(daemon)
        assert fleet.stubs is not None
        await asyncio.gather(*(ask(fleet.stubs, EVENTS // 64) for _ in range(64)))
        # What they share is kept once; each has at most its queue, and 64 KiB on the wire.
        assert memory(daemon) - before < 64 * MIB
        await more(fleet)
        await fleet.release_lock(held)
        assert await missed(watches[0]) > 0
        for stream in (*watches, *waits):
            stream.cancel()
    await all_is_well(daemon, fleet)


async def missed(watch: Any) -> int:
    """Read on until the daemon says how many events it has dropped."""
    async for event in watch:
        if event.missed:
            return int(event.missed)
    raise AssertionError
