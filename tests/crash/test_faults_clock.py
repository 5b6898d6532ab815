"""The real daemon under a system clock that is stepped, by libfaketime: while it runs, while it is down."""

import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import crash_audit as audit
import grpc
import pytest
from crash_daemon import Daemon
from crash_rig import Fleet, duration
from crash_work import all_is_well, more, nothing_is_lost, work

from coordd.v1 import engagement_pb2

HOUR = timedelta(hours=1)


class SystemClock:
    """The wall clock of one process; the monotonic one is left alone, as by `settimeofday`."""

    def __init__(self, folder: Path) -> None:
        package = find_spec("libfaketime")
        assert package is not None
        assert package.submodule_search_locations is not None
        libraries = list(Path(package.submodule_search_locations[0]).rglob("libfaketime.so.1"))
        if not libraries:
            pytest.skip("needs libfaketime's library, which is built for Linux only")
        self._file = folder / "clock"
        self.step_to(timedelta(0))
        self.environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def step_to(self, offset: timedelta) -> None:
        """Show the true time and `offset` from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset.total_seconds():+.0f}")
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> SystemClock:
    return SystemClock(tmp_path)


@pytest.fixture
async def daemon(tmp_path: Path, clock: SystemClock) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path, environment=clock.environment, level="info")
    yield daemon
    await daemon.close()


def offset_of(line: str) -> timedelta:
    """Return by how much the clock was ahead that stamped a line of the log."""
    return datetime.fromisoformat(line.split(maxsplit=1)[0]) - datetime.now(UTC)


async def test_a_clock_that_is_stepped_under_it_changes_nothing(
    daemon: Daemon, fleet: Fleet, clock: SystemClock
) -> None:
    await work(daemon, fleet)
    for hours in (1, -1, -24 * 365, 24 * 365):
        clock.step_to(hours * HOUR)
        await more(fleet)
    assert fleet.stubs is not None
    await all_is_well(daemon, fleet)
    # And the clock was stepped indeed.
    assert abs(offset_of(daemon.log()[-1]) - 365 * 24 * HOUR) < HOUR


async def test_a_clock_that_was_set_back_while_it_was_down_is_held(
    daemon: Daemon, fleet: Fleet, clock: SystemClock
) -> None:
    await work(daemon, fleet)
    for hours in (-1, -24 * 365):
        fleet.expect_end()
        assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
        clock.step_to(hours * HOUR)
        await daemon.start()
        assert abs(offset_of(daemon.log()[0]) - hours * HOUR) < HOUR / 2
        fleet.connect(daemon.address)
        assert fleet.stubs is not None
        assert await audit.lost_after_restart(fleet.stubs, fleet.journal) == []
        fleet.go_on()
        await more(fleet)
    fleet.expect_end()
    assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    clock.step_to(timedelta(0))
    await nothing_is_lost(daemon, fleet)


async def test_a_clock_that_was_set_ahead_while_it_was_down_leaves_each_holder_its_grace(
    daemon: Daemon, fleet: Fleet, clock: SystemClock
) -> None:
    await daemon.start()
    fleet.connect(daemon.address)
    fleet.go_on()
    renewing, silent = [await fleet.take_lock(name, name, ttl_s=600) for name in ("renewing", "silent")]
    assert renewing is not None
    assert silent is not None
    assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    clock.step_to(HOUR)
    await daemon.start()
    fleet.connect(daemon.address)
    assert fleet.stubs is not None
    services = fleet.stubs.engagement
    request = {"item": "renewing", "worker": "renewing", "fencing_token": renewing.id}
    await services.RenewLock(engagement_pb2.RenewLockRequest(**request, ttl=duration(600)))
    # This one's holder says nothing: to the daemon its 600 s are over, and soon the grace is.
    newcomer = await fleet.take_lock("newcomer", "silent", ttl_s=600, wait_s=30)
    assert newcomer is not None
    assert newcomer.id > silent.id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.release_lock(silent)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await fleet.release_lock(renewing)
    assert await daemon.end(signal.SIGTERM) == 0
