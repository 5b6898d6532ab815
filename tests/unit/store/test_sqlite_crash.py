"""Of a process that is killed, or whose disk is full, the disk has every batch that it was told is there.

And no part of another.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from commit_until_stopped import ROWS, filled

from coordd.core.records import Table
from coordd.store.sqlite import SqliteStore

PROGRAM = Path(__file__).with_name("commit_until_stopped.py")


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(path), *arguments], stdout=subprocess.PIPE, text=True
    )


async def audit(path: Path, acknowledged: int) -> None:
    store = SqliteStore(path)
    opened = await store.open(history_ns=10**12)
    await store.close()
    # One batch more may be durable: the process ended between its commit and the line that says so.
    assert opened.sequence in (acknowledged, acknowledged + 1)
    expected = [row for sequence in range(1, opened.sequence + 1) for row in filled(sequence)[Table.LOCKS]]
    assert opened.tables[Table.LOCKS] == expected
    assert len(opened.tables[Table.ENGAGEMENTS]) == ROWS * opened.sequence


async def test_killed_again_and_again(path: Path) -> None:
    acknowledged = 0
    for lines in (1, 7, 40, 3, 90):
        with start(path) as process:
            assert process.stdout is not None
            for _ in range(lines):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:  # what it had said before it died
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        await audit(path, acknowledged)


@pytest.mark.parametrize("file_bytes_max", [200_000, 300_000, 1_000_000])
async def test_a_disk_that_fills_up(path: Path, file_bytes_max: int) -> None:
    with start(path, str(file_bytes_max)) as process:
        assert process.stdout is not None
        *acknowledged, failed, again = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert acknowledged
    number = len(acknowledged) + 1
    assert failed.startswith(f"failed: {path}: batch {number} failed: ")
    assert "SQLITE_FULL" in failed or "SQLITE_IOERR" in failed
    assert again == failed.replace("failed: ", "failed again: ", 1)
    await audit(path, len(acknowledged))
