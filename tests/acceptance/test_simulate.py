"""`coordd simulate` on the real tweets, as the README shows it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
COORDD = Path(sys.executable).with_name("coordd")
TWEETS = ["simulate", "--config", "examples/glitchbot.toml", "--trace", "examples/support_tweets.csv"]


def coordd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COORDD, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("workers", [1, 6, 12])
def test_the_tweets_run_as_they_are(workers: int) -> None:
    done = coordd(*TWEETS, "--workers", str(workers), "--json")
    assert done.returncode == 0
    figures = json.loads(done.stdout)
    totals = figures["totals"]
    assert (totals["demands"], totals["attempts"]) == (2_778, 2_778 * workers)
    assert totals["granted"] + totals["refused"] == totals["attempts"]
    # The busiest hour has 699 tweets and the limits allow 200: not everybody is answered, none twice.
    assert 0 < totals["granted"] < 2_778
    [post] = figures["resources"]
    assert post["used"] == totals["granted"]
    assert all(window["peak"] <= window["limit"] for window in post["windows"])


def test_the_readme_shows_what_is_really_told() -> None:
    [block] = [block for block in re.findall(r"```text\n(.*?)```", README, re.DOTALL) if "simulate" in block]
    command, *shown = block.splitlines()
    done = coordd(*shlex.split(command.removeprefix("$ coordd ")))
    assert done.returncode == 0
    told = done.stdout.splitlines()
    assert [line for line in shown if line != "..." and line not in told] == []


def test_the_readme_s_own_trace_runs(tmp_path: Path) -> None:
    [trace] = re.findall(r"```csv\n(.*?)```", README, re.DOTALL)
    (tmp_path / "trace.csv").write_text(trace)
    done = coordd(*TWEETS[:3], "--trace", str(tmp_path / "trace.csv"), "--workers", "2", "--json")
    assert (done.returncode, json.loads(done.stdout)["totals"]["granted"]) == (0, 4)
