"""Durable state in one SQLite file: the current records as rows, each batch in one transaction.

Owns: the file, its format and its migrations. The schema is `sql/migrations/`, the queries are `sql/`; what
is written to a table follows from its columns, which are in the order of the record's `row()`.
Rules: a file is looked at read-only before anything is written near it; a commit that fails is the last one.
Must not know: what the records mean.
"""

import os
import sqlite3
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from coordd.core.records import Batch, Engagement, Lock, Reservation, Row, Table
from coordd.store.copying import Marks, copy
from coordd.store.owner import Owner
from coordd.store.presence import Presence
from coordd.store.protocol import CommitFailed, CopyRefused, EngagementCount, Opened, Unreadable, Unusable
from coordd.store.threads import Connection, Threads

__all__ = ["APPLICATION_ID", "SqliteStore", "check", "newest_format"]

APPLICATION_ID: Final = 0x636F7264
_MAGIC: Final = b"SQLite format 3\x00"
# An operator's shell may hold the write lock for a moment; one that holds it longer fails the commit.
_BUSY_S: Final = 5.0
# Pruning takes this many of the oldest engagements with each batch, or twice as many as the batch adds: so it
# always catches up, and costs a batch about what its own rows do (25 us a row, for the index by item).
_PRUNED_PER_BATCH_MIN: Final = 64
# SQLite folds its log into the file by itself, every 1,000 pages, and tells nobody if it can't: the log would
# grow, and the disk's errors be nobody's news. So we do it, too, at every so many batches, and are told. It
# costs two syncs at most.
_BATCHES_PER_CHECKPOINT: Final = 256
_LOG_BYTES_MAX: Final = 64 << 20
_CHUNK_BYTES: Final = 256 << 10
_SQL: Final = resources.files("coordd.store") / "sql"
_MARKS: Final = "meta"
_RECENT: Final = "recent_engagements.sql"
_LIVE_TABLES: Final = tuple(table for table in Table if table is not Table.ENGAGEMENTS)

_Record = TypeVar("_Record")


