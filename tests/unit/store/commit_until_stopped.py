"""Commits batch after batch to the file given, and prints each one's sequence once it is durable.

Usage: commit_until_stopped.py PATH [FILE_BYTES_MAX]
With FILE_BYTES_MAX the kernel refuses longer files, as a full disk would. It ends at a failed commit: its
reason is printed, and that of another commit after it.
"""
# ruff: noqa: T201

import asyncio
import resource
import sys

from store_records import batch, engagement, lock

from coordd.core.records import Table
from coordd.store.protocol import CommitFailed
from coordd.store.sqlite import SqliteStore

ROWS = 50


def filled(sequence: int) -> dict[Table, list[tuple[str | int | float, ...]]]:
    tokens = range(sequence * ROWS, (sequence + 1) * ROWS)
    return {
        Table.LOCKS: [lock(token).row() for token in tokens],
        Table.ENGAGEMENTS: [engagement(token, at=sequence).row() for token in tokens],
    }


async def main(path: str, file_bytes_max: int) -> None:
    store = SqliteStore(path)
    sequence = (await store.open(0)).sequence
    if file_bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
    try:
        while True:
            sequence += 1
            await store.commit(batch(sequence, filled(sequence)))
            print(sequence, flush=True)
    except CommitFailed as error:
        print(f"failed: {error}")
    try:
        await store.commit(batch(sequence))
    except CommitFailed as error:
        print(f"failed again: {error}")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
