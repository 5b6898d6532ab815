"""A copy of all the daemon keeps: asked of the daemon or taken of its file; checked before it counts."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from msgspec import Struct

from coordd.cli.failure import ExitCode
from coordd.cli.invocation import Invocation
from coordd.cli.placing import placed
from coordd.core.limits import SECOND
from coordd.doctor import Gravity, examine
from coordd.store.copying import Marks, copy
from coordd.store.looking import looking
from coordd.v1 import admin_pb2

__all__ = ["Backup", "take"]

# Told how many of how many are done.
Progress = Callable[[int, int], None]


class Backup(Struct, frozen=True, kw_only=True):
    """A copy that was taken and is sound. instant: ns; nothing that was decided later is in it."""

    path: str
    size: int
    sequence: int
    instant: int
    last_id: int


def take(invocation: Invocation, file: Path, data: Path | None) -> Backup:
    """Put a copy at `file`, where nothing is yet: of the data file `data`, or asked of the daemon.

    Raises: Failure; OSError, sqlite3.Error, CopyRefused, ChangedMeanwhile. Nothing is there then.
    """
    with placed(file) as target:
        with _shown() as progress:
            marks = _of_file(data, target, progress) if data else _of_daemon(invocation, target, progress)
        _check(invocation, target)
        size = target.stat().st_size
    return Backup(
        path=str(file), size=size, sequence=marks.sequence, instant=marks.instant, last_id=marks.last_id
    )


def _of_file(data: Path, target: Path, progress: Progress) -> Marks:
    with looking(data) as source:
        return copy(source, target, progress)


def _of_daemon(invocation: Invocation, target: Path, progress: Progress) -> Marks:
    daemon = invocation.daemon
    parts = daemon.stream(daemon.admin.Backup, admin_pb2.BackupRequest(), wait_ns=None)
    header = next(parts).header
    written = 0
    with target.open("wb") as file:
        for part in parts:
            written += file.write(part.chunk)
            progress(written, header.size)
    if written != header.size:
        line = f"{written} of {header.size} bytes came"
        raise invocation.failure(line, ExitCode.UNAVAILABLE)
    return Marks(header.sequence, header.at.ToNanoseconds(), header.last_id)


def _check(invocation: Invocation, target: Path) -> None:
    for found in examine(target, time.time_ns()).findings:
        if found.gravity is Gravity.BROKEN:
            line = f"the copy is not sound, and not kept: {found.what}; look at the original: coordctl doctor"
            raise invocation.failure(line, ExitCode.ERROR)
        if found.gravity is Gravity.ODD:
            invocation.note(f"{found.check}: {found.what}")


@contextmanager
def _shown() -> Iterator[Progress]:
    """Show how far it is, on a terminal."""
    with click.progressbar(length=1, label="copying", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield progress


def summary(backup: Backup) -> str:
    """Return what is said of a backup in one line."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(backup.instant // SECOND))
    return (
        f"{backup.path}: {backup.size:,} bytes, sound; as of {at}, batch {backup.sequence},"
        f" last id {backup.last_id}"
    )
