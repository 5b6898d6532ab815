"""Every format that was ever on disk opens for ever, with all that it holds."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordd.core.records import Batch, Table
from coordd.store import sqlite
from coordd.store.sqlite import SqliteStore

FORMATS = sorted(Path(__file__).parent.glob("v*.sql"))

SECOND = 1_000_000_000
T = 1_760_000_000 * SECOND
# What the fixtures hold, told in today's columns. All of them hold the same, each as far as its format goes.
EXPECTED = {
    Table.LOCKS: [(7, "tweet:7", "reply", "w1", T - SECOND, T + 899 * SECOND, 900 * SECOND, "r7", 0)],
    Table.ENGAGEMENTS: [
        (1, "tweet:1", "like", "w2", 1, T - 1_000 * SECOND, T - 2_000 * SECOND, 0, ""),
        (2, "tweet:2", "reply", "w2", 3, T - 500 * SECOND, T - 1_500 * SECOND, 1, "r2"),
    ],
    Table.RESERVATIONS: [
        (
            3,
            "api_quota",
            "tweet",
            "api_tweets",
            2,
            "w1",
            T - SECOND,
            T + 29 * SECOND,
            30 * SECOND,
            1,
            "",
            0,
            2,
        )
    ],
    Table.PERMITS: [(4, "post_tweet", "w1", 1, T - SECOND, T + 29 * SECOND, "r4", 2)],
    Table.BOOKINGS: [
        (5, "post_tweet", "w2", 1, T - SECOND, T + 600 * SECOND, T + 630 * SECOND, T + 660 * SECOND, "r5")
    ],
    Table.CELLS: [("post_tweet", 900 * SECOND, 977_777_778, "w1", 3, 0, 0, 0)],
    Table.WAITERS: [
        (
            8,
            T - 121 * SECOND,
            T - SECOND,
            T + 299 * SECOND,
            "w3",
            "r8",
            "locks",
            '{"item":"tweet:7","kind":"reply","worker":"w3"}',
            0,
        )
    ],
    Table.HOLD_TIMES: [("lock/reply", 2 * SECOND, 12)],
    Table.OVERRIDES: [("post_tweet", 900 * SECOND, 40, 50)],
    Table.ENDED_REQUESTS: [("w2", "r2", T - 500 * SECOND)],
    Table.BUNDLES: [(6, "w1", T - SECOND, "[7,4]", '{"locks":[]}', "r6")],
    Table.SESSIONS: [
        ("w1", 4, "fast", 2_000, '{"zone":"a"}', T - 1_000 * SECOND, T + 30 * SECOND, 30 * SECOND)
    ],
    Table.ESCALATIONS: [
        (
            2,
            8,
            "tweet:7",
            "w3",
            3,
            SECOND,
            "w1",
            7,
            T - SECOND // 2,
            T + 59_500_000_000,
            0,
            "",
        )
    ],
    Table.GATES: [("post_tweet", T + 10 * SECOND, 2, T - SECOND, 5, 0)],
    Table.FOREIGN_USAGES: [("limit/post_tweet", 900 * SECOND, 7, T + 300 * SECOND)],
    Table.LEARNED_LIMITS: [("limit/post_tweet", 900 * SECOND, 25, 50, T - SECOND)],
    Table.EFFICIENCIES: [("limit/post_tweet", "w1", 970_000, 33)],
    Table.FORECASTS: [("limit/post_tweet", 4, 1_500_000, T - 10 * SECOND, 12, "[1000000]")],
    Table.CAPACITIES: [("content_pipeline", 81_500, T - SECOND, T - 2 * SECOND)],
}
# Tables that formats before the named one have not.
SINCE = {2: frozenset(Table) - frozenset(list(Table)[: Table.ENDED_REQUESTS + 1])}


def schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    return [(name, re.sub(r"\s+", " ", text)) for name, text in rows if text]


def load(fixture: Path, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(fixture.read_text("utf-8"))


def test_there_is_a_fixture_of_each_format() -> None:
    assert [fixture.stem for fixture in FORMATS] == [
        f"v{version}" for version in range(1, len(sqlite._migrations()) + 1)
    ]


@pytest.mark.parametrize("fixture", FORMATS, ids=lambda fixture: fixture.stem)
async def test_a_file_of_any_format_opens_and_goes_on(fixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "coordd.db"
    load(fixture, path)
    store = SqliteStore(path)
    opened = await store.open(3_600 * SECOND)
    assert (opened.sequence, opened.instant, opened.last_id) == (42, T, 8)
    version = int(fixture.stem.removeprefix("v"))
    missing = frozenset[Table]().union(*(tables for since, tables in SINCE.items() if version < since))
    assert opened.tables == {table: [] if table in missing else rows for table, rows in EXPECTED.items()}
    await store.commit(Batch(sequence=43, instant=T + 1, last_id=9, puts={}, deletes={Table.LOCKS: [(7,)]}))
    await store.close()


@pytest.mark.parametrize("fixture", FORMATS, ids=lambda fixture: fixture.stem)
async def test_an_old_file_becomes_what_a_new_one_is(fixture: Path, tmp_path: Path) -> None:
    load(fixture, tmp_path / "old.db")
    for name in ("old.db", "new.db"):
        store = SqliteStore(tmp_path / name)
        await store.open(0)
        await store.close()
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
