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
    assert not any(line != line.rstrip() for line in done.stdout.splitlines())
    assert (" *" in done.stdout) == (example == "glitchbot")


def test_check_config_shows_every_setting_and_what_differs_from_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("""
        store = { path = "d.db", history_retention = "30d" }
        kinds = { quote = { ttl = "5m", bypass_quality = 0 }, like.enabled = false, follow = {} }
        pools = { api_tweets.capacity = 7, content_pipeline.enabled = false }
        types.gpu = { pool = "api_tweets" }
        limits.post = { windows = { "15m" = 50, "1h" = 200 }, claim_window = "5s" }
        aging.high = "3m"
    """)
    done = run("check-config", file, COORDD_LOG_LEVEL="debug")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == Path(__file__).with_name("check_config.txt").read_text("utf-8")


def test_check_config_shows_every_namespace_and_what_is_wrong_in_its_file(tmp_path: Path) -> None:
    main, blue = tmp_path / "c.toml", tmp_path / "blue.toml"
    main.write_text('namespaces.blue.file = "blue.toml"')
    blue.write_text('sessions.ttl = "1m"')
    done = run("check-config", main)
    assert (done.returncode, done.stderr) == (0, "")
    _, of_blue = done.stdout.split("namespace blue, blue.toml:\n")
    assert "  ttl  1m *" in of_blue.splitlines()
    assert "  path               var/blue.db *" in of_blue.splitlines()
    assert "[server]" not in of_blue
    blue.write_text("sessions.ttl = 1")
    done = run("check-config", main)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{blue}: sessions.ttl: a length of time needs a unit")


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


# ---------------------------------------------------------------------- without the daemon's dependencies


@pytest.mark.parametrize(
    ("command", "arguments", "missing"),
    [
        ("coordctl", ["status"], "click"),
        ("coordctl", ["status"], "rich"),
        ("coordd", ["--version"], "click"),
        ("coordd", ["check-config", "x.toml"], "pydantic"),
        ("coordd", ["serve"], "aiosqlite"),
    ],
)
def test_a_base_install_says_what_is_missing(command: str, arguments: list[str], missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from coordd.cli import entry; entry.{command}()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{command} needs the daemon's dependencies: pip install 'coordd[daemon]'\n"


def test_a_module_of_ours_that_is_missing_is_a_bug_and_looks_like_one() -> None:
    script = "import sys; sys.modules['coordd.config'] = None; from coordd.cli import entry; entry.coordd()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError: import of coordd.config halted" in done.stderr
