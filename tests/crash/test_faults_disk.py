"""The real daemon on a disk that fails under it while 18 clients work: it stops at once and loses nothing.

By docs/semantics.md section 15: a commit that fails is the last one, health says so first, the log says why
in a line, the exit code is 4, and the next start has all that was acknowledged.
"""

import errno
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import grpc
import pytest
from crash_daemon import NOT_SERVING, Daemon, Health
from crash_rig import Fleet
from crash_work import nothing_is_lost, work
from disk_fault import ALWAYS, Call, Disk, compiled

from coordd.v1 import engagement_pb2


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


async def test_a_log_that_can_not_be_folded_into_the_file_ends_it(
    daemon: Daemon, fleet: Fleet, disk: Disk, random: Random
) -> None:
    await work(daemon, fleet)
    health = await Health.watched(daemon.address)
    fleet.expect_end()
    disk.fail(random.choice((Call.WRITE, Call.SYNC)), daemon.path)
    assert await daemon.ended() == 4
    assert disk.failed > 0
    assert await health.rest() == [NOT_SERVING]
    assert len(daemon.log()) == 1
    assert "the store failed" in daemon.log()[0]
    disk.mend()
    await nothing_is_lost(daemon, fleet)


async def test_a_stop_that_can_not_fold_the_log_says_so_and_loses_nothing(
    daemon: Daemon, fleet: Fleet, disk: Disk
) -> None:
    await work(daemon, fleet)
    fleet.disconnect()
    disk.fail(Call.SYNC, daemon.path)
    assert await daemon.end(signal.SIGTERM) == 4
    assert disk.failed > 0
    assert len(daemon.log()) == 1
    assert f"{daemon.path}: its log was left as it is: disk I/O error" in daemon.log()[0]
    disk.mend()
    await nothing_is_lost(daemon, fleet)


async def test_a_page_that_can_not_be_read_ends_the_question_and_no_more(
    daemon: Daemon, fleet: Fleet, disk: Disk
) -> None:
    await work(daemon, fleet)
    fleet.disconnect()
    assert await daemon.end(signal.SIGTERM) == 0
    await daemon.start()  # it has read the file, but the connection that answers questions has not
    fleet.connect(daemon.address)
    assert fleet.stubs is not None
    question = engagement_pb2.ListLocksRequest(page_size=10)
    disk.fail(Call.READ, daemon.path, times=1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.stubs.engagement.ListLocks(question)
    assert disk.failed == 1
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "the daemon can't read its data file; its log says why"
    [line] = daemon.log()
    assert "a question can't be answered from the store" in line
    assert f"error='{daemon.path}: " in line
    await fleet.stubs.engagement.ListLocks(question)
    assert await daemon.end(signal.SIGTERM) == 0
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
