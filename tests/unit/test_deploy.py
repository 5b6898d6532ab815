"""The files in deploy/: what can be checked of them without a service manager or a container engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordd.config import Settings
from coordd.core.limits import SECOND
from coordd.server import EXIT_MISCONFIGURED

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "coordd.service"
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def setting(name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


@analyze
def test_the_unit_is_right_in_itself(tmp_path: Path) -> None:
    """With a command that is there: the unit's own is where a deployment puts it."""
    unit = tmp_path / "coordd.service"
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/coordd/bin/coordd", f"{sys.prefix}/bin/coordd"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@analyze
def test_the_unit_exposes_little() -> None:
    """Of 10, in systemd's own reckoning: below 1.5, most of which is the network."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze can't look at a file")
    assert done.returncode == 0, done.stdout


def test_the_unit_fits_the_daemon() -> None:
    settings = Settings()
    assert int(setting("TimeoutStopSec")) > settings.server.drain_timeout_ns / SECOND
    assert setting("RestartPreventExitStatus") == str(EXIT_MISCONFIGURED)
    assert setting("Type") == "notify"
    assert setting("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_the_container_runs_as_nobody_special_and_installs_only_what_is_pinned() -> None:
    text = CONTAINERFILE.read_text("utf-8").replace("\\\n", " ")
    runs = text.rpartition("FROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", runs, re.MULTILINE)
    assert "HEALTHCHECK" in runs
    assert "pip install" not in runs
    installs = [line for line in re.split(r"&&|\n", text) if "pip install" in line]
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    for name in re.findall(r"requirements/[a-z]+\.txt", text):
        pins = (ROOT / name).read_text("utf-8").splitlines()
        assert all("--hash=" in line or "==" in line for line in pins)


def test_what_the_container_copies_is_there_and_let_in() -> None:
    ignored = CONTAINERFILE.with_suffix(".dockerignore").read_text("utf-8")
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE.read_text("utf-8"), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert any(name.startswith(line[1:]) for line in ignored.splitlines() if line.startswith("!"))
