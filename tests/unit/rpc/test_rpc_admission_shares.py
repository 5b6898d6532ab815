"""Who fills the daemon is refused, and not who comes after: an even part for each namespace."""

from coordd.rpc.admission import Admission, Place
from coordd.rpc.admission_shares import NOBODY, Shares

LIMIT = 12


def admission(*names: str) -> Admission:
    return Admission(LIMIT, Shares(names))


def admitted(admission: Admission, namespace: str, count: int) -> list[Place]:
    """Ask so often; return the places that were given."""
    places = [admission.admit(namespace=namespace) for _ in range(count)]
    return [place for place in places if place is not None]


def test_one_alone_may_have_all() -> None:
    assert len(admitted(admission("a", "b"), "a", 99)) == LIMIT


def test_one_that_comes_late_has_its_part_all_the_same() -> None:
    daemon = admission("a", "b", "c")
    assert len(admitted(daemon, "a", 99)) == LIMIT
    assert len(admitted(daemon, "b", 99)) == LIMIT // 2
    assert len(admitted(daemon, "c", 99)) == LIMIT // 3
    assert daemon.in_progress == LIMIT + LIMIT // 2 + LIMIT // 3


def test_who_has_more_than_its_part_gives_back_before_it_is_let_in_again() -> None:
    daemon = admission("a", "b")
    loud, quiet = admitted(daemon, "a", 99), admitted(daemon, "b", 2)
    for place in loud[:2]:
        place.leave()
        assert admitted(daemon, "a", 1) == []
    loud[2].leave()
    assert len(admitted(daemon, "a", 99)) == 1
    # Alone again, it may have all again.
    for place in quiet:
        place.leave()
    assert len(admitted(daemon, "a", 99)) == 2


def test_a_place_that_is_left_twice_counts_once() -> None:
    daemon = admission("a", "b")
    [place] = admitted(daemon, "a", 1)
    place.leave()
    place.leave()
    assert daemon.in_progress == 0
    assert len(admitted(daemon, "a", 99)) == LIMIT


def test_made_up_names_are_nobody_and_take_no_part() -> None:
    daemon = admission("a", "b")
    names = [daemon.shares.known(f"made-up-{number}") for number in range(50)]
    assert {*names} == {NOBODY}
    assert len(admitted(daemon, "a", 99)) == LIMIT
    assert [admitted(daemon, name, 1) for name in names] == [[]] * 50
    assert len(admitted(daemon, "b", 99)) == LIMIT // 2


def test_however_little_there_is_each_may_have_one() -> None:
    daemon = Admission(1, Shares(["a", "b", "c"]))
    assert [len(admitted(daemon, name, 9)) for name in ("a", "b", "c")] == [1, 1, 1]


def test_with_one_namespace_there_is_nothing_to_share() -> None:
    assert Shares().is_one
    assert Shares(["a"]).is_one
    assert not Shares(["a", "b"]).is_one
    daemon = admission("a")
    assert len(admitted(daemon, NOBODY, 99)) == LIMIT
    assert admitted(daemon, "a", 1) == []
