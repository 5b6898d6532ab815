"""`coordd simulate` by the real command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordd.cli.simulating import interruptible
from coordd.core.limits import SECOND
from coordd.core.rules import LimitRule, Rules
from coordd.planning.demands import Demand, PermitClaim
from coordd.planning.run import Plan, Simulation

ROOT = Path(__file__).parents[3]
COORDD = Path(sys.executable).with_name("coordd")
CONFIG = """
[limits.post]
windows = { "1m" = 3, "5m" = 9 }
"""
TRACE = """\
time,worker,what,priority
0,*,lock:reply:t1 > permit:post,high
1,bot,permit:post:2,
2,,permit:post,low
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "t.csv").write_text(TRACE)
    return tmp_path


def simulate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [COORDD, "simulate", "--config", "c.toml", "--trace", "t.csv", *arguments]
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def told(folder: Path, *arguments: str) -> str:
    """What a refused command says."""
    done = simulate(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_tables_and_plot(folder: Path) -> None:
    done = simulate(folder, "--workers", "2", "--wait", "5m")
    assert done.returncode == 0
    head = done.stdout.splitlines()
    assert head[0].startswith("3 demands, 3 workers, ")
    assert head[0].endswith(": 4 attempts, 3 granted, 1 refused")
    for heading in ("class   attempts", "limit or pool  window", "Jain index", "refused", "how many waited"):
        assert heading in done.stdout
    assert "RECENTLY_ENGAGED  lock:reply" in done.stdout
    assert "4 attempts simulated in" in done.stderr


def test_json_is_one_object_with_stable_keys_and_the_same_each_time(folder: Path) -> None:
    first, second = (simulate(folder, "--workers", "2", "--json") for _ in range(2))
    assert first.returncode == 0
    assert first.stdout == second.stdout
    figures = json.loads(first.stdout)
    assert list(figures) == [
        "totals",
        "waits",
        "resources",
        "refusals",
        "jain",
        "workers",
        "waiting",
        "series",
        "as_configured",
    ]
    assert figures["as_configured"] is None
    assert figures["totals"]["attempts"] == 4


@pytest.mark.parametrize(
    "change", [("--scale", "post=2"), ("--set", 'limits.post.windows = { "1m" = 6, "5m" = 18 }')]
)
def test_what_if_shows_both(folder: Path, change: tuple[str, str]) -> None:
    figures = json.loads(simulate(folder, *change, "--json").stdout)
    limits = [
        [window["limit"] for window in each["resources"][0]["windows"]]
        for each in (figures["as_configured"], figures)
    ]
    assert limits == [[3, 9], [6, 18]]
    shown = simulate(folder, *change).stdout
    assert "as configured  high" in shown
    assert "changed        high" in shown


def test_one_window_may_be_set_by_itself(folder: Path) -> None:
    figures = json.loads(simulate(folder, "--set", "limits.post.windows.5m=12", "--json").stdout)
    assert [window["limit"] for window in figures["resources"][0]["windows"]] == [3, 12]


def test_a_picture(folder: Path) -> None:
    assert simulate(folder, "--png", "run.png", "--json").returncode == 0
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_trace_out_of_order_is_put_in_order_and_told(folder: Path) -> None:
    (folder / "t.csv").write_text("time,what\n5,permit:post\n1,permit:post\n")
    done = simulate(folder)
    assert done.returncode == 0
    assert "note: 1 line of the trace came too late; put in order\n" in done.stderr


def test_wrong_input_is_told_in_a_line_each(folder: Path) -> None:
    (folder / "t.csv").write_text("time,what\n5,permit:past\nnoon,permit:post\n")
    first, second = told(folder).splitlines()
    assert first == "t.csv:2: the endpoint 'past' is not configured; there are: post"
    assert second.startswith("t.csv:3: time 'noon'")
    (folder / "c.toml").write_text("colour = 1\n")
    assert told(folder).startswith("c.toml: colour: unknown key")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--trace", "none.csv"), "none.csv: can't be read: No such file or directory\n"),
        (("--config", "none.toml"), "none.toml: can't be read: No such file or directory\n"),
        (("--scale", "past=2"), "--scale: there is no endpoint and no pool 'past'; there are: post, "),
        (("--scale", "post=0.3"), "t.csv:3: 2 permits are more than post ever allows at once"),
        (("--set", "limits.post.pace=even"), "limits.post.pace=even: is not TOML"),
        (("--set", "limits.post.windows.1m=0"), "limits.post.windows.1m=0: "),
        (("--set", "limits"), "limits: is no KEY=VALUE"),
        (("--png", "none/run.png"), "--png: none/run.png: there is no directory none"),
    ],
)
def test_what_can_not_be_done_is_told_in_one_line(
    folder: Path, arguments: tuple[str, str], line: str
) -> None:
    said = told(folder, *arguments)
    assert said.startswith(line)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--workers", "0"), "'0' is not a whole number from 1 to 10000"),
        (("--at-once", "0"), "'0' is not a whole number"),
        (("--scale", "post"), "'post' is not NAME=FACTOR"),
        (("--scale", "post=-1"), "is not NAME=FACTOR"),
        (("--wait", "5"), "'5' is not a length of time"),
        (("--service", "13h"), "13h is longer than 12h"),
    ],
)
def test_a_wrong_command_line(folder: Path, arguments: tuple[str, str], part: str) -> None:
    assert part in told(folder, *arguments)


def test_ctrl_c_ends_the_run_and_not_the_program() -> None:
    rules = Rules(kinds={}, types={}, pools={}, limits={"post": LimitRule(windows={SECOND: 9})})
    steps = ((PermitClaim("post"),),)
    demands = [Demand(line=n, at_ns=(n + 86_400) * SECOND, worker="w", steps=steps) for n in range(9_000)]
    simulation = Simulation(rules, demands, Plan(workers=1, wait_ns=SECOND, service_ns=1))
    before = signal.getsignal(signal.SIGINT)
    with interruptible(simulation):
        log = simulation.run(lambda _ended: signal.raise_signal(signal.SIGINT))
        # From now on it is what it was: a second one ends the program.
        assert signal.getsignal(signal.SIGINT) is before
    assert not log.is_complete
    assert signal.getsignal(signal.SIGINT) is before
