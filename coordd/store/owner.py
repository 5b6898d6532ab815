"""Who owns a data file: one daemon at a time, by an advisory lock on a file beside it.

Owns: `<data file>.owner`, which holds the owner's process id for people to read. It is never deleted: a third
process could then lock a new one while a second has the old one open.
Must not know: SQLite. It has locks of its own on the data file, and loses them when anybody else in the
process closes a descriptor of that file; hence a file of ours.
"""

import fcntl
import os
from pathlib import Path

from coordd.store.protocol import Unusable

_PID_BYTES_MAX = 20


class Owner:
    """A held lock. The kernel gives it up when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the data file at `path`. Raises: Unusable if it is in use; OSError if it is out of reach."""
        self._descriptor = os.open(
            path.with_name(path.name + ".owner"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(self._descriptor, _PID_BYTES_MAX).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            raise Unusable(f"{path}: is in use by process {pid or 'unknown'}") from error
        self._write(f"{os.getpid()}\n")

    def release(self) -> None:
        """Let another daemon own the file."""
        self._write("")
        os.close(self._descriptor)

    def _write(self, text: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode("ascii"), 0)
