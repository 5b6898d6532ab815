"""A new file that is in its place whole, or not at all; what is there already is left alone."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["placed"]


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`, of mode 0600, to be written; put it there, durable, at the end.

    Raises: OSError; FileExistsError, before anything is done, if something is there.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{path}: is there already; it is left as it is")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        yield Path(name)
        os.fsync(descriptor)
        # Not a rename: that would replace what somebody else has put there meanwhile.
        os.link(name, path)
        _sync(path.parent)
    finally:
        os.close(descriptor)
        os.unlink(name)  # noqa: PTH108  -- as it was made


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
