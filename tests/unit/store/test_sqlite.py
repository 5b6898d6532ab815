"""What goes in comes out, all of a batch or nothing of it."""

import asyncio
import inspect
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store_records import HISTORY_NS, RECORDS, batch, engagement, lock, reopen, reservation

from coordd.core.records import KEY_COLUMNS, RECORD_TYPES, Cell, Table
from coordd.store import sqlite
from coordd.store.protocol import CommitFailed, EngagementCount, Opened
from coordd.store.sqlite import SqliteStore


def sql(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def rows_of(opened: Opened) -> dict[Table, list[Any]]:
    return {table: list(rows) for table, rows in opened.tables.items() if rows}


async def test_a_new_store_is_empty(path: Path) -> None:
    store = SqliteStore(path)
    opened = await store.open(HISTORY_NS)
    await store.close()
    assert (opened.sequence, opened.instant, opened.last_id) == (0, 0, 0)
    assert set(opened.tables) == set(Table)
    assert rows_of(opened) == {}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("table", Table)
async def test_columns_are_the_fields_of_the_record(path: Path, table: Table) -> None:
    columns = sql(path, f"PRAGMA table_info({table.name.lower()})")
    record_type = RECORD_TYPES[table]
    fields = list(inspect.signature(record_type).parameters)
    if record_type is Cell:
        fields[0] = "limit_name"  # a keyword of SQL
    names = [name for _, name, *_ in columns]
    assert names == fields[: len(names)]
    assert len(names) == len(RECORDS[table].row())
    assert [name for _, name, _, _, _, key in columns if key] == names[: KEY_COLUMNS[table]]
    assert all(is_required or key for _, _, _, is_required, _, key in columns)


async def test_each_table_round_trips(store: SqliteStore) -> None:
    puts = {table: [record.row()] for table, record in RECORDS.items()}
    await store.commit(batch(1, puts, instant=5, last_id=7))
    opened = await reopen(store)
    assert (opened.sequence, opened.instant, opened.last_id) == (1, 5, 7)
    assert rows_of(opened) == puts


async def test_each_table_replaces_and_deletes_by_key(store: SqliteStore) -> None:
    puts = {table: [record.row()] for table, record in RECORDS.items()}
    keys = {table: row[: KEY_COLUMNS[table]] for table, (row,) in puts.items()}
    await store.commit(batch(1, puts))
    changed = {
        table: [(*row[:-1], "other" if isinstance(row[-1], str) else 77)] for table, (row,) in puts.items()
    }
    await store.commit(batch(2, changed))
    assert rows_of(await reopen(store)) == changed
    await store.commit(batch(3, deletes={table: [key] for table, key in keys.items()}))
    assert rows_of(await reopen(store)) == {}


async def test_a_batch_applied_twice_is_harmless(store: SqliteStore) -> None:
    await store.commit(batch(1, {Table.LOCKS: [lock(1).row(), lock(2).row()]}))
    again = batch(2, {Table.LOCKS: [lock(3).row()]}, {Table.LOCKS: [(1,)]})
    await store.commit(again)
    once = await reopen(store)
    await store.commit(again)
    assert await reopen(store) == once


@pytest.mark.parametrize("sequence", [1, 4])
async def test_a_batch_out_of_order_is_refused(store: SqliteStore, sequence: int) -> None:
    await store.commit(batch(1))
    await store.commit(batch(2))
    with pytest.raises(CommitFailed, match=f"batch {sequence} failed: it does not follow the last batch"):
        await store.commit(batch(sequence, {Table.LOCKS: [lock(1).row()]}))
    opened = await reopen(store)
    assert (opened.sequence, rows_of(opened)) == (2, {})


@pytest.mark.parametrize("bad", ["not a number", 2**63, None])
async def test_a_batch_that_fails_halfway_leaves_nothing(store: SqliteStore, bad: Any) -> None:
    await store.commit(batch(1, {Table.LOCKS: [lock(1).row()]}))
    good, wrong = lock(2).row(), (3, *lock(3).row()[1:-2], bad, "")
    with pytest.raises(CommitFailed):
        await store.commit(batch(2, {Table.LOCKS: [good, wrong]}, {Table.LOCKS: [(1,)]}))
    assert (await store.locks_page(0, 9, ""))[0].token == 1
    with pytest.raises(CommitFailed, match="batch 2 failed"):  # the first failure is the last word
        await store.commit(batch(2))
    opened = await reopen(store)
    assert (opened.sequence, rows_of(opened)) == (1, {Table.LOCKS: [lock(1).row()]})


async def test_a_full_file_fails_the_commit(store: SqliteStore) -> None:
    await store._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchall())
    await store.commit(batch(1, {Table.LOCKS: [lock(1).row()]}))
    with pytest.raises(CommitFailed, match=r"database or disk is full \(SQLITE_FULL\)"):
        await store.commit(batch(2, {Table.LOCKS: [lock(token).row() for token in range(5_000)]}))
    opened = await reopen(store)
    assert (opened.sequence, rows_of(opened)) == (1, {Table.LOCKS: [lock(1).row()]})


async def test_a_cancelled_commit_goes_on(store: SqliteStore) -> None:
    task = asyncio.create_task(store.commit(batch(1, {Table.LOCKS: [lock(1).row()]})))
    await asyncio.sleep(0)  # it is on its way to the thread now
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.commit(batch(2))
    assert rows_of(await reopen(store)) == {Table.LOCKS: [lock(1).row()]}


async def test_commits_are_synchronous_and_logged_ahead(store: SqliteStore) -> None:
    async def pragma(name: str) -> Any:
        return await store._writer.run(lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0])

    assert await pragma("synchronous") == 2  # FULL
    assert await pragma("journal_mode") == "wal"
    assert await pragma("application_id") == sqlite.APPLICATION_ID


