import pytest
from core_desk import T0, Desk, rules_of

from coordd.core.commands import RequestLock
from coordd.core.errors import NotFound
from coordd.core.ledger import Ledger
from coordd.core.limits import MINUTE, SECOND
from coordd.core.records import EndedRequest, Table


def test_ids_strictly_rise() -> None:
    ledger = Ledger(rules_of())
    ledger.start_ids(0, T0)
    ids = [ledger.next_id() for _ in range(100)]
    assert ids == sorted(set(ids))


def test_ids_begin_above_all_that_an_earlier_start_can_have_given_even_if_the_store_was_lost() -> None:
    ledger = Ledger(rules_of())
    ledger.start_ids(0, T0)
    last = [ledger.next_id() for _ in range(100_000)][-1]
    ledger.start_ids(0, T0 + SECOND)
    assert ledger.next_id() > last
    assert last < 1 << 53


def test_starts_within_one_second_give_no_id_twice_even_if_the_store_was_lost() -> None:
    ledger = Ledger(rules_of())
    given: list[int] = []
    for start in range(10):
        ledger.start_ids(0, T0 + start * SECOND // 10)
        given += [ledger.next_id() for _ in range(1000)]
    assert given == sorted(set(given))


def test_ids_begin_above_the_last_one_even_if_the_clock_was_set_back() -> None:
    ledger = Ledger(rules_of())
    ledger.start_ids(1 << 52, T0)
    assert ledger.next_id() == (1 << 52) + 1


@pytest.mark.parametrize("id", [0, -1, 6])
def test_id_that_was_never_given_is_not_found(id: int) -> None:
    ledger = Ledger(rules_of())
    ledger.start_ids(5, 0)
    ledger.ended(5, "permit")
    with pytest.raises(NotFound) as caught:
        ledger.ended(id, "permit")
    assert caught.value.reason == "UNKNOWN_ID"


def test_ended_request_is_remembered_for_exactly_its_time_and_forgotten_soon_after(desk: Desk) -> None:
    desk.release(desk.lock(request_id="r1"))
    again = RequestLock(item="a", kind="like", worker="w1", request_id="r1")
    desk.advance(10 * MINUTE - 1)
    assert desk.error(again) == "REQUEST_ENDED"
    desk.advance(1)
    desk.lock(request_id="r1")
    desk.advance(SECOND)
    desk.commit()
    assert desk.rows[Table.ENDED_REQUESTS] == {}


def test_oldest_ended_request_is_forgotten_where_there_are_too_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.core.ledger.ENDED_REQUESTS_MAX", 2)
    for number in range(3):
        desk.release(desk.lock(request_id=f"r{number}"))
    assert desk.error(RequestLock(item="a", kind="like", worker="w1", request_id="r1")) == "REQUEST_ENDED"
    desk.lock(request_id="r0")
    desk.commit()
    assert [key[1] for key in desk.rows[Table.ENDED_REQUESTS]] == ["r1", "r2"]


def test_forgetting_an_old_memory_leaves_what_has_taken_its_request_id_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger(rules_of())
    ledger.remember_ended(EndedRequest("w1", "r1", T0))
    live = object()
    ledger.requests[("w1", "r1")] = live
    monkeypatch.setattr("coordd.core.ledger.ENDED_REQUESTS_MAX", 1)
    ledger.remember_ended(EndedRequest("w1", "r2", T0))
    assert ledger.requests[("w1", "r1")] is live


def test_request_that_ended_again_is_remembered_from_its_second_end(desk: Desk) -> None:
    desk.release(desk.lock(request_id="r1"))
    desk.advance(10 * MINUTE)
    desk.release(desk.lock(request_id="r1"))
    desk.advance(9 * MINUTE)
    assert desk.error(RequestLock(item="a", kind="like", worker="w1", request_id="r1")) == "REQUEST_ENDED"
    desk.restart()
    assert desk.error(RequestLock(item="a", kind="like", worker="w1", request_id="r1")) == "REQUEST_ENDED"


def test_without_a_request_id_nothing_is_remembered(desk: Desk) -> None:
    desk.release(desk.lock())
    desk.commit()
    assert desk.rows[Table.ENDED_REQUESTS] == {}


def test_a_new_hold_time_counts_for_an_eighth() -> None:
    ledger = Ledger(rules_of())
    ledger.observe_hold("lock/like", 800)
    assert (ledger.hold_times["lock/like"].mean_ns, ledger.hold_times["lock/like"].count) == (800, 1)
    ledger.observe_hold("lock/like", 1_600)
    assert (ledger.hold_times["lock/like"].mean_ns, ledger.hold_times["lock/like"].count) == (900, 2)


def test_ended_requests_come_back_in_the_order_in_which_they_ended(desk: Desk) -> None:
    """A store keeps them by worker and request id."""
    desk.release(desk.lock(request_id="z ended first"))
    desk.advance(5 * MINUTE)
    desk.release(desk.lock(request_id="a ended last"))
    desk.restart()
    desk.advance(6 * MINUTE)
    desk.commit()
    assert [key[1] for key in desk.rows[Table.ENDED_REQUESTS]] == ["a ended last"]
    desk.lock(request_id="z ended first")
