"""All features on at once, judged by brute force: what eight rules each keep alone, they keep together."""

import pytest
from everything_monkey import EverythingMonkey, run
from hypothesis import settings

_MONKEYS = 40 if settings().max_examples < 1_000 else 2_000
_STEPS = 400


@pytest.mark.parametrize("seed", range(_MONKEYS))
def test_everything_at_once(seed: int) -> None:
    """Odd seeds restart now and then. In the end everybody is served, and nothing is left of it all."""
    run(seed, _STEPS)


def test_monkeys_do_what_they_are_for() -> None:
    monkeys: list[EverythingMonkey] = [run(seed, _STEPS) for seed in range(100, 108)]
    assert sum(monkey.grants for monkey in monkeys) > 200
    assert all(sum(getattr(monkey, what) for monkey in monkeys) for what in ("probes", "shed", "taken"))


@pytest.mark.parametrize(("seed", "steps"), [(80_056, 400), (50_248, 500), (90_076, 400)])
def test_seeds_that_found_something_find_nothing(seed: int, steps: int) -> None:
    run(seed, steps)
