"""Equal inputs give equal outputs: on a fresh machine, in another process, after a restart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from monkey import Monkey, run

_MONKEYS = 20 if settings().max_examples < 1_000 else 2_000
_STEPS = 250


@pytest.mark.parametrize("seed", range(_MONKEYS))
def test_replay_equals_live(seed: int) -> None:
    harness = run(seed, _STEPS).harness
    assert harness.replay().digest() == harness.machine.digest()


@pytest.mark.parametrize("seed", range(1_000_000, 1_000_000 + _MONKEYS))
def test_recovered_machine_goes_on_as_the_old_one_would(seed: int) -> None:
    """Except for its graces: the model, which is told of those only, goes on across the restarts."""
    monkey = Monkey(seed)
    for _ in range(4):
        for _ in range(_STEPS // 4):
            monkey.step()
        monkey.harness.restart(monkey.random.choice([0, 0, 3, 60]) * 1_000_000_000)


@pytest.mark.parametrize("seed", range(3))
def test_same_seed_gives_the_same_in_other_processes_under_any_hash_seed(seed: int) -> None:
    script = Path(__file__).with_name("monkey.py")
    printed = {
        subprocess.run(
            [sys.executable, str(script), str(seed), "200"],
            env={**os.environ, "PYTHONPATH": str(script.parents[2]), "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(printed) == 1
    assert run(seed, 200).harness.machine.digest().hex() in printed.pop()
