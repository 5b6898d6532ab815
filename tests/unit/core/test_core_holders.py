"""One holder for each key, but for what was exclusive by more when it was taken."""

from coordd.core.holders import Holders

KEY = "key"


def test_a_key_is_free_when_its_holder_goes() -> None:
    holders: Holders[list[str]] = Holders()
    held = ["a"]
    holders.add(KEY, held)
    assert holders.get(KEY) is held
    holders.remove(KEY, held)
    assert holders.get(KEY) is None


def test_a_key_is_free_when_the_last_of_several_has_gone() -> None:
    holders: Holders[list[str]] = Holders()
    first, second, third = ["a"], ["b"], ["c"]
    for holder in (first, second, third):
        holders.add(KEY, holder)
    assert len(holders) == 3
    holders.remove(KEY, second)
    assert holders.get(KEY) is first
    holders.remove(KEY, first)
    assert holders.get(KEY) is third
    holders.remove(KEY, third)
    assert (holders.get(KEY), len(holders)) == (None, 0)


def test_one_that_holds_nothing_takes_nothing_away() -> None:
    holders: Holders[list[str]] = Holders()
    held = ["a"]
    holders.add(KEY, held)
    holders.remove(KEY, ["a"])
    holders.remove("other", held)
    assert holders.get(KEY) is held
