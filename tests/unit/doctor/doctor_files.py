"""Data files for the doctor: as a daemon leaves them, well or killed."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from coordd.core.records import Batch, Row, Table
from coordd.store.sqlite import SqliteStore

INSTANT = 1_790_000_000 * 10**9
LATER = INSTANT + 10**11
# As a daemon would have written them: one of what the checks are about.
ROWS: dict[Table, list[Row]] = {
    Table.LOCKS: [
        (11, "tweet:1", "reply", "w1", INSTANT - 5, LATER, 30, "r1", 0),
        (12, "tweet:2", "reply", "w1", INSTANT - 5, LATER, 30, "", 0),
    ],
    Table.ENGAGEMENTS: [(13, "tweet:1", "reply", "w1", 1, INSTANT - 9, INSTANT - 10, 0, "")],
    Table.RESERVATIONS: [(14, "slot", "a", "slots", 2, "w1", INSTANT - 5, LATER, 30, 0, "", 0, 2)],
    Table.PERMITS: [(15, "search", "w1", 3, INSTANT - 5, LATER, "r2", 2)],
    Table.BOOKINGS: [(16, "search", "w1", 1, INSTANT - 5, LATER, LATER + 5, LATER + 9, "", 0)[:9]],
    Table.CELLS: [("limit/search", 900 * 10**9, 994_444_444, "w1", 3, 0, 0, 0)],
    Table.WAITERS: [
        (17, INSTANT, INSTANT - 1, LATER, "w2", "r3", "RequestLock", '{"item":"tweet:1","worker":"w2"}', 0)
    ],
    Table.BUNDLES: [(18, "w1", INSTANT - 5, "[12,14]", "[]", "r4")],
    Table.SESSIONS: [("w1", 19, "", 0, "{}", INSTANT - 5, LATER, 30)],
    Table.ESCALATIONS: [(20, 17, "tweet:1", "w2", 2, 5, "w1", 11, INSTANT - 5, LATER, 0, "")],
}
_KILLED = """
import asyncio, os, sys
from pathlib import Path
from doctor_files import fill
async def main():
    await fill(Path(sys.argv[1]))
    os._exit(0)
asyncio.run(main())
"""


def batch(sequence: int, rows: dict[Table, list[Row]]) -> Batch:
    return Batch(sequence=sequence, instant=INSTANT, last_id=100, puts=rows, deletes={})


async def fill(path: Path) -> Any:
    """Make a file of two batches; return the store, open."""
    store = SqliteStore(path)
    await store.open(0)
    await store.commit(batch(1, {}))
    await store.commit(batch(2, ROWS))
    return store


async def made(path: Path) -> None:
    """Make a file as a daemon leaves it that was stopped."""
    await (await fill(path)).close()


def killed(path: Path) -> None:
    """Make a file as a daemon leaves it that was killed: the second batch is in the log only."""
    environment_path = [str(Path(__file__).parent), *sys.path]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {environment_path!r}\n{_KILLED}", path],
        check=True,
    )


def made_now(path: Path) -> None:
    asyncio.run(made(path))
