"""A disk that fails on command: what `disk_fault.c` is told, and how it is put under a process."""

import errno
import mmap
import shutil
import struct
import subprocess
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final

import pytest

_SOURCE: Final = Path(__file__).with_suffix(".c")
# `struct fault`: path, call, nth, times, error, keep, dies; and told to us, seen, failed.
_ORDER: Final = struct.Struct("256s6i2i")
_TOLD: Final = struct.Struct("2i")
_TOLD_AT: Final = _ORDER.size - _TOLD.size
ALWAYS: Final = 2**31 - 1


class Call(IntEnum):
    """What SQLite asks of the system."""

    NONE = 0
    WRITE = 1
    SYNC = 2
    READ = 3


def compiled(folder: Path) -> Path:
    """Return the library, made in `folder`; skip the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler (cc) to inject faults under SQLite")
    library = folder / "disk_fault.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, _SOURCE, "-ldl"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return library


class Disk:
    """The disk of one process: sound until `fail` is called, and again after `mend`."""

    def __init__(self, folder: Path, library: Path) -> None:
        control = folder / "disk_fault"
        control.write_bytes(bytes(_ORDER.size))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _ORDER.size)
        self.environment = {"LD_PRELOAD": str(library), "DISK_FAULT": str(control)}

    def __enter__(self) -> "Disk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.close()

    def fail(
        self,
        call: Call,
        path: Path,
        *,
        nth: int = 1,
        times: int = ALWAYS,
        error: int = errno.EIO,
        keep: int = 0,
        dies: bool = False,
    ) -> None:
        """Fail `times` calls from the `nth` on that concern the file at `path`."""
        order = (str(path).encode(), Call.NONE, nth, min(times, ALWAYS - nth), error, keep, dies, 0, 0)
        _ORDER.pack_into(self._memory, 0, *order)
        # Last, since the process looks at any time, and at this first.
        struct.pack_into("i", self._memory, 256, call)

    def mend(self) -> None:
        """Fail nothing any more."""
        struct.pack_into("i", self._memory, 256, Call.NONE)

    @property
    def failed(self) -> int:
        """How many calls have failed since the last `fail`."""
        return _TOLD.unpack_from(self._memory, _TOLD_AT)[1]  # type: ignore[no-any-return]