async def test_what_is_committed_can_be_read_from_outside(store: SqliteStore, path: Path) -> None:
    await store.commit(batch(1, {Table.LOCKS: [lock(1).row()]}))
    assert sql(path, "SELECT item, granted_at FROM locks") == [("tweet:1", 1)]


# ---------------------------------------------------------------------- history


async def test_only_recent_history_is_loaded(store: SqliteStore) -> None:
    rows = [engagement(token, at=at).row() for token, at in ((1, 99), (2, 150), (3, 100), (4, 200))]
    await store.commit(batch(1, {Table.ENGAGEMENTS: rows}, instant=200))
    loaded = (await reopen(store, 100)).tables[Table.ENGAGEMENTS]
    assert [row[0] for row in loaded] == [3, 2, 4]  # oldest first


async def test_pruning_is_bounded_and_goes_on(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PRUNED_PER_BATCH_MIN", 3)
    rows = [engagement(token, at=100 - token).row() for token in range(1, 13)]
    new = [engagement(token, at=200).row() for token in (20, 21)]
    await store.commit(batch(1, {Table.ENGAGEMENTS: rows}))
    left = []
    for following in (
        batch(2, prune_before=97),
        batch(3, {Table.ENGAGEMENTS: new}),  # adds two, hence takes four
        batch(4),
        batch(5),
    ):
        await store.commit(following)
        left.append([token for (token,) in sql(path, "SELECT token FROM engagements ORDER BY token")])
    assert left == [
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 5, 20, 21],
        [1, 2, 3, 20, 21],
        [1, 2, 3, 20, 21],
    ]


@pytest.mark.parametrize(
    ("since", "kinds", "outcomes", "token"),
    [
        (0, [], [1, 2, 3], 6),
        (0, [], [1, 3], 5),
        (0, ["like"], [1, 2, 3], 4),
        (0, ["like", "reply"], [1], 5),
        (0, ["quote"], [1, 2, 3], None),
        (0, [], [], None),
        (50, [], [1, 3], 5),
        (51, [], [1, 3], None),
        (60, [], [1, 2, 3], 6),
        (61, [], [1, 2, 3], None),
    ],
)
async def test_latest_engagement(
    store: SqliteStore, since: int, kinds: list[str], outcomes: list[int], token: int | None
) -> None:
    rows = [
        engagement(3, at=50),
        engagement(4, at=40, kind="like", outcome=3),
        engagement(5, at=50),
        engagement(6, at=60, outcome=2),
        engagement(7, at=70, item="tweet:2"),
    ]
    await store.commit(batch(1, {Table.ENGAGEMENTS: [record.row() for record in rows]}))
    latest = await store.latest_engagement("tweet:1", since, kinds, outcomes)
    assert latest == next((record for record in rows if record.token == token), None)


async def test_counts(store: SqliteStore) -> None:
    rows = [
        engagement(1, at=1),
        engagement(2, at=2),
        engagement(3, at=3, worker="w2"),
        engagement(4, at=4, outcome=2),
        engagement(5, at=5, kind="like", worker="w2"),
    ]
    await store.commit(batch(1, {Table.ENGAGEMENTS: [record.row() for record in rows]}))
    assert await store.count_engagements(2, "") == [
        EngagementCount(kind="like", outcome=1, count=1),
        EngagementCount(kind="reply", outcome=1, count=2),
        EngagementCount(kind="reply", outcome=2, count=1),
    ]
    assert [(count.kind, count.count) for count in await store.count_engagements(0, "w2")] == [
        ("like", 1),
        ("reply", 1),
    ]
    assert await store.count_engagements(6, "") == []


async def test_a_long_count_holds_up_no_other_question(store: SqliteStore) -> None:
    await store.commit(batch(1, {Table.ENGAGEMENTS: [engagement(3).row()]}))
    # Seconds of counting: on one connection with it the answer would come after it.
    store._count_engagements = """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000000)
        SELECT 'reply', 1, count(*) FROM n WHERE :since = 0 AND :worker = ''
    """
    counting = asyncio.create_task(store.count_engagements(0, ""))
    await asyncio.sleep(0)  # it is on its way to the thread now
    latest = await store.latest_engagement("tweet:1", 0, [], [1])
    assert latest == engagement(3)
    assert not counting.done()
    assert await counting == [EngagementCount(kind="reply", outcome=1, count=5_000_000)]


# ---------------------------------------------------------------------- pages


async def test_lock_pages(store: SqliteStore) -> None:
    locks = [lock(token, "w1" if token % 2 else "w2") for token in range(1, 8)]
    await store.commit(batch(1, {Table.LOCKS: [record.row() for record in reversed(locks)]}))
    assert await store.locks_page(0, 3, "") == locks[:3]
    assert await store.locks_page(3, 100, "") == locks[3:]
    assert [record.token for record in await store.locks_page(1, 2, "w1")] == [3, 5]
    assert await store.locks_page(0, 9, "w3") == []


async def test_reservation_pages(store: SqliteStore) -> None:
    held = [
        reservation(1),
        reservation(2, "cpu"),
        reservation(3, worker="w2"),
        reservation(4, "cpu", "w2"),
    ]
    await store.commit(batch(1, {Table.RESERVATIONS: [record.row() for record in held]}))
    assert await store.reservations_page(0, 2, "", "") == held[:2]
    assert await store.reservations_page(2, 9, "", "") == held[2:]
    assert await store.reservations_page(0, 9, "w2", "") == held[2:]
    assert await store.reservations_page(0, 9, "", "cpu") == [held[1], held[3]]
    assert await store.reservations_page(0, 9, "w2", "cpu") == held[3:]
    assert (await store.reservations_page(0, 1, "", ""))[0].is_refilling is True
