"""The README's own commands and code, run as written against a real daemon."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BIN = ROOT / ".venv" / "bin"
DEFAULT_ADDRESS = "127.0.0.1:7651"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def session() -> list[tuple[str, str]]:
    """Return each command of the README's session with the output it shows."""
    [text] = blocks("console")
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def masked(output: str) -> str:
    """Return `output` with what differs from run to run made equal: instants, lengths of time, ids."""
    output = re.sub(r'"[0-9T:.-]{19,}Z"', '"INSTANT"', output)
    output = re.sub(r'"[0-9.]+s"', '"LENGTH"', output)
    return re.sub(r'"[0-9]{10,}"', '"ID"', output).strip()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    command = [BIN / "coordd", "serve", "--config", ROOT / "examples" / "glitchbot.toml"]
    environment = {"COORDD_ADDRESS": "127.0.0.1:0", "COORDD_DATA_PATH": str(tmp_path / "coordd.db")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        serving = re.match(r"coordd serving on (\S+)", daemon.stdout.readline())
        assert serving is not None
        yield serving[1]
        daemon.terminate()
        assert daemon.wait(10) == 0


def test_the_grpcurl_session_is_what_a_daemon_really_answers(address: str) -> None:
    commands = session()
    assert len(commands) >= 5
    for command, shown in commands:
        arguments = shlex.split(command.replace(DEFAULT_ADDRESS, address))
        ran = subprocess.run(
            [BIN / arguments[0], *arguments[1:]], capture_output=True, text=True, timeout=30, check=False
        )
        assert masked(ran.stdout + ran.stderr) == masked(shown), command


def test_the_client_example_runs_as_written(address: str, tmp_path: Path) -> None:
    [example] = blocks("python")
    script = tmp_path / "example.py"
    script.write_text(example.replace(DEFAULT_ADDRESS, address))

    def run() -> str:
        ran = subprocess.run([BIN / "python", script], capture_output=True, text=True, timeout=30, check=True)
        assert ran.stderr == ""
        return ran.stdout

    assert run() == ""
    # Done once; the same again is refused, and the example says so.
    assert "RECENTLY_ENGAGED" in run()


def test_every_file_the_readme_points_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
