"""The examination: from the file as such, through SQLite's own checks, to what the tables say together.

Rules: nothing is written; what the daemon refuses is told as the daemon would tell it; once something makes
the rest unreadable the rest is not asked.
"""

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from coordd.core.limits import MINUTE, SECOND
from coordd.core.records import Table
from coordd.doctor.checks import CHECKS, RESTORE, Check
from coordd.doctor.report import Finding, Gravity, History, Report
from coordd.store.looking import ChangedMeanwhile, log_of, looking
from coordd.store.owner import owner_of
from coordd.store.protocol import Unusable
from coordd.store.sqlite import APPLICATION_ID, check, newest_format

_PROBLEMS_MAX: Final = 10
_EXAMPLES_MAX: Final = 3
# Below this the next burst of commits may fill the disk; the log alone grows to 4 MiB as a rule.
_FREE_BYTES_MIN: Final = 64 << 20
# More says that somebody has kept a read transaction open for long: the log can't begin anew meanwhile.
_LOG_BYTES_USUAL: Final = 64 << 20
# An idle file that is mostly holes, and large enough to care.
_HOLES_MIN: Final = 0.5
_HOLES_BYTES_MIN: Final = 64 << 20
_OTHERS: Final = 0o077


def examine(path: Path, now: int) -> Report:
    """Return what is to be said of the data file at `path`, at the instant `now` (ns)."""
    return _Examination(path, now).report()


