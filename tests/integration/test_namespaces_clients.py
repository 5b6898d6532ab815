"""The clients and coordctl say which namespace they mean, in every form of call."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from daemon_api import BIN
from namespace_api import fleets

import coordd_client
from coordd.config import load
from coordd.server import Daemon
from coordd_client import blocking


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon within this process with the namespaces `default` and `blue`."""
    daemon = Daemon(load(fleets(tmp_path), {}))
    await daemon.start()
    yield daemon
    await daemon.stop(0)


async def locks(daemon: Daemon, namespace: str) -> int:
    return await daemon.worlds.engines[namespace].read(lambda machine, _: machine.counts().locks)


async def test_the_async_client_means_its_namespace_in_calls_waits_and_sessions(two: Daemon) -> None:
    async with (
        coordd_client.Client(two.address, worker="w1") as client,
        coordd_client.Client(two.address, worker="w1", namespace="blue") as blue,
        blue.session(),
        blue.lock("tweet:1", kind="analysis", wait=5),
        client.lock("tweet:1", kind="analysis"),
    ):
        assert [lock.item async for lock in blue.locks()] == ["tweet:1"]
        sessions = [len(engine.sessions) for engine in two.worlds.engines.values()]
        assert sessions == [0, 1]
    with pytest.raises(coordd_client.NotFound, match="There is no namespace 'green'"):
        async with coordd_client.Client(two.address, worker="w1", namespace="green") as green:
            await green.system_status()


async def test_the_blocking_client_means_its_namespace_in_calls_and_waits(two: Daemon) -> None:
    def work() -> None:
        with (
            blocking.Client(two.address, worker="w1") as client,
            blocking.Client(two.address, worker="w1", namespace="blue") as blue,
            blue.lock("tweet:1", kind="analysis", wait=5),
            client.lock("tweet:1", kind="analysis"),
        ):
            assert [lock.item for lock in blue.locks()] == ["tweet:1"]

    await asyncio.to_thread(work)


@pytest.mark.parametrize("namespace", ["bl\nue", "bl\N{LATIN SMALL LETTER U WITH DIAERESIS}e"])
def test_a_namespace_that_no_header_can_carry_is_refused_at_once(namespace: str) -> None:
    for client in (coordd_client.Client, blocking.Client):
        with pytest.raises(coordd_client.InvalidRequest, match="namespace is not printable ASCII"):
            client(worker="w1", namespace=namespace)


async def coordctl(address: str, *arguments: str, **environment: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "coordctl",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COORDD_ADDRESS": address, **environment},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_coordctl_means_the_namespace_of_its_option_or_of_the_environment(two: Daemon) -> None:
    take = ("lock", "tweet:1", "--worker", "me", "--kind", "analysis")
    assert (await coordctl(two.address, "--namespace", "blue", *take))[0] == 0
    assert [await locks(two, name) for name in ("default", "blue")] == [0, 1]
    code, output = await coordctl(two.address, "locks", COORDD_NAMESPACE="blue")
    assert (code, "tweet:1" in output) == (0, True)
    code, output = await coordctl(two.address, "locks", "--namespace", "default", COORDD_NAMESPACE="blue")
    assert (code, "tweet:1" in output) == (0, False)
    code, output = await coordctl(two.address, "status", "--namespace", "blue")
    assert output.startswith(f"coordd 0.1.0 at {two.address}, namespace blue: ")
    code, output = await coordctl(two.address, "status", "--namespace", "green")
    assert code == 4
    assert output.startswith(
        "coordctl status: There is no namespace 'green' (UNKNOWN_NAMESPACE); --namespace or COORDD_NAMESPACE"
    )
