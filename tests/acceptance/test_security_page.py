"""SECURITY.md's own commands, configuration and code, run as written against a real daemon."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_readme import masked

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
BIN = ROOT / ".venv" / "bin"
PATH = f"{BIN}{os.pathsep}{os.environ['PATH']}"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the page makes certificates with openssl"
)


def block(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


def shell(folder: Path, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COORDD_")}
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=clean | {"PATH": PATH} | more,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the page's first commands have been run, and its configuration is."""
    made = shell(tmp_path, "set -e\n" + block("bash"))
    assert made.returncode == 0, made.stderr
    config = block("toml")
    for name in ("bots", "chief"):
        shown = re.search(rf'\[identities\.{name}\]\ntoken_sha256 = \["([0-9a-f]{{64}})"\]', made.stderr)
        assert shown is not None, made.stderr
        config = config.replace(f"HASH-OF-{name.upper()}", shown[1])
    (tmp_path / "coordd.toml").write_text(config)
    return tmp_path


@pytest.fixture
def port(folder: Path) -> Iterator[str]:
    """The port of a daemon with the page's configuration."""
    command = [BIN / "coordd", "serve", "--config", "coordd.toml"]
    environment = os.environ | {"COORDD_ADDRESS": "0.0.0.0:0"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        serving = re.match(r"coordd serving on 0\.0\.0\.0:(\d+)", daemon.stdout.readline())
        assert serving is not None
        yield serving[1]
        daemon.terminate()
        assert daemon.wait(10) == 0


def test_the_page_s_commands_are_answered_as_it_shows(folder: Path, port: str) -> None:
    parts = re.split(r"^\$ ", block("console"), flags=re.MULTILINE)[1:]
    assert len(parts) == 4
    for command, _, shown in (part.partition("\n") for part in parts):
        ran = shell(folder, command.replace("7651", port))
        assert masked(ran.stdout + ran.stderr) == masked(shown), command


def test_the_page_s_code_runs(folder: Path, port: str) -> None:
    (folder / "example.py").write_text(block("python").replace("7651", port))
    ran = shell(folder, "python example.py")
    assert (ran.stdout, ran.stderr) == ("bot-2\n", "")


def test_secrets_are_for_their_owner_s_eyes(folder: Path) -> None:
    for name in ("ca.key", "server.key", "bots.token", "chief.token"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    token = (folder / "bots.token").read_text().strip()
    assert token not in (folder / "coordd.toml").read_text()


def test_without_tls_the_page_s_configuration_is_refused(folder: Path) -> None:
    config = (folder / "coordd.toml").read_text()
    without = re.sub(r"\[tls\]\n(?:.+\n)+", "", config)
    (folder / "plain.toml").write_text(without)
    ran = shell(folder, "coordd serve --config plain.toml")
    assert ran.returncode == 2
    assert "server.address: is reached from other machines, and there is no [tls] certificate" in ran.stderr
