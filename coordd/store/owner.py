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
        self._descriptor = os.open(_beside(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _pid(self._descriptor)
            os.close(self._descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            raise Unusable(f"{path}: is in use by process {pid}") from error
        self._write(f"{os.getpid()}\n")

    def release(self) -> None:
        """Let another daemon own the file."""
        self._write("")
        os.close(self._descriptor)

    def _write(self, text: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode("ascii"), 0)


def owner_of(path: Path) -> str:
    """Return the process id, or "unknown", of the daemon that owns `path`; empty if none does.

    Nothing is written. Raises: OSError if it can't be told.
    """
    try:
        descriptor = os.open(_beside(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        # Held for an instant only; a daemon that starts within it is told that the file is in use.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor)
    finally:
        os.close(descriptor)
    return ""


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def _pid(descriptor: int) -> str:
    return os.pread(descriptor, _PID_BYTES_MAX, 0).decode("ascii", "replace").strip() or "unknown"
