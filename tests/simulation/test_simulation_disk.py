"""The disk: a power cut takes what was not synced, any of it, and never what was."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from simulation.disk import Files, Image, torn

ROWS = 40


def write(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM t")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(row, f"{number}" * 300) for row in range(ROWS)])
    connection.execute("COMMIT")


def read(files: Files, image: Image) -> set[str]:
    """Return what SQLite makes of an image: the values that are there."""
    files.restore(image)
    with closing(sqlite3.connect(files.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT id, value FROM t ORDER BY id").fetchall()
    assert [row for row, _ in rows] == list(range(ROWS))
    return {value[0] for _, value in rows}


@pytest.mark.parametrize("pages_per_checkpoint", [1, 20, 1000])
def test_a_torn_transaction_is_there_as_a_whole_or_not_and_those_before_it_always(
    tmp_path: Path, pages_per_checkpoint: int
) -> None:
    """In each place of the log: at its end, where it begins anew, with a checkpoint after it."""
    files, random = Files(tmp_path / "live" / "t.db"), Random(pages_per_checkpoint)
    other = Files(tmp_path / "after" / "t.db")
    files.path.parent.mkdir()
    other.path.parent.mkdir()
    seen: Counter[str] = Counter()
    with closing(sqlite3.connect(files.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages_per_checkpoint}")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT)")
        write(connection, 0)
        for number in range(1, 10):
            before = files.image()
            write(connection, number)
            after = files.image()
            for _ in range(12):
                [value] = read(other, torn(before, after, random))
                assert int(value) in {number - 1, number}
                seen["kept" if int(value) == number else "lost"] += 1
    assert seen["lost"] > 10
    assert seen["kept"] > 10


def test_a_log_that_is_folded_in_and_deleted_is_torn_before_it_goes(tmp_path: Path) -> None:
    files, random = Files(tmp_path / "t.db"), Random(1)
    connection = sqlite3.connect(files.path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT)")
    write(connection, 5)
    before = files.image()
    connection.close()
    after = files.image()
    assert "-wal" not in after
    for _ in range(50):
        assert read(files, torn(before, after, random)) == {"5"}


def test_what_is_beside_a_torn_write_is_safe() -> None:
    before = {"": b"f", "-wal": b"h" * 32 + b"a" * 1000}
    after = {"": b"f", "-wal": before["-wal"] + b"b" * 1000}
    for seed in range(300):
        log = torn(before, after, Random(seed))["-wal"]
        assert log[: len(before["-wal"])] == before["-wal"]
