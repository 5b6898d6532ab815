"""Files of every sort, with and without a daemon: what the doctor says of them, and that it only looks."""
# A test has its event loop for itself, so it may block it.
# ruff: noqa: ASYNC240

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from doctor_files import INSTANT, killed, made

from coordd.doctor import Gravity, examine
from coordd.doctor.report import Report
from coordd.store.looking import ChangedMeanwhile, looking
from coordd.store.protocol import Unusable
from coordd.store.sqlite import SqliteStore, newest_format


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "coordd.db"


def files(path: Path) -> dict[str, tuple[int, bytes]]:
    """Everything beside the file, as it is."""
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.parent.iterdir()}


def looked(path: Path) -> Report:
    """What the doctor says, having changed nothing."""
    before = files(path)
    report = examine(path, INSTANT)
    assert files(path) == before
    return report


def findings(report: Report, gravity: Gravity) -> dict[str, str]:
    return {found.check: found.what for found in report.findings if found.gravity is gravity}


async def test_a_sound_file(path: Path) -> None:
    await made(path)
    report = looked(path)
    assert report.gravest is None
    assert (report.owner, report.format, report.log_bytes) == ("", newest_format(), 0)
    assert (report.sequence, report.instant, report.last_id) == (2, INSTANT, 100)
    assert (report.records["locks"], report.records["waiters"]) == (2, 1)
    assert report.history is not None
    assert report.history.count == 1
    assert not report.findings


async def test_a_file_that_a_daemon_serves(path: Path) -> None:
    await made(path)
    store = SqliteStore(path)
    await store.open(0)
    try:
        # The index of the log is the readers' and the writer's own; nobody reads its locks from the file.
        report = examine(path, INSTANT)
    finally:
        await store.close()
    assert report.owner == str(os.getpid())
    assert report.gravest is None
    assert looked(path).owner == ""


@pytest.mark.parametrize("has_index", [True, False])
def test_what_a_killed_daemon_left_in_the_log_is_seen(path: Path, has_index: bool) -> None:  # noqa: FBT001
    killed(path)
    if not has_index:
        path.with_name("coordd.db-shm").unlink()
    report = looked(path)
    assert report.log_bytes > 0
    assert report.records["locks"] == 2
    assert report.gravest is None


def test_leases_that_ran_out_while_no_daemon_served_are_a_note(path: Path) -> None:
    killed(path)
    report = examine(path, INSTANT + 10**15)
    assert findings(report, Gravity.NOTE)["expired"].startswith("3 leases have run out")
    assert report.gravest is None


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (x); PRAGMA application_id = 7")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newest_format() + 1}")


def _lacking(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE locks")


def _zeroed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'locks'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))


def _cut(path: Path) -> None:
    os.truncate(path, 5 * 4096)


def _no_database(path: Path) -> None:
    path.write_text("hello " * 100)


@pytest.mark.parametrize(
    ("damage", "what", "remedy"),
    [
        (_newer, "has format", "start the newer coordd"),
        (_lacking, "it lacks the table locks", "restore a backup"),
        (_zeroed, "", "restore a backup"),
        (_cut, "", "restore a backup"),
        (_no_database, "file is not a database", "name the file that [store] path names"),
    ],
)
async def test_what_the_daemon_refuses_is_broken(
    path: Path, damage: Callable[[Path], None], what: str, remedy: str
) -> None:
    await made(path)
    damage(path)
    report = looked(path)
    broken = [found for found in report.findings if found.gravity is Gravity.BROKEN]
    assert report.gravest is Gravity.BROKEN
    assert any(what in found.what and remedy in found.remedy for found in broken), broken
    with pytest.raises(Unusable):
        await SqliteStore(path).open(0)


def test_another_programs_file_is_to_be_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    _other(path)
    [found] = [found for found in looked(path).findings if found.gravity is Gravity.BROKEN]
    assert "belongs to another application" in found.what
    assert "leave it alone" in found.remedy


async def test_a_damaged_history_is_found_though_the_daemon_starts_on_it(path: Path) -> None:
    await made(path)
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'engagements_by_item'"
        ).fetchone()
    content = path.read_bytes()
    start = (page - 1) * 4096
    index = content[start : start + 4096].replace(b"tweet:1", b"tweet:9")
    path.write_bytes(content[:start] + index + content[start + 4096 :])
    assert "integrity" in findings(looked(path), Gravity.BROKEN)
    store = SqliteStore(path)
    await store.open(0)
    await store.close()


def test_nothing_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch(0o600)
    assert findings(looked(tmp_path / "empty.db"), Gravity.NOTE).keys() == {"empty"}
    assert findings(looked(tmp_path / "none.db"), Gravity.BROKEN) == {"file": "there is no such file"}
    assert findings(examine(tmp_path, INSTANT), Gravity.BROKEN) == {"file": "it is no regular file"}


async def test_a_file_that_others_may_read_is_odd(path: Path) -> None:
    await made(path)
    path.chmod(0o644)
    [found] = looked(path).findings
    assert (found.gravity, found.check) == (Gravity.ODD, "mode")
    assert found.remedy == f"chmod 600 {path}*"


async def test_a_clock_that_was_ahead_is_odd(path: Path) -> None:
    await made(path)
    assert "clock" in findings(examine(path, INSTANT - 3_600 * 10**9), Gravity.ODD)


async def test_a_full_file_system_a_long_log_and_holes_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(path)
    path.with_name("coordd.db-wal").write_bytes(b"")
    os.truncate(path.with_name("coordd.db-wal"), 65 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    odd = findings(looked(path), Gravity.ODD)
    assert odd["space"].startswith("its file system has 1 MiB left")
    assert odd["log"].startswith("its log has grown to 65 MiB")


async def test_holes_are_a_note_once_they_are_most_of_a_large_file(path: Path) -> None:
    await made(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE large (x)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO large VALUES (zeroblob(1000000))", [()] * 70)
        connection.executescript("DROP TABLE large; PRAGMA wal_checkpoint(TRUNCATE)")
    assert "67 MiB of it are free pages" in findings(looked(path), Gravity.NOTE)["holes"]


def test_an_older_format_is_a_note(tmp_path: Path) -> None:
    path = tmp_path / "v1.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parents[2] / "store_formats" / "v1.sql").read_text("utf-8"))
    path.chmod(0o600)
    report = looked(path)
    assert report.gravest is None
    assert findings(report, Gravity.NOTE)["format"].startswith("it has format 1; ")


async def test_a_file_that_changes_under_the_eyes_is_not_judged(path: Path) -> None:
    await made(path)
    with pytest.raises(ChangedMeanwhile), looking(path):
        os.utime(path, (1, 1))


async def test_one_that_may_not_read_it_is_told_who_may(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await made(path)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("coordd.doctor.examination.looking", refused)
    [found] = looked(path).findings
    assert found.remedy == "ask as the user that the daemon runs as"
