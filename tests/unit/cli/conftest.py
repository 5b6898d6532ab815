"""A scripted daemon, and coordctl to call it: in this process or as one of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scripted_daemon import ScriptedDaemon

from coordd.cli.coordctl import coordctl

COORDCTL = Path(sys.executable).parent / "coordctl"


@pytest.fixture
def daemon() -> Iterator[ScriptedDaemon]:
    scripted = ScriptedDaemon()
    yield scripted
    scripted.stop()


@pytest.fixture
def run(daemon: ScriptedDaemon) -> Callable[..., Result]:
    """Run coordctl in this process against the scripted daemon."""

    def call(*args: str) -> Result:
        environment = {"COORDD_ADDRESS": daemon.address}
        return CliRunner().invoke(coordctl, list(args), env=environment, prog_name="coordctl")

    return call


@pytest.fixture
def start(daemon: ScriptedDaemon) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the real coordctl as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(*args: str, **options: Any) -> "subprocess.Popen[str]":
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        environment = {**os.environ, "COORDD_ADDRESS": daemon.address, **options.pop("env", {})}
        process = subprocess.Popen([COORDCTL, *args], text=True, env=environment, **options)
        started.append(process)
        return process

    # A shell has what it runs in the background ignore SIGINT, and that is inherited: coordctl must not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield call
    signal.signal(signal.SIGINT, before)
    for process in started:
        process.kill()
        process.communicate()
