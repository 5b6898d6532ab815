"""Whether the files that are written are still the ones that the next start will find.

Why: whoever moves, deletes or restores a data file under a running daemon takes nothing from it. It would go
on writing to a file without a name, with every commit a success, and all of that would be gone at its end.
Must not know: what is in the files.
"""

import os
from collections.abc import Iterable
from pathlib import Path


class Displaced(OSError):
    """A file is not in its place any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was moved, deleted or replaced while it was in use")


class Presence:
    """The files at `paths` as they are now. Two microseconds a file and check."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._identities = {path: _identity(path) for path in paths}

    def check(self) -> None:
        """Raise Displaced if one of them is not there any more."""
        for path, identity in self._identities.items():
            try:
                is_there = _identity(path) == identity
            except FileNotFoundError:
                is_there = False
            if not is_there:
                raise Displaced(path)


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116  -- at each commit, and Path.stat takes twice as long
    return status.st_dev, status.st_ino
