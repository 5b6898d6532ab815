"""The real daemon on a disk that fails under it while 18 clients work: it stops at once and loses nothing.

By docs/semantics.md section 15: a commit that fails is the last one, health says so first, the log says why
in a line, the exit code is 4, and the next start has all that was acknowledged.
"""

import asyncio
import errno
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import crash_audit as audit
import pytest
from crash_daemon import NOT_SERVING, Daemon, Health
from crash_rig import Fleet
from disk_fault import ALWAYS, Call, Disk, compiled


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("disk_fault"))


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Iterator[Disk]:
    with Disk(tmp_path, library) as disk:
        yield disk


@pytest.fixture
async def daemon(tmp_path: Path, disk: Disk) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path, environment=disk.environment)
    yield daemon
    await daemon.close()


async def work(daemon: Daemon, fleet: Fleet) -> None:
    """Start the daemon, and let the fleet work until some of it has been granted."""
    await daemon.start()
    fleet.connect(daemon.address)
    fleet.start()
    fleet.go_on()
    while len(fleet.journal.ids) < 20:
        fleet.check()
        await asyncio.sleep(0.01)


async def nothing_is_lost(daemon: Daemon, fleet: Fleet) -> None:
    """Start the daemon again, and see that all is there and goes on."""
    await daemon.start()
    fleet.connect(daemon.address)
    assert fleet.stubs is not None
    assert await audit.lost_after_restart(fleet.stubs, fleet.journal) == []
    told = len(fleet.journal.ids)
    fleet.go_on()
    while len(fleet.journal.ids) < told + 20:
        fleet.check()
        await asyncio.sleep(0.01)
    await fleet.stop()
    assert await daemon.end(signal.SIGTERM) == 0
    audit.check(fleet.journal)
    records = audit.Records(daemon.path)
    assert records.granted_twice() == []
    assert records.granted_though_refused(fleet.journal.refused) == []
    assert records.wrongly_ended(fleet.journal.locks) == []
    assert fleet.journal.repeats > 0


LOG = "-wal"
# What fails, of which file, how often, with which error, and after how many bytes of a write.
FAULTS = {
    "a write to the log": (Call.WRITE, LOG, ALWAYS, errno.EIO, 0),
    "one write to the log": (Call.WRITE, LOG, 1, errno.EIO, 0),
    "a sync of the log": (Call.SYNC, LOG, ALWAYS, errno.EIO, 0),
    "one sync of the log": (Call.SYNC, LOG, 1, errno.EIO, 0),
    "no space": (Call.WRITE, LOG, ALWAYS, errno.ENOSPC, 1000),
    "read-only at once": (Call.WRITE, LOG, ALWAYS, errno.EROFS, 0),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_disk_that_fails_under_it_ends_it_and_nothing_acknowledged_is_lost(
    daemon: Daemon, fleet: Fleet, disk: Disk, random: Random, name: str
) -> None:
    call, suffix, times, error, keep = FAULTS[name]
    await work(daemon, fleet)
    health = await Health.watched(daemon.address)
    fleet.expect_end()
    path = daemon.path.with_name(daemon.path.name + suffix)
    disk.fail(call, path, nth=random.randint(1, 40), times=times, error=error, keep=keep)
    assert await daemon.ended() == 4
    assert disk.failed > 0
    assert await health.rest() == [NOT_SERVING]
    told = [line for line in daemon.log() if "the store failed; nothing unsaved was acknowledged" in line]
    assert len(told) == 1
    assert str(daemon.path) in told[0]
    assert "Traceback" not in "".join(daemon.log())
    disk.mend()
    await nothing_is_lost(daemon, fleet)


async def test_a_write_torn_by_a_power_failure_is_as_if_never_begun(
    daemon: Daemon, fleet: Fleet, disk: Disk, random: Random
) -> None:
    await work(daemon, fleet)
    fleet.expect_end()
    log = daemon.path.with_name(daemon.path.name + LOG)
    disk.fail(Call.WRITE, log, nth=random.randint(1, 40), keep=random.randint(1, 4000), dies=True)
    assert await daemon.ended() == -signal.SIGKILL
    disk.mend()
    await nothing_is_lost(daemon, fleet)
