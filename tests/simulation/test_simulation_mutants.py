"""Planted bugs: that their table fits the code, and that one is found. `make sim-mutants` hunts them all."""

from pathlib import Path

import pytest

from simulation.mutants import MUTANTS, ROOT, Mutant, NotThere, hunt


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_replaced_is_there_once(mutant: Mutant) -> None:
    text = (ROOT / "coordd" / mutant.path).read_text("utf-8")
    assert text.count(mutant.before) == 1
    compile(text.replace(mutant.before, mutant.after), mutant.path, "exec")


def test_a_table_that_does_not_fit_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        Mutant("stale", "core/locks.py", "no such text", "").plant(tmp_path)


@pytest.mark.timeout(180)
def test_a_planted_bug_is_found() -> None:
    (mutant,) = (each for each in MUTANTS if each.name == "no grace after a restart")
    catch = hunt(mutant, 20)
    assert catch.seed is not None
