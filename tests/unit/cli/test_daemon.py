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
