"""A copy of the file: as of one instant, while batches are committed; and what is left when it fails."""
# A test has its event loop for itself, so it may block it.
# ruff: noqa: ASYNC240

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from store_records import HISTORY_NS, RECORDS, batch, lock

from coordd.core.records import Row, Table
from coordd.store import copying, sqlite
from coordd.store.copying import Marks
from coordd.store.protocol import CopyRefused
from coordd.store.sqlite import SqliteStore


@pytest.fixture
async def store(path: Path) -> SqliteStore:  # type: ignore[misc]
    store = SqliteStore(path)
    await store.open(HISTORY_NS)
    await store.commit(batch(1, {table: [record.row()] for table, record in RECORDS.items()}))
    yield store  # type: ignore[misc]
    await store.close()


def large(token: int) -> Row:
    return (token, "x" * 500, *lock(token).row()[2:])


async def read(store: SqliteStore, target: Path) -> tuple[int, int]:
    """Write a copy to `target`; return its size and sequence."""
    async with store.copied() as copy:
        target.write_bytes(b"".join([chunk async for chunk in copy.chunks()]))
        return copy.size, copy.sequence


def names(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


async def test_a_copy_opens_with_all_that_was_committed(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    size, sequence = await read(store, target)
    assert (size, sequence) == (target.stat().st_size, 1)
    again = SqliteStore(target)
    opened = await again.open(HISTORY_NS)
    await again.close()
    assert opened.tables == {table: [record.row()] for table, record in RECORDS.items()}


async def test_a_copy_is_of_one_instant_whatever_is_committed_meanwhile(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch changes every page: a copy of two instants would have two sorts of rows, or be damaged."""
    monkeypatch.setattr(copying, "_PAGES_PER_STEP", 8)
    is_half_done, may_go_on = threading.Event(), threading.Event()

    def in_two_halves(source: sqlite3.Connection, target: Path, go_on: Callable[[int, int], None]) -> Marks:
        def wait_in_the_middle(done: int, total: int) -> None:
            go_on(done, total)
            if done > total // 2:
                is_half_done.set()
                may_go_on.wait()

        return copying.copy(source, target, wait_in_the_middle)

    monkeypatch.setattr(sqlite, "copy", in_two_halves)
    tokens = range(4_000)
    await store.commit(batch(2, {Table.LOCKS: [large(token) for token in tokens]}))
    task = asyncio.create_task(read(store, tmp_path / "copy.db"))
    await asyncio.to_thread(is_half_done.wait)
    for sequence in range(3, 6):
        moved = [(token, f"item {sequence}", *large(token)[2:]) for token in tokens]
        await store.commit(batch(sequence, {Table.LOCKS: moved}))
    may_go_on.set()
    assert (await task)[1] == 2
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        items = connection.execute("SELECT DISTINCT item FROM locks WHERE token < 4000").fetchall()
        assert items == [("x" * 500,)]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_nothing_is_left_beside_the_file(store: SqliteStore, path: Path) -> None:
    path.with_name("coordd.db.copy").write_text("of a daemon that was killed")
    before = names(path) - {"coordd.db.copy"}
    descriptors = []
    for _ in range(3):
        async with store.copied() as copy:
            assert names(path) == before
            assert [chunk async for chunk in copy.chunks()]
        descriptors.append(psutil.Process().num_fds())
    # SQLite keeps one for the next connection to the file, since to close it would lose the locks of others.
    assert len(set(descriptors)) == 1


async def test_one_copy_at_a_time(store: SqliteStore, tmp_path: Path) -> None:
    async with store.copied():
        with pytest.raises(CopyRefused) as caught:
            await read(store, tmp_path / "second.db")
    assert caught.value.reason == "UNDER_WAY"
    assert (await read(store, tmp_path / "third.db"))[1] == 1


async def test_a_copy_takes_no_space_that_commits_need(
    store: SqliteStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(path)
    free = copying.RESERVE_BYTES + 4096
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 1 << 40, free))
    with pytest.raises(CopyRefused) as caught:
        await read(store, tmp_path / "copy.db")
    assert caught.value.reason == "NO_SPACE"
    assert names(path) == before
    await store.commit(batch(2))


async def test_a_copy_nobody_waits_for_is_given_up(
    store: SqliteStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PAGES_PER_STEP", 1)
    await store.commit(batch(2, {Table.LOCKS: [large(token) for token in range(20_000)]}))
    before = names(path)
    task = asyncio.create_task(read(store, tmp_path / "copy.db"))
    while not path.with_name("coordd.db.copy").exists():  # noqa: ASYNC110  -- the thread's, so nothing tells
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(path) == before
    assert (await read(store, tmp_path / "copy.db"))[1] == 2


async def test_a_copy_that_fails_says_why_and_commits_go_on(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(copying, "_check_space", failing)
    with pytest.raises(CopyRefused, match="the copy failed: disk I/O error") as caught:
        await read(store, tmp_path / "copy.db")
    assert caught.value.reason == "FAILED"
    await store.commit(batch(2))


async def test_the_log_shrinks_again_after_a_reader_kept_it(store: SqliteStore, path: Path) -> None:
    log = path.with_name("coordd.db-wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM locks").fetchone()
        for number in range(2, 12):
            rows = [(token, f"{number:02}" * 2_000, *large(token)[2:]) for token in range(2_000)]
            await store.commit(batch(number, {Table.LOCKS: rows}))
        assert log.stat().st_size > 65 << 20
        reader.execute("COMMIT")
    for number in range(12, 16):
        await store.commit(batch(number, {Table.LOCKS: [large(number)]}))
    assert log.stat().st_size <= 64 << 20
