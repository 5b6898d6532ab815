"""The real daemon on a small file system that is full, or read-only: for root, where mounting is allowed."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from crash_daemon import NOT_SERVING, Daemon, Health
from crash_rig import Fleet
from crash_work import nothing_is_lost, work

SIZE = 4 << 20


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "volume"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip(
            "needs root to mount a file system; what the disk does is injected in test_faults_disk.py"
        )
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"can't mount a file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def remount(volume: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", volume], check=True)


@pytest.fixture
async def daemon(tmp_path: Path, volume: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path, data=volume)
    yield daemon
    await daemon.close()


async def test_a_disk_that_is_full_ends_it_and_once_there_is_room_nothing_is_lost(
    daemon: Daemon, fleet: Fleet, volume: Path
) -> None:
    await work(daemon, fleet)
    health = await Health.watched(daemon.address)
    fleet.expect_end()
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file:
        free = os.statvfs(volume).f_bavail * os.statvfs(volume).f_frsize
        file.write(bytes(free - (64 << 10)))
    assert await daemon.ended() == 4
    [line] = daemon.log()
    assert "the store failed; nothing unsaved was acknowledged" in line
    assert "full" in line
    assert await health.rest() == [NOT_SERVING]
    ballast.unlink()
    await nothing_is_lost(daemon, fleet)


async def test_a_read_only_file_system_is_refused_in_a_line(
    daemon: Daemon, fleet: Fleet, volume: Path
) -> None:
    await work(daemon, fleet)
    fleet.disconnect()
    await daemon.close()
    remount(volume, "ro")
    await daemon.launch()
    assert await daemon.ended() == 3
    [line] = daemon.log()
    assert "Read-only file system" in line
    assert str(daemon.path) in line
    remount(volume, "rw")
    await nothing_is_lost(daemon, fleet)
