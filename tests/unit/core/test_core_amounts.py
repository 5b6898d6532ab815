from random import Random

from coordd.core.amounts import Amounts, Rank


def rank(order_ns: int, id: int = 0) -> Rank:
    return (order_ns, id, 1, "w")


def test_sums_are_those_of_a_list() -> None:
    random, amounts, known = Random(7), Amounts(), dict[Rank, int]()
    for id_ in range(300):
        new = rank(random.randrange(40), id_)
        amounts.add(new, known.setdefault(new, random.randint(1, 5)))
        if random.random() < 0.5:
            gone = random.choice(list(known))
            amounts.remove(gone)
            del known[gone]
        asked, size_max = rank(random.randrange(40), id_), random.randint(0, 6)
        assert amounts.before(asked) == sum(units for each, units in known.items() if each < asked)
        assert amounts.before(asked, size_max) == sum(
            units for each, units in known.items() if each < asked and units <= size_max
        )
        assert amounts.is_before(asked) == any(each < asked for each in known)
        assert list(amounts) == list(known)
        assert amounts.get(new) == known.get(new, 0)


def test_one_that_is_not_here_may_go() -> None:
    amounts = Amounts()
    amounts.remove(rank(1))
    assert len(amounts) == 0
