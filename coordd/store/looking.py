"""A data file looked at by somebody who does not own it, whether a daemon does or not.

Owns: how it is opened so that nothing is written to it or beside it. Rules: what is committed but only in the
log is seen, too; a file that somebody began to serve meanwhile is told, not shown half-old and half-new.
Must not know: what is in it.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from coordd.store.owner import owner_of


class ChangedMeanwhile(Exception):
    """A daemon has begun to serve the file while it was looked at; what was seen may contradict itself."""


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the data file at `path` to look at it.

    Raises: sqlite3.Error, OSError if that can't be done; ChangedMeanwhile at the end.
    """
    path = path.resolve()
    if owner_of(path):
        # As any reader beside a daemon: the index of the log is there, and only its locks are touched.
        with _opened(path, "mode=ro") as connection:
            yield connection
        return
    before = _state(path)
    with ExitStack() as stack:
        yield stack.enter_context(_unowned(path, stack))
    if _state(path) != before:
        raise ChangedMeanwhile


def _unowned(path: Path, stack: ExitStack) -> "closing[sqlite3.Connection]":
    """Open a file that no daemon has open, past its log if there is one."""
    if not _size(log_of(path)):
        return _opened(path, "immutable=1")
    if _beside(path, "-shm").exists():
        # Left by a daemon that was killed. SQLite makes an index of its own in memory instead.
        return _opened(path, "mode=ro&readonly_shm=1")
    # SQLite can't read the log without making an index of it, beside it; so let it be beside a copy.
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coordd-")))
    copy = directory / path.name
    shutil.copyfile(path, copy)
    shutil.copyfile(log_of(path), log_of(copy))
    return _opened(copy, "mode=ro")


def _opened(path: Path, mode: str) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, isolation_level=None))


def log_of(path: Path) -> Path:
    """Return where SQLite keeps what is committed and not yet folded into the file."""
    return _beside(path, "-wal")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _state(path: Path) -> list[tuple[int, int]]:
    stats = [file.stat() for file in (path, log_of(path)) if file.exists()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]
