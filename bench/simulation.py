"""`coordd simulate` on the real tweets, as it is: from the start of the process to its end."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.figures import Figure, figure

_ROOT: Final = Path(__file__).parents[1]
_COORDD: Final = Path(sys.executable).with_name("coordd")
_SECONDS_MAX: Final = 5


def simulate_tweets(fleets: tuple[int, ...], runs: int) -> dict[str, Figure]:
    """Return how long all tweets take, by the size of the fleet that wants to answer each."""
    return {
        f"simulate_tweets_with_{workers}_workers_s": figure(
            [_took_s(workers) for _ in range(runs)], "s", at_most=_SECONDS_MAX
        )
        for workers in fleets
    }


def _took_s(workers: int) -> float:
    command = [str(_COORDD), "simulate", "--json", "--workers", str(workers)]
    files = ["--config", "examples/glitchbot.toml", "--trace", "examples/support_tweets.csv"]
    began = time.monotonic()
    ran = subprocess.run([*command, *files], cwd=_ROOT, capture_output=True, check=True)
    took_s = time.monotonic() - began
    assert json.loads(ran.stdout)["totals"]["workers"] == workers  # noqa: S101 - else it measured something else
    return took_s
