"""`coordctl doctor`: what it prints, and its exit codes."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordd.cli.coordctl import coordctl
from coordd.store.sqlite import SqliteStore


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A new data file."""
    path = tmp_path / "coordd.db"
    store = SqliteStore(path)
    await store.open(0)
    await store.close()
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(coordctl, [str(arg) for arg in args], prog_name="coordctl")


def test_a_sound_file_is_said_to_be_sound(file: Path) -> None:
    result = run("doctor", file)
    assert result.exit_code == 0
    first, *facts = result.stdout.splitlines()
    assert first == f"{file}: sound"
    assert [fact.split()[0] for fact in facts] == ["owner", "size", "format", "last", "records"]


def test_an_odd_file_ends_with_1_and_a_broken_one_with_4(file: Path) -> None:
    file.chmod(0o644)
    odd = run("doctor", file)
    assert odd.exit_code == 1
    assert "odd      mode: other users may read or change it: its mode is 644\n" in odd.stdout
    assert f"         -> chmod 600 {file}*\n" in odd.stdout
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE locks")
    broken = run("doctor", file)
    assert broken.exit_code == 4
    assert broken.stdout.startswith(f"{file}: broken: do not start a daemon on it\n")


def test_json_is_one_value_with_the_verdict_first(file: Path) -> None:
    assert json.loads(run("doctor", "--json", file).stdout)["verdict"] == "sound"
    result = run("--json", "doctor", file.parent / "none.db")
    assert result.exit_code == 4
    told = json.loads(result.stdout)
    assert (told["verdict"], told["findings"][0]["check"]) == ("broken", "file")


def test_other_commands_do_not_load_what_only_files_need() -> None:
    code = (
        "import sys, coordd.cli.coordctl; assert not {'coordd.store', 'coordd.doctor'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