class SqliteStore:
    """The store in the file `path`; see `coordd.store.protocol.Store`. Used by one event loop.

    Args: threads: where it waits for the disk, instead of its own.
    """

    def __init__(self, path: Path | str, *, threads: Threads | None = None) -> None:
        # Two names for one file must lead to one owner file.
        self._path = Path(path).resolve()
        self._threads = threads or Threads()
        self._owner: Owner | None = None
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        # Counting a long history takes most of a second; no other question waits behind it.
        self._counter: Connection | None = None
        self._puts: dict[Table, str] = {}
        self._deletes: dict[Table, str] = {}
        self._mark = _sql("mark.sql")
        self._prune = _sql("prune.sql")
        self._latest_engagement = _sql("latest_engagement.sql")
        self._count_engagements = _sql("count_engagements.sql")
        self._locks_page = _sql("locks_page.sql")
        self._recent = _sql(_RECENT)
        self._reservations_page = _sql("reservations_page.sql")
        self._presence = Presence(())
        self._prune_before = 0
        self._failure = ""
        self._is_open = False
        self._is_copying = False

    # ------------------------------------------------------------------ opening and closing

    async def open(self, history_ns: int) -> Opened:
        """See `Store.open`. Makes the file (mode 0600) and its directory where they are missing."""
        try:
            await self._threads.call(self._prepare)
            self._writer = await self._connect("rw")
            opened = await self._writer.run(lambda connection: self._start(connection, history_ns))
            self._reader = await self._connect("ro")
            self._counter = await self._connect("ro")
            self._is_open = True
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise Unusable(f"{self._path}: {_reason(error)}") from error
        except BaseException:
            await self.close()
            raise
        return opened

    async def close(self) -> None:
        """See `Store.close`."""
        # The readers first: the last one to close folds the log into the file, and readers may not write.
        readers, writer, owner = (self._counter, self._reader), self._writer, self._owner
        self._counter = self._reader = self._writer = self._owner = None
        try:
            for reader in filter(None, readers):
                await reader.close()
            if writer is not None:
                await self._close_writer(writer)
        finally:
            if owner is not None:
                owner.release()

    async def _close_writer(self, writer: Connection) -> None:
        try:
            # Closing does it, too, and tells nobody if it can't.
            if self._is_open and not self._failure:
                await writer.run(_checkpoint)
        except sqlite3.Error as error:
            raise CommitFailed(f"{self._path}: its log was left as it is: {_reason(error)}") from error
        finally:
            await writer.close()

    def _prepare(self) -> None:
        _check_place(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = Owner(self._path)
        if self._path.exists():
            _inspect(self._path)
        else:
            _create(self._path)

    async def _connect(self, mode: str) -> Connection:
        # No isolation level: transactions begin where we say so.
        uri = f"{self._path.as_uri()}?mode={mode}"
        return await self._threads.connect(
            lambda: sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        )

    def _start(self, connection: sqlite3.Connection, history_ns: int) -> Opened:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # A copy, or an operator's shell, keeps the log from beginning anew; it need not stay as long as that.
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES_MAX}")
        _migrate(connection)
        for table in Table:
            columns = connection.execute(f"PRAGMA table_info({_name(table)})").fetchall()
            self._puts[table] = _put(table, len(columns))
            self._deletes[table] = _delete(table, [name for _, name, _, _, _, key in columns if key])
        opened = _load(connection, history_ns)
        self._presence = Presence((self._path, _log(self._path)))
        return opened

    # ------------------------------------------------------------------ writing

    async def commit(self, batch: Batch) -> None:
        """See `Store.commit`. Cancelling does not stop the transaction. After a failure all fail."""
        assert self._writer is not None, "commit before open"  # noqa: S101  -- a bug of the caller, not a failure
        if self._failure:
            raise CommitFailed(self._failure)
        try:
            await self._writer.run(lambda connection: self._write(connection, batch))
        # The last two are values that SQLite can't take: nothing of this batch can ever be durable.
        except (sqlite3.Error, OSError, OverflowError, ValueError) as error:
            self._failure = f"{self._path}: batch {batch.sequence} failed: {_reason(error)}"
            raise CommitFailed(self._failure) from error

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._apply(connection, batch)
        # Now: what it says of the files holds for this batch.
        self._presence.check()
        if batch.sequence % _BATCHES_PER_CHECKPOINT == 0:
            _checkpoint(connection)

    def _apply(self, connection: sqlite3.Connection, batch: Batch) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for table, keys in batch.deletes.items():
                connection.executemany(self._deletes[table], keys)
            for table, rows in batch.puts.items():
                connection.executemany(self._puts[table], rows)
            self._finish(connection, batch)
            connection.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has rolled back already, and says so; the first error is the one.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _finish(self, connection: sqlite3.Connection, batch: Batch) -> None:
        if self._prune_before or batch.prune_before:
            self._prune_some(connection, batch)
        marks = {"sequence": batch.sequence, "instant": batch.instant, "last_id": batch.last_id}
        if connection.execute(self._mark, marks).rowcount != 1:
            raise sqlite3.IntegrityError("it does not follow the last batch in the file")

    def _prune_some(self, connection: sqlite3.Connection, batch: Batch) -> None:
        before = max(self._prune_before, batch.prune_before)
        count = max(_PRUNED_PER_BATCH_MIN, 2 * len(batch.puts.get(Table.ENGAGEMENTS, ())))
        pruned = connection.execute(self._prune, {"before": before, "count": count}).rowcount
        # The batches to come go on with it, until one finds nothing left.
        self._prune_before = before if pruned == count else 0

    # ------------------------------------------------------------------ reading

    async def latest_engagement(
        self, item: str, since: int, kinds: Collection[str], outcomes: Collection[int]
    ) -> Engagement | None:
        """See `Store.latest_engagement`."""
        parameters: dict[str, str | int] = {
            "item": item,
            "since": since,
            "kinds": _json(kinds),
            "outcomes": _json(outcomes),
        }
        rows = await self._query(self._reader, self._latest_engagement, parameters)
        return _record(Engagement, rows[0]) if rows else None

    async def count_engagements(self, since: int, worker: str) -> Sequence[EngagementCount]:
        """See `Store.count_engagements`."""
        rows = await self._query(self._counter, self._count_engagements, {"since": since, "worker": worker})
        return [EngagementCount(kind=kind, outcome=outcome, count=count) for kind, outcome, count in rows]

    async def recent(self, history_ns: int) -> Mapping[Table, Sequence[Row]]:
        """See `Store.recent`."""
        [(instant,)] = await self._query(self._reader, "SELECT instant FROM meta", {})
        history = await self._query(self._reader, self._recent, {"since": instant - history_ns})
        cells = await self._query(self._reader, f"SELECT * FROM {_name(Table.CELLS)}", {})  # noqa: S608
        return {Table.CELLS: cells, Table.ENGAGEMENTS: history}

    async def locks_page(self, after: int, size: int, worker: str) -> Sequence[Lock]:
        """See `Store.locks_page`."""
        parameters: dict[str, str | int] = {"after": after, "size": size, "worker": worker}
        rows = await self._query(self._reader, self._locks_page, parameters)
        return [_record(Lock, row) for row in rows]

    async def reservations_page(self, after: int, size: int, worker: str, type: str) -> Sequence[Reservation]:
        """See `Store.reservations_page`."""
        parameters: dict[str, str | int] = {"after": after, "size": size, "worker": worker, "type": type}
        rows = await self._query(self._reader, self._reservations_page, parameters)
        return [_record(Reservation, row) for row in rows]

    # ------------------------------------------------------------------ copying

    @asynccontextmanager
    async def copied(self) -> AsyncGenerator["FileCopy", None]:
        """See `Store.copied`. It lies beside the file until it is complete, and then has no name any more."""
        if self._is_copying:
            raise CopyRefused("UNDER_WAY", "another copy is being taken; one at a time")
        target = self._path.with_name(self._path.name + ".copy")
        descriptor = _create_copy(target)
        self._is_copying = True
        try:
            try:
                marks = await self._copy(target)
            finally:
                target.unlink(missing_ok=True)
            yield FileCopy(self._threads, descriptor, marks)
        finally:
            self._is_copying = False
            # What has no name is freed with its last descriptor, which takes a while if it is large.
            await self._threads.call(partial(os.close, descriptor))

    async def _copy(self, target: Path) -> Marks:
        # A connection of its own: no question waits behind it.
        connection, is_wanted = await self._connect("ro"), True

        def go_on(*_: int) -> None:
            if not is_wanted:
                raise CopyRefused("CANCELLED", "nobody waits for the copy any more")

        try:
            return await connection.run(lambda source: copy(source, target, go_on))
        except (sqlite3.Error, OSError) as error:
            raise CopyRefused("FAILED", f"the copy failed: {_reason(error)}") from error
        finally:
            is_wanted = False
            await connection.close()

    async def _query(
        self, reader: Connection | None, sql: str, parameters: Mapping[str, str | int]
    ) -> list[Any]:
        assert reader is not None, "query before open"  # noqa: S101
        try:
            return await reader.run(lambda connection: connection.execute(sql, parameters).fetchall())
        except sqlite3.Error as error:
            raise Unreadable(f"{self._path}: {_reason(error)}") from error


