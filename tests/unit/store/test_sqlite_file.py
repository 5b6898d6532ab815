"""Whose file it is, which files are refused, and that those are left as they were."""
# A test has its event loop for itself, so it may block it.
# ruff: noqa: ASYNC221, ASYNC240

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from store_records import HISTORY_NS, batch, digests, lock, reopen

from coordd.core.records import Table
from coordd.store import sqlite
from coordd.store.protocol import Unusable
from coordd.store.sqlite import SqliteStore

OPEN_IT = """
import asyncio, sys
from coordd.store.sqlite import SqliteStore
asyncio.run(SqliteStore(sys.argv[1]).open(0))
"""


async def fill(path: Path, locks: int = 500) -> None:
    store = SqliteStore(path)
    await store.open(HISTORY_NS)
    await store.commit(batch(1, {Table.LOCKS: [lock(token).row() for token in range(locks)]}))
    await store.close()


def run_sql(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


async def refused(path: Path) -> str:
    """The reason; every file is as before."""
    before = digests(path.parent)
    with pytest.raises(Unusable) as refusal:
        await SqliteStore(path).open(HISTORY_NS)
    assert digests(path.parent) == before
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


# ---------------------------------------------------------------------- ownership


async def test_a_second_daemon_is_refused(store: SqliteStore, path: Path) -> None:
    other = subprocess.run([sys.executable, "-c", OPEN_IT, path], capture_output=True, text=True, check=False)
    owner = (path.parent / "coordd.db.owner").read_text().strip()
    assert f"Unusable: {path}: is in use by process {owner}\n" in other.stderr
    await store.commit(batch(1))


async def test_ownership_ends_with_close(store: SqliteStore, path: Path) -> None:
    with pytest.raises(Unusable, match="is in use"):
        await SqliteStore(path).open(HISTORY_NS)
    await store.close()
    other = SqliteStore(path)
    await other.open(HISTORY_NS)
    await other.close()


async def test_a_refused_open_gives_ownership_up(path: Path) -> None:
    path.write_text("something else")
    for _ in range(2):
        assert await refused(path) == "is not an SQLite database"


@pytest.mark.usefixtures("store")
async def test_another_name_for_the_file_is_no_way_in(tmp_path: Path, path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    with pytest.raises(Unusable, match="is in use"):
        await SqliteStore(tmp_path / "link.db").open(HISTORY_NS)


async def test_a_process_that_does_not_close_ends(path: Path) -> None:
    subprocess.run([sys.executable, "-c", OPEN_IT, path], check=True, timeout=30, capture_output=True)
    await fill(path)


async def test_closing_twice_is_harmless(store: SqliteStore) -> None:
    await store.close()
    await store.close()


# ---------------------------------------------------------------------- places


async def test_missing_directories_are_made_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.db"
    store = SqliteStore(path)
    await store.open(HISTORY_NS)
    await store.commit(batch(1))
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"c.db": 0o600, "c.db-wal": 0o600, "c.db-shm": 0o600, "c.db.owner": 0o600}
    await store.close()
    assert {file.name for file in path.parent.iterdir()} == {"c.db", "c.db.owner"}


async def test_odd_names_are_names(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1?mode=memory.db"
    await fill(path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("below", ["coordd.db", "a/b/coordd.db"])
async def test_a_file_where_a_directory_should_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / below
    with pytest.raises(Unusable) as refusal:
        await SqliteStore(path).open(HISTORY_NS)
    assert str(refusal.value) == f"{path}: its directory {tmp_path / 'file'} is a file"


async def test_a_directory_where_a_file_should_be(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Unusable) as refusal:
        await SqliteStore(path).open(HISTORY_NS)
    assert str(refusal.value) == f"{path}: is a directory; it has to be a file"
    assert list(path.parent.iterdir()) == [path]


async def test_a_pipe_where_a_file_should_be(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(Unusable, match="is no regular file"):
        await asyncio.wait_for(SqliteStore(path).open(HISTORY_NS), 10)


# ---------------------------------------------------------------------- refused files


@pytest.mark.parametrize("content", [b"SQLite format 3", b"x", b"\0" * 4096, b"PK\3\4" * 2000])
async def test_not_a_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert await refused(path) == "is not an SQLite database"


async def test_a_header_and_nothing_after_it(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    assert "SQLITE_NOTADB" in await refused(path)


@pytest.mark.parametrize("script", ["CREATE TABLE t (x);", "PRAGMA application_id = 7; CREATE TABLE t (x);"])
async def test_another_applications_database(path: Path, script: str) -> None:
    run_sql(path, script)
    assert (await refused(path)).startswith("belongs to another application (application_id 0x")


async def test_a_newer_format(path: Path) -> None:
    await fill(path)
    run_sql(path, "PRAGMA user_version = 99;")
    known = len(sqlite._migrations())
    assert await refused(path) == f"has format 99; this version of coordd knows formats up to {known}"


async def test_a_newer_format_that_is_only_in_the_log(tmp_path: Path, path: Path) -> None:
    await fill(path)
    crashed = tmp_path / "crashed" / "coordd.db"
    crashed.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    before = digests(crashed.parent)
    with pytest.raises(Unusable, match="has format 99"):
        await SqliteStore(crashed).open(HISTORY_NS)
    after = digests(crashed.parent)
    # The index of the log is made from the log whenever somebody reads it; it holds nothing of its own.
    after.pop("coordd.db-shm", None)
    assert after == before


def _garble(path: Path, position: int, count: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"\xa5" * count)


def _truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _garble(path, 100, 1000),  # the schema
        lambda path: _garble(path, path.stat().st_size - 8192),  # rows
        lambda path: _garble(path, 4096 * 2),  # the root of a table
        _truncate,
    ],
    ids=["schema", "rows", "root", "truncated"],
)
async def test_a_corrupt_file(path: Path, damage: Callable[[Path], None]) -> None:
    await fill(path)
    damage(path)
    reason = await refused(path)
    assert "is corrupt: " in reason or "SQLITE_CORRUPT" in reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("DELETE FROM meta;", "is corrupt: the marks of the last batch are missing (meta is empty)"),
        ("DROP TABLE meta;", "is corrupt: it lacks the table engagements, meta"),
        ("DROP TABLE locks;", "is corrupt: it lacks the table engagements, locks"),
        ("PRAGMA user_version = 0;", "is corrupt: it has tables and no format"),
    ],
    ids=["marks", "meta", "locks", "format"],
)
@pytest.mark.parametrize("journal", ["delete", "wal"])
async def test_a_sound_file_that_lacks_something(path: Path, script: str, reason: str, journal: str) -> None:
    await fill(path)
    drop = "DROP TABLE engagements;" if "table engagements" in reason else ""
    run_sql(path, f"PRAGMA journal_mode = {journal}; {script} {drop}")
    assert await refused(path) == reason


async def test_a_log_without_its_file(path: Path) -> None:
    # SQLite would delete the log, and all that it holds.
    path.write_bytes(b"")
    path.with_name("coordd.db-wal").write_bytes(b"something")
    assert await refused(path) == "is not an SQLite database"


async def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.touch()
    await fill(path)


# ---------------------------------------------------------------------- migrations


async def test_an_older_format_is_migrated_and_refused_by_the_older_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path, locks=3)
    known = sqlite._migrations()
    following = "ALTER TABLE hold_times ADD COLUMN note TEXT NOT NULL DEFAULT '';"
    with monkeypatch.context() as newer:
        newer.setattr(sqlite, "_migrations", lambda: [*known, following])
        store = SqliteStore(path)
        opened = await store.open(HISTORY_NS)
        assert [row[0] for row in opened.tables[Table.LOCKS]] == [0, 1, 2]
        await store.commit(batch(2, {Table.HOLD_TIMES: [("a", 1, 1, "new")]}))
        assert (await reopen(store)).tables[Table.HOLD_TIMES] == [("a", 1, 1, "new")]
        await store.close()
    assert (await refused(path)).startswith(f"has format {len(known) + 1}; ")


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path, locks=3)
    known = sqlite._migrations()
    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "_migrations", lambda: [*known, "DROP TABLE locks; SELECT nonsense;"])
        with pytest.raises(Unusable, match="nonsense"):
            await SqliteStore(path).open(HISTORY_NS)
    store = SqliteStore(path)
    assert len((await store.open(HISTORY_NS)).tables[Table.LOCKS]) == 3
    await store.close()
