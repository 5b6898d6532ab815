"""Fair shares: the order among workers against brute force, and what it adds up to over whole windows."""

import pytest
from sharing_monkey import SharingMonkey

_MONKEYS, _STEPS = 60, 150


@pytest.mark.parametrize("seed", range(_MONKEYS))
def test_whoever_has_the_smallest_part_goes_first(seed: int) -> None:
    monkey = SharingMonkey(seed)
    for _ in range(_STEPS):
        monkey.step()
