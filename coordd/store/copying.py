"""A copy of a data file as of one instant, while a daemon goes on with it.

Owns: how it is taken: by SQLite itself, within one read transaction, a step at a time. Rules: whoever writes
the file is not held up; a copy never takes the space that commits need.
Must not know: where the copy is to go in the end, hence whether it is to be durable.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec import Struct

from coordd.store.protocol import CopyRefused

# 1 MiB: after each of them whoever waits for a copy can give it up.
_PAGES_PER_STEP: Final = 256
# Left on the file system besides the copy: while it is taken the log can't begin anew, hence grows with each
# batch, 16 MiB a second at the most; a copy that takes longer than this allows is of a file that large.
RESERVE_BYTES: Final = 256 << 20


class Marks(Struct, frozen=True):
    """The last batch in a copy."""

    sequence: int
    instant: int
    last_id: int


def copy(source: sqlite3.Connection, target: Path, go_on: Callable[[int, int], None]) -> Marks:
    """Copy all that `source` sees to the empty file `target`.

    Args:   go_on: told the pages that are copied and those there are, after each step; it may raise.
    Raises: CopyRefused; sqlite3.Error, OSError; whatever `go_on` does. `target` is then worth nothing.
    """
    source.execute("BEGIN")
    try:
        # The first question fixes the instant: all pages will be as of it, whatever is committed meanwhile.
        marks = Marks(*source.execute("SELECT sequence, instant, last_id FROM meta").fetchone())
        _check_space(source, target)
        with closing(sqlite3.connect(target, isolation_level=None)) as connection:
            # It is thrown away if anything goes wrong.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            source.backup(
                connection,
                pages=_PAGES_PER_STEP,
                progress=lambda _, left, pages: go_on(pages - left, pages),
            )
    finally:
        source.execute("ROLLBACK")
    _make_one_file(target)
    return marks


def _check_space(source: sqlite3.Connection, target: Path) -> None:
    (pages,), (page_bytes,) = (
        source.execute(f"PRAGMA {of}").fetchone() for of in ("page_count", "page_size")
    )
    needed, free = pages * page_bytes, shutil.disk_usage(target.parent).free
    if free < needed + RESERVE_BYTES:
        raise CopyRefused(
            "NO_SPACE",
            f"a copy takes {_mib(needed)} in {target.parent}, besides {_mib(RESERVE_BYTES)} that stay free;"
            f" there are {_mib(free)}",
        )


def _make_one_file(target: Path) -> None:
    """Let the copy not say that it has a log, as the file does, so that it can be read wherever it lies."""
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _mib(count: int) -> str:
    return f"{-(-count // (1 << 20)):,} MiB"
