"""What a supervisor is told, by a real socket; and that the daemon needs none."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordd.server.supervisor import Supervisor


@pytest.fixture(params=["file", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A supervisor's socket, and its name as it is handed over."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@coordd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(20)
        yield name, listening


def words(listening: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in listening.recv(4096).decode().splitlines())


async def test_it_is_told_each_state(heard: tuple[str, socket.socket]) -> None:
    name, listening = heard
    supervisor = Supervisor({"NOTIFY_SOCKET": name})
    supervisor.ready("serving on x")
    assert words(listening) == {"READY": "1", "STATUS": "serving on x"}
    supervisor.reloading()
    told = words(listening)
    assert (told["RELOADING"], told["STATUS"]) == ("1", "reloading")
    assert int(told["MONOTONIC_USEC"]) > 0
    supervisor.stopping("bye")
    assert words(listening) == {"STOPPING": "1", "STATUS": "bye"}
    await supervisor.close()


@pytest.mark.parametrize(("pid", "is_meant"), [(str(os.getpid()), True), ("", True), ("1", False)])
async def test_it_sees_that_the_daemon_lives_if_it_asks(
    heard: tuple[str, socket.socket],
    pid: str,
    is_meant: bool,  # noqa: FBT001
) -> None:
    name, listening = heard
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": pid}
    supervisor = Supervisor(environment)
    supervisor.ready("s")
    assert words(listening)["READY"] == "1"
    if is_meant:
        for _ in range(3):
            assert await asyncio.to_thread(words, listening) == {"WATCHDOG": "1"}
    await supervisor.close()
    supervisor.stopping("s")
    last = words(listening)
    while is_meant and "WATCHDOG" in last:
        last = words(listening)
    assert last["STOPPING"] == "1"


@pytest.mark.parametrize(
    "environment", [{"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}]
)
async def test_without_one_nothing_happens(environment: dict[str, str]) -> None:
    supervisor = Supervisor(environment)
    supervisor.ready("s")
    supervisor.reloading()
    supervisor.stopping("s")
    await supervisor.close()


async def test_one_that_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(name)
        supervisor = Supervisor({"NOTIFY_SOCKET": name})
        for _ in range(1_000):
            supervisor.reloading()
    await supervisor.close()