class FileCopy:
    """A copy in a file without a name; see `coordd.store.protocol.Copy`."""

    def __init__(self, threads: Threads, descriptor: int, marks: Marks) -> None:
        self.size = os.fstat(descriptor).st_size
        self.sequence, self.instant, self.last_id = marks.sequence, marks.instant, marks.last_id
        self._threads = threads
        self._descriptor = descriptor

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """See `Copy.chunks`."""
        for offset in range(0, self.size, _CHUNK_BYTES):
            yield await self._threads.call(partial(os.pread, self._descriptor, _CHUNK_BYTES, offset))


def _create_copy(path: Path) -> int:
    """Make an empty file that is not to keep its name; return its descriptor."""
    # Of a daemon that was killed while it took a copy.
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


# ---------------------------------------------------------------------- the file


def _check_place(path: Path) -> None:
    # What the system says of these ("File exists", "Not a directory") leaves open which name is wrong.
    for directory in path.parents:
        if directory.is_file():
            raise Unusable(f"{path}: its directory {directory} is a file")
    if path.is_dir():
        raise Unusable(f"{path}: is a directory; it has to be a file")
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
        raise Unusable(f"{path}: is no regular file")
    # Each of its names has a log and an owner of its own: between two of them SQLite would ruin the file.
    if path.exists() and (names := path.stat().st_nlink) > 1:
        raise Unusable(f"{path}: has {names} names (hard links); it must have one")


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _create(path: Path) -> None:
    # SQLite would make it readable by everybody; the log and the index beside it take over the file's mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _inspect(path: Path) -> None:
    """Refuse what is not a sound data file of a format we know, with nothing written to it or beside it."""
    log = _log(path)
    has_log = log.exists() and log.stat().st_size > 0
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if not magic and not has_log:
        return
    if magic != _MAGIC:
        raise Unusable(f"{path}: is not an SQLite database")
    # Where there is no log to read, `immutable` keeps SQLite from putting an index of it beside the file.
    uri = f"{path.as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        check(path, connection)


