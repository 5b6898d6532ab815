"""The real daemon as a process of its own, on a real file, for as long as a measurement lasts."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

_EXECUTABLE: Final = Path(sys.executable).with_name("coordd")
_STOP_S_MAX: Final = 30.0
_CONFIG: Final = """
[server]
address = "127.0.0.1:0"
drain_timeout = "1s"
[log]
level = "warning"
[store]
path = "{path}"
[limits.ample]
windows = {{ "15m" = 1000000000, "1h" = 1000000000, "1d" = 1000000000 }}
"""


class Serving(Struct, kw_only=True, frozen=True):
    """A daemon that serves. `start_s`: from its start as a process until it said so."""

    address: str
    pid: int
    start_s: float


@contextmanager
def serving(path: Path, more: str = "") -> Iterator[Serving]:
    """Start the daemon on the data file `path`; stop it at the end. Raises: RuntimeError if it can't.

    Args: more: tables of the configuration.
    """
    config = path.with_suffix(".toml")
    config.write_text(_CONFIG.format(path=path) + more, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COORDD_")}
    began = time.monotonic()
    process = subprocess.Popen(
        [_EXECUTABLE, "serve", "--config", config], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None  # noqa: S101  -- asked for above
        line = process.stdout.readline()
        start_s = time.monotonic() - began
        if not line.startswith("coordd serving on "):
            raise RuntimeError(f"the daemon did not start: {line!r}")
        yield Serving(address=line.split()[3], pid=process.pid, start_s=start_s)
    finally:
        process.terminate()
        process.communicate(timeout=_STOP_S_MAX)