class _Examination:
    """One look at one file; what is found collects in a report."""

    def __init__(self, path: Path, now: int) -> None:
        self._path = path
        self._now = now
        self._found: list[Finding] = []
        self._report = Report(path=str(path.absolute()), format_newest=newest_format())

    def report(self) -> Report:
        """Look at everything; return what was found, the worst first."""
        if self._is_file():
            try:
                self._look_at_place()
                with looking(self._path) as connection:
                    self._look_inside(connection)
            except ChangedMeanwhile:
                again = "a daemon has begun to serve the file meanwhile; what was seen may be half old"
                self._found = [Finding(gravity=Gravity.ODD, check="changed", what=again, remedy="ask again")]
            except (sqlite3.Error, OSError) as error:
                self._find(Gravity.BROKEN, "readable", f"it can't be read: {error}", _reading_remedy(error))
        gravities = list(Gravity)
        self._found.sort(key=lambda finding: gravities.index(finding.gravity))
        return replace(self._report, findings=tuple(self._found))

    def _find(self, gravity: Gravity, check: str, what: str, remedy: str = "") -> None:
        self._found.append(Finding(gravity=gravity, check=check, what=what, remedy=remedy))

    def _note(self, **changes: Any) -> None:
        self._report = replace(self._report, **changes)

    # -- the file as such ------------------------------------------------------------------------------------

    def _is_file(self) -> bool:
        if self._path.is_file():
            return True
        is_there = self._path.exists()
        what = "it is no regular file" if is_there else "there is no such file"
        remedy = "name the file that [store] path names" + (
            "" if is_there else "; a daemon that starts there makes a new, empty one"
        )
        self._find(Gravity.BROKEN, "file", what, remedy)
        return False

    def _look_at_place(self) -> None:
        stat, log = self._path.stat(), log_of(self._path)
        log_bytes = log.stat().st_size if log.exists() else 0
        self._note(owner=owner_of(self._path), size_bytes=stat.st_size, log_bytes=log_bytes)
        if stat.st_mode & _OTHERS:
            what = f"other users may read or change it: its mode is {stat.st_mode & 0o777:o}"
            self._find(Gravity.ODD, "mode", what, f"chmod 600 {self._path}*")
        free = shutil.disk_usage(self._path.absolute().parent).free
        if free < max(_FREE_BYTES_MIN, log_bytes):
            what = f"its file system has {_size(free)} left; on a full one commits fail and the daemon stops"
            self._find(
                Gravity.ODD, "space", what, "free space there, or move the file with the daemon stopped"
            )
        if log_bytes > _LOG_BYTES_USUAL:
            what = f"its log has grown to {_size(log_bytes)}: somebody kept a read transaction open for long"
            remedy = "end the program that reads the file; a daemon that is stopped well folds the log in"
            self._find(Gravity.ODD, "log", what, remedy)

    # -- what SQLite says ------------------------------------------------------------------------------------

    def _look_inside(self, connection: sqlite3.Connection) -> None:
        self._note(
            pages=_one(connection, "PRAGMA page_count"),
            pages_free=_one(connection, "PRAGMA freelist_count"),
            page_bytes=_one(connection, "PRAGMA page_size"),
            format=_one(connection, "PRAGMA user_version"),
        )
        # From here on all is as of one instant, though a daemon may go on.
        connection.execute("BEGIN")
        if self._is_ours(connection) and self._is_whole(connection):
            self._look_at_records(connection)
            self._look_at_holes()

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        if _one(connection, "SELECT count(*) FROM sqlite_schema") == 0 and not self._report.format:
            remedy = "none, if no daemon has used it yet; else restore a backup"
            self._find(Gravity.NOTE, "empty", "it is empty: a daemon that starts there begins anew", remedy)
            return False
        try:
            check(self._path, connection)
        except Unusable as error:
            what = str(error).removeprefix(f"{self._path}: ")
            self._find(
                Gravity.BROKEN, "usable", f"the daemon refuses it: it {what}", self._remedy(connection)
            )
            return False
        return True

    def _remedy(self, connection: sqlite3.Connection) -> str:
        if _one(connection, "PRAGMA application_id") != APPLICATION_ID:
            return "name the file that [store] path names: this one is another program's, leave it alone"
        if (self._report.format or 0) > newest_format():
            return "start the newer coordd that wrote it, or restore a backup from before the upgrade"
        return RESTORE

    def _is_whole(self, connection: sqlite3.Connection) -> bool:
        problems = connection.execute(f"PRAGMA integrity_check({_PROBLEMS_MAX})").fetchall()
        lines = [" ".join(str(problem).split()) for (problem,) in problems if problem != "ok"]
        for line in lines:
            self._find(Gravity.BROKEN, "integrity", f"SQLite finds it damaged: {line}", RESTORE)
        return not lines

    def _look_at_holes(self) -> None:
        pages, free = self._report.pages or 0, self._report.pages_free or 0
        free_bytes = free * (self._report.page_bytes or 0)
        if free_bytes >= _HOLES_BYTES_MIN and free >= pages * _HOLES_MIN:
            what = f"{_size(free_bytes)} of it are free pages; they are used again before it grows"
            remedy = f"to give them back, with the daemon stopped: sqlite3 {self._path} VACUUM"
            self._find(Gravity.NOTE, "holes", what, remedy)

    # -- what it says ----------------------------------------------------------------------------------------

    def _look_at_records(self, connection: sqlite3.Connection) -> None:
        sequence, instant, last_id = connection.execute(
            "SELECT sequence, instant, last_id FROM meta"
        ).fetchone()
        self._note(sequence=sequence, instant=instant, last_id=last_id)
        self._look_at_clock(instant)
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        names = [table.name.lower() for table in Table if table.name.lower() in tables]
        self._note(
            records={name: _one(connection, f"SELECT count(*) FROM {name}") for name in names},  # noqa: S608
            history=_history(connection),
        )
        if self._report.format != newest_format():
            what = f"it has format {self._report.format}; this version makes it {newest_format()} at start"
            remedy = "back it up before: an older coordd can't read it afterwards"
            self._find(Gravity.NOTE, "format", what, remedy)
            return
        for question in CHECKS:
            if not (question.is_of_idle and self._report.owner):
                self._ask(connection, question)

    def _look_at_clock(self, instant: int) -> None:
        if instant > self._now + MINUTE:
            at = datetime.fromtimestamp(instant // SECOND, UTC).isoformat()
            what = f"its last batch is of {at}, which is yet to come: this clock is behind, or one was ahead"
            remedy = "set the clock right before the daemon starts: its time never goes back"
            self._find(Gravity.ODD, "clock", what, remedy)

    def _ask(self, connection: sqlite3.Connection, question: Check) -> None:
        rows = [str(name) for (name,) in connection.execute(question.query, {"now": self._now})]
        if rows:
            more = ", ..." if len(rows) > _EXAMPLES_MAX else ""
            what = question.what.format(count=len(rows), examples=", ".join(rows[:_EXAMPLES_MAX]) + more)
            self._find(question.gravity, question.name, what, question.remedy)


def _history(connection: sqlite3.Connection) -> History:
    query = "SELECT count(*), coalesce(min(at), 0), coalesce(max(at), 0) FROM engagements"
    count, first, last = connection.execute(query).fetchone()
    return History(count=count, first=first, last=last)


def _one(connection: sqlite3.Connection, query: str) -> int:
    value: int = connection.execute(query).fetchone()[0]
    return value


def _reading_remedy(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "ask as the user that the daemon runs as"
    if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
        return "name the file that [store] path names; if this is it, " + RESTORE
    return RESTORE


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
