"""The real daemon as a process, and what must be true of it after whatever was thrown at it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import grpc
import psutil

from coordd.v1 import admin_pb2, admin_pb2_grpc

_CONFIG: Final = """
[server]
address = "127.0.0.1:0"
[store]
path = "{path}"
[log]
level = "info"
[kinds.reply]
min_interval = "1h"
bypass_quality = 0.9
on_conflict = "escalate"
[pools.small]
capacity = 3
[pools.burst]
windows = {{ "1h" = 4 }}
[types.slot]
pool = "small"
[types.burst]
pool = "burst"
[limits.post]
windows = {{ "15m" = 30, "1h" = 50 }}
allocation = "fair"
[limits.brief]
windows = {{ "1s" = 2 }}
pace = "even"
use_within = "100ms"
claim_window = "100ms"
"""
# Any call of a daemon that is well is answered in a fraction of it.
DEADLINE_S: Final = 20.0


class Daemon:
    """`coordd serve` on a free port, with its log in a file."""

    def __init__(self, folder: Path) -> None:
        config = folder / "coordd.toml"
        config.write_text(_CONFIG.format(path=folder / "coordd.db"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COORDD_")}
        self._log = tempfile.TemporaryFile("w+", dir=folder)  # noqa: SIM115  -- closed by `stop`
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("coordd"), "serve", "--config", config],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("coordd serving on "), (line, self.log())
        self.address = line.split()[3]
        host, _, port = self.address.rpartition(":")
        self.place = (host, int(port))

    def log(self) -> str:
        """Return all that it has written to stderr."""
        self._log.seek(0)
        return self._log.read()

    def rss(self) -> int:
        """Return the bytes of memory that it occupies."""
        size: int = psutil.Process(self._process.pid).memory_info().rss
        return size

    def check(self) -> None:
        """Check that it serves a new client, and has had no trouble of its own."""
        assert self._process.poll() is None, self.log()
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            status = self._status(admin_pb2_grpc.AdminServiceStub(channel))
        assert not status.draining
        log = self.log()
        assert "internal error" not in log, log
        assert "Traceback" not in log, log
        assert "exception" not in log.lower(), log

    def _status(self, stub: admin_pb2_grpc.AdminServiceStub) -> admin_pb2.GetStatusResponse:
        """Ask as clients do: a call for which gRPC's own line was too long is CANCELLED, and tried again."""
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                return stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=DEADLINE_S, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED or time.monotonic() > until:
                    raise

    def stop(self) -> None:
        """Check that it stops as well as it ever did."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()
            self._process.wait()
            log = self.log()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._log.close()
        assert code == 0, log
        assert "Traceback" not in log, log
