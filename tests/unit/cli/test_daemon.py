"""The exit codes of `coordd` and what it prints, by the real command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COORDD = Path(sys.executable).with_name("coordd")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COORDD, *arguments], capture_output=True, text=True, check=False, env=os.environ | environment
    )


def test_version() -> None:
    assert run("--version").stdout.startswith("coordd ")


@pytest.mark.parametrize("example", ["coordd", "glitchbot"])
def test_check_config_of_the_examples(example: str) -> None:
    done = run("check-config", ROOT / f"examples/{example}.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "pool         api_tweets: 50/1h\n" in done.stdout
    assert ("limit        post_tweet: 50/15m, 200/1h, 2400/1d, priority" in done.stdout) == (
        example == "glitchbot"
    )


@pytest.mark.parametrize("command", [["check-config"], ["serve", "--config"]])
def test_a_wrong_file(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text('log.level = "loud"\ncolour = 1\n')
    done = run(*command, file)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{file}: log.level: should be ")
    assert second.startswith(f"{file}: colour: unknown key")


def test_a_wrong_variable() -> None:
    done = run("serve", COORDD_ADDRESS="nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("COORDD_ADDRESS: 'nowhere' is not HOST:PORT")


def test_a_wrong_command_line() -> None:
    assert run("serve", "--nope").returncode == 2


def test_a_data_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database")
    done = run("serve", COORDD_ADDRESS="127.0.0.1:0", COORDD_DATA_PATH=str(tmp_path / "x.db"))
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{tmp_path / 'x.db'}: is not an SQLite database" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_daemon_on_a_file_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    environment = {"COORDD_ADDRESS": "127.0.0.1:0", "COORDD_DATA_PATH": str(tmp_path / "x.db")}
    with subprocess.Popen(
        [COORDD, "serve"], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("coordd serving on 127.0.0.1:")
        second = run("serve", **environment)
        assert second.returncode == 3
        assert f"is in use by process {first.pid}" in second.stderr
        first.terminate()
        first.stdout.read()
    assert first.returncode == 0
