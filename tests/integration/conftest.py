from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from daemon_api import CONFIG, Api, DaemonProcess, TimeSource
from identity_rig import guarded_config
from observed import METRICS, Observed

from coordd.config import load
from coordd.engine import Clock
from coordd.server import Daemon


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file: a free port, the data beside it, small limits."""
    file = tmp_path / "coordd.toml"
    file.write_text(CONFIG.format(address="127.0.0.1:0", path=tmp_path / "data" / "coordd.db"))
    return file


@pytest.fixture
def time_source() -> TimeSource:
    """Where the daemon within this process has its time from."""
    return TimeSource()


@pytest.fixture
async def daemon(config: Path, time_source: TimeSource) -> AsyncIterator[Daemon]:
    """The daemon within this process, on a free port."""
    daemon = Daemon(load(config, {}), clock=Clock(monotonic_ns=time_source))
    await daemon.start()
    yield daemon
    await daemon.stop(0)


@pytest.fixture
async def api(daemon: Daemon) -> AsyncIterator[Api]:
    """Stubs for the daemon within this process."""
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        yield Api(channel)


@pytest.fixture
async def observed(config: Path, time_source: TimeSource) -> AsyncIterator[Observed]:
    """The same daemon with metrics."""
    config.write_text(config.read_text() + METRICS)  # noqa: ASYNC240
    daemon = Daemon(load(config, {}), clock=Clock(monotonic_ns=time_source))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        yield Observed(daemon, Api(channel), time_source)
    await daemon.stop(0)


@pytest.fixture
async def process(config: Path) -> AsyncIterator[DaemonProcess]:
    """The daemon as a process of its own, on a free port."""
    process = await DaemonProcess.start(config)
    yield process
    if process.process.returncode is None:
        process.process.kill()
        await process.process.communicate()


@pytest.fixture
async def guarded(tmp_path: Path, time_source: TimeSource) -> AsyncIterator[Daemon]:
    """A daemon within this process that knows identities."""
    daemon = Daemon(load(guarded_config(tmp_path), {}), clock=Clock(monotonic_ns=time_source))
    await daemon.start()
    yield daemon
    await daemon.stop(0)


@pytest.fixture
async def channel(guarded: Daemon) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the daemon that knows identities."""
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        yield channel