def newest_format() -> int:
    """Return the newest format that this version knows."""
    return len(_migrations())


def check(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse what a daemon would not serve. Raises: Unusable; sqlite3.Error if it can't be read."""
    version, newest = _pragma(connection, "user_version"), newest_format()
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if is_empty and not version:
        return
    if (application := _pragma(connection, "application_id")) != APPLICATION_ID:
        raise Unusable(f"{path}: belongs to another application (application_id {application:#x})")
    if not version:
        raise Unusable(f"{path}: is corrupt: it has tables and no format")
    if version > newest:
        raise Unusable(f"{path}: has format {version}; this version of coordd knows formats up to {newest}")
    # An older format may do without a table of the newest; a migration will make it.
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    missing = {_MARKS, *map(_name, Table)} - present
    if missing and version == newest:
        raise Unusable(f"{path}: is corrupt: it lacks the table {', '.join(sorted(missing))}")
    if not connection.execute(f"SELECT count(*) FROM {_MARKS}").fetchone()[0]:  # noqa: S608
        raise Unusable(f"{path}: is corrupt: the marks of the last batch are missing ({_MARKS} is empty)")
    _check_tables(path, connection, [table for table in _LIVE_TABLES if _name(table) in present])


def _check_tables(path: Path, connection: sqlite3.Connection, tables: Sequence[Table]) -> None:
    # The history is left out: it has no bound, hence its check has none, and no decision needs it whole.
    # What is checked is read right after anyway: at 10^6 locks 0.12 s more than the 1.5 s of reading them.
    for table in tables:
        verdict = connection.execute(f"PRAGMA quick_check({_name(table)})").fetchone()[0]
        if verdict != "ok":
            raise Unusable(f"{path}: is corrupt: {' '.join(verdict.split())}")


def _checkpoint(connection: sqlite3.Connection) -> None:
    # What readers still need of the log stays in it; nobody waits for them.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _migrate(connection: sqlite3.Connection) -> None:
    for version, script in enumerate(_migrations(), start=1):
        if _pragma(connection, "user_version") < version:
            connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version}; COMMIT;")
            # So that the file's own header says at once what it is, also to those who read no log.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _load(connection: sqlite3.Connection, history_ns: int) -> Opened:
    sequence, instant, last_id = connection.execute("SELECT sequence, instant, last_id FROM meta").fetchone()
    tables: dict[Table, Sequence[Row]] = {
        table: connection.execute(f"SELECT * FROM {_name(table)}").fetchall()  # noqa: S608  -- a name of ours
        for table in _LIVE_TABLES
    }
    since = {"since": instant - history_ns}
    tables[Table.ENGAGEMENTS] = connection.execute(_sql(_RECENT), since).fetchall()
    return Opened(sequence=sequence, instant=instant, last_id=last_id, tables=tables)


# ---------------------------------------------------------------------- SQL and values


def _sql(name: str) -> str:
    return (_SQL / name).read_text("utf-8")


def _migrations() -> list[str]:
    scripts = (_SQL / "migrations").iterdir()
    return [script.read_text("utf-8") for script in sorted(scripts, key=lambda script: script.name)]


def _name(table: Table) -> str:
    return table.name.lower()


def _put(table: Table, columns: int) -> str:
    # Measured no slower than ON CONFLICT DO UPDATE, and the same text whatever the columns.
    return f"REPLACE INTO {_name(table)} VALUES ({', '.join('?' * columns)})"  # noqa: S608


def _delete(table: Table, key: Sequence[str]) -> str:
    return f"DELETE FROM {_name(table)} WHERE {' AND '.join(f'{column} = ?' for column in key)}"  # noqa: S608


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _json(values: Collection[str] | Collection[int]) -> str:
    return msgspec.json.encode(tuple(values)).decode()


def _record(type: type[_Record], row: Row) -> _Record:
    # Columns are the leading fields. Not strict: SQLite has no booleans.
    fields: Sequence[str] = type.__struct_fields__  # type: ignore[attr-defined]
    return msgspec.convert(dict(zip(fields, row, strict=False)), type, strict=False)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)
