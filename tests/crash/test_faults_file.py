"""The real daemon and a data file that is not as it left it: damaged, cut, newer, shared, or taken away."""

import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from crash_daemon import NOT_SERVING, Daemon, Health
from crash_rig import Fleet
from crash_work import more, nothing_is_lost, work

PAGE = 4096


async def one_line(daemon: Daemon, code: int) -> str:
    """Return what a daemon says that ends by itself with `code`: one line, and no traceback."""
    assert await daemon.ended() == code, daemon.log()
    [line] = daemon.log()
    assert "Traceback" not in line
    return line


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files beside the data file, but for what holds nothing of its own."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name.startswith("coordd.db") and file.suffix != ".owner" and not file.name.endswith("-shm")
    }


# -- another daemon ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", [None, Path.symlink_to, Path.hardlink_to], ids=["same", "symlink", "link"])
async def test_of_two_daemons_on_one_file_the_second_is_refused_and_the_first_goes_on(
    daemon: Daemon, fleet: Fleet, tmp_path: Path, alias: Callable[[Path, Path], None] | None
) -> None:
    await work(daemon, fleet)
    data = tmp_path
    if alias is not None:
        data = tmp_path / "alias"
        data.mkdir()
        alias(data / "coordd.db", daemon.path)
    (tmp_path / "second").mkdir()
    second = Daemon(tmp_path / "second", data=data)
    await second.launch()
    line = await one_line(second, 3)
    assert f"is in use by process {daemon.pid}" in line or "has 2 names (hard links)" in line
    await more(fleet)
    fleet.expect_end()
    # The owner's death frees the file, whatever it leaves beside it.
    assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    if alias is Path.hardlink_to:
        (data / "coordd.db").unlink()
    await nothing_is_lost(daemon, fleet)


# -- damage --------------------------------------------------------------------------------------------------


def pages(path: Path) -> dict[int, str]:
    """Return which table or index each page belongs to."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            rows = connection.execute("SELECT pageno, name FROM dbstat").fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite can't tell whose a page is (dbstat)")
    return dict(rows)


def tokens(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT token FROM locks UNION SELECT token FROM engagements").fetchall()
    return {token for (token,) in rows}


def garble(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE + (100 if page == 1 else 0))
        file.write(b"\xa5" * 64)


async def test_a_corrupted_page_is_refused_and_left_as_it_is(
    daemon: Daemon, fleet: Fleet, tmp_path: Path
) -> None:
    await work(daemon, fleet)
    fleet.disconnect()
    assert await daemon.end(signal.SIGTERM) == 0
    sound = tmp_path / "sound.db"
    shutil.copy(daemon.path, sound)
    page = fleet.random.choice([page for page, name in pages(sound).items() if "locks" in name])
    garble(daemon.path, page)
    before = contents(tmp_path)
    await daemon.launch()
    line = await one_line(daemon, 3)
    assert f"{daemon.path}: " in line
    assert "is corrupt: " in line or "SQLITE_CORRUPT" in line
    assert contents(tmp_path) == before
    shutil.copy(sound, daemon.path)
    await nothing_is_lost(daemon, fleet)


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(
    daemon: Daemon, fleet: Fleet, tmp_path: Path
) -> None:
    await work(daemon, fleet)
    fleet.expect_end()
    assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    with closing(sqlite3.connect(daemon.path)) as connection:
        [(version,)] = connection.execute("PRAGMA user_version")
        connection.execute(f"PRAGMA user_version = {version + 1}")
    before = contents(tmp_path)
    await daemon.launch()
    line = await one_line(daemon, 3)
    assert f"has format {version + 1}; this version of coordd knows formats up to {version}" in line
    assert contents(tmp_path) == before
    with closing(sqlite3.connect(daemon.path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    await nothing_is_lost(daemon, fleet)


async def test_after_a_cut_log_it_goes_on_from_a_whole_batch_and_gives_no_id_again(
    daemon: Daemon, fleet: Fleet
) -> None:
    await work(daemon, fleet)
    fleet.expect_end()
    assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    log = daemon.path.with_name("coordd.db-wal")
    whole, data = log.read_bytes(), daemon.path.read_bytes()
    told = max(given for given, _, _ in fleet.journal.ids)
    for _ in range(4):
        daemon.path.write_bytes(data)
        log.write_bytes(whole[: fleet.random.randrange(len(whole))])
        await daemon.start()
        lonely = Fleet(fleet.random)
        lonely.connect(daemon.address)
        lonely.go_on()
        held = await lonely.take_lock("w", "new", ttl_s=600)
        assert held is not None
        assert held.id > told
        told = held.id
        await lonely.close()
        assert await daemon.end(signal.SIGTERM) == 0
        there = tokens(daemon.path) - {held.id}
        latest = max(there, default=0)
        assert [lock.id for lock in fleet.journal.locks if lock.id <= latest and lock.id not in there] == []
    daemon.path.write_bytes(data)
    log.write_bytes(whole)
    await nothing_is_lost(daemon, fleet)


# -- taken away ----------------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def delete_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


@pytest.mark.parametrize("take", [delete, replace, delete_log])
async def test_a_data_file_that_is_taken_away_under_it_ends_it(
    daemon: Daemon, fleet: Fleet, take: Callable[[Path], None]
) -> None:
    await work(daemon, fleet)
    health = await Health.watched(daemon.address)
    fleet.expect_end()
    take(daemon.path)
    line = await one_line(daemon, 4)
    assert "was moved, deleted or replaced while it was in use" in line
    assert await health.rest() == [NOT_SERVING]


async def test_a_data_file_that_is_put_back_has_all_that_was_acknowledged(
    daemon: Daemon, fleet: Fleet, tmp_path: Path
) -> None:
    await work(daemon, fleet)
    fleet.expect_end()
    daemon.path.rename(tmp_path / "elsewhere")
    assert "was moved, deleted or replaced while it was in use" in await one_line(daemon, 4)
    (tmp_path / "elsewhere").rename(daemon.path)
    await nothing_is_lost(daemon, fleet)
