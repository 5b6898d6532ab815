from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    LeaveWait,
    RequestLock,
    ReserveResource,
    TakePermit,
    UpdateLimit,
    UpdatePool,
)
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Granted, Queued, Reason, Refused, WaitGranted
from coordd.core.records import Lock, Table
from coordd.core.rules import CRITICAL, HIGH, LOW, MEDIUM, KindRule


def wanted(worker: str = "w2", wait_ns: int = HOUR, **more: Any) -> RequestLock:
    fields: dict[str, Any] = {"item": "a", "kind": "like", "worker": worker, "wait_ns": wait_ns}
    return RequestLock(**(fields | more))


def position(desk: Desk, waiter: int) -> int | None:
    place = desk.machine.place(waiter, desk.now)
    return place.position if place is not None else None


def served(desk: Desk, held: Lock, waiters: list[int]) -> list[int]:
    """Release again and again; return the waiters in the order in which they were served."""
    order = []
    while held is not None:
        desk.release(held, 2)
        notice = desk.notices[-1]
        assert isinstance(notice, WaitGranted)
        order.append(notice.waiter.id)
        assert isinstance(notice.grant, Lock)
        held = notice.grant
        if len(order) == len(waiters):
            break
    return order


# -- order ---------------------------------------------------------------------------------------------------


def test_first_come_first_served_within_a_class(desk: Desk) -> None:
    held = desk.lock()
    waiters = [desk.wait(wanted(f"w{number}")) for number in range(20)]
    assert [position(desk, waiter) for waiter in waiters] == list(range(1, 21))
    assert served(desk, held, waiters) == waiters


def test_higher_class_goes_first(desk: Desk) -> None:
    held = desk.lock()
    waiters = [desk.wait(wanted(priority=priority)) for priority in (LOW, MEDIUM, HIGH, CRITICAL)]
    assert served(desk, held, waiters) == waiters[::-1]


def test_higher_quality_goes_first_among_equals_and_never_before_a_higher_class(desk: Desk) -> None:
    held = desk.lock()
    plain = desk.wait(wanted(quality=0.0))
    better = desk.wait(wanted(quality=1.0))
    higher = desk.wait(wanted(quality=0.0, priority=HIGH))
    assert served(desk, held, [plain, better, higher]) == [higher, better, plain]


@pytest.mark.parametrize(("waited_ns", "is_first"), [(2 * MINUTE - 1, False), (2 * MINUTE, True)])
def test_low_goes_before_a_fresh_high_once_it_has_waited_the_difference_of_their_boosts(
    desk: Desk, *, waited_ns: int, is_first: bool
) -> None:
    held = desk.lock(ttl_ns=HOUR)
    low = desk.wait(wanted(priority=LOW))
    desk.advance(waited_ns)
    high = desk.wait(wanted("w3", priority=HIGH))
    assert served(desk, held, [low, high])[0] == (low if is_first else high)


def test_nobody_starves_however_many_of_a_higher_class_come(desk: Desk) -> None:
    """That is the bound: boost(HIGH) - boost(LOW), and what was ahead until then."""
    held, low = desk.lock(), desk.wait(wanted(priority=LOW))
    for number in range(100):
        if desk.granted(low):
            break
        desk.wait(wanted(f"w{number}", priority=HIGH))
        desk.advance(10 * SECOND)
        desk.release(held, 2)
        held = desk.notices[-1].grant  # type: ignore[union-attr,assignment]
    assert desk.granted(low).granted_at - desk.granted(low).granted_at % SECOND <= desk.now
    assert number <= 13


def test_newcomer_of_a_higher_class_does_not_wait_behind_the_queue(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.wait(ReserveResource(type="db", units=2, worker="w2", wait_ns=HOUR))
    refused = desk.refused(ReserveResource(type="db", units=1, worker="w3"))
    assert (refused.reason, refused.position) == (Reason.QUEUED_AHEAD, 2)
    desk.reserve(units=1, priority=HIGH)


# -- the end of a wait ---------------------------------------------------------------------------------------


def test_waiter_is_granted_in_the_step_that_frees_what_it_waits_for(desk: Desk) -> None:
    held = desk.lock()
    waiter = desk.wait(wanted())
    desk.release(held)
    grant = desk.granted(waiter)
    assert (grant.worker, grant.granted_at, grant.expires_at) == ("w2", desk.now, desk.now + MINUTE)
    assert desk.machine.place(waiter, desk.now) is None
    assert desk.machine.counts().waiters == 0


def test_wait_times_out_and_frees_its_request_id(desk: Desk) -> None:
    desk.lock(ttl_ns=HOUR)
    waiter = desk.wait(wanted(wait_ns=SECOND, request_id="r1"))
    desk.advance(SECOND - 1)
    assert desk.refusal(waiter) is None
    desk.advance(1)
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert (refusal.reason, refusal.subject) == (Reason.WAIT_TIMEOUT, "a")
    desk.lock("b", "w2", request_id="r1")


def test_whoever_was_held_up_by_one_that_timed_out_is_served(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.wait(ReserveResource(type="db", units=2, worker="w2", wait_ns=SECOND))
    small = desk.wait(ReserveResource(type="db", units=1, worker="w3", wait_ns=HOUR))
    desk.advance(SECOND)
    assert desk.granted(small)


def test_waiter_whose_queue_frees_by_time_alone_is_woken_after_the_head_has_gone(desk: Desk) -> None:
    desk.permit(count=2)
    head = desk.wait(TakePermit(endpoint="search", worker="w2", count=3, wait_ns=HOUR))
    small = desk.wait(TakePermit(endpoint="search", worker="w3", count=1, wait_ns=HOUR))
    desk.leave(head)
    assert desk.granted(small)
    next_ = desk.wait(TakePermit(endpoint="search", worker="w4", count=1, wait_ns=HOUR))
    desk.advance(111 * SECOND)
    assert desk.granted(next_)


def test_queue_that_nobody_waits_in_any_longer_wakes_nobody(desk: Desk) -> None:
    desk.permit("one")
    waiter = desk.wait(TakePermit(endpoint="one", worker="w2", wait_ns=HOUR))
    desk.leave(waiter)
    desk.advance(10 * SECOND)
    assert desk.machine.next_deadline() is None


def test_one_call_serves_a_bounded_number_and_the_rest_is_due_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.core.waits.SERVED_PER_CALL_MAX", 2)
    held = desk.reserve(units=3)
    waiters = [
        desk.wait(ReserveResource(type="db", worker=f"w{number}", wait_ns=HOUR)) for number in range(3)
    ]
    desk.give_back(held)
    assert [bool(desk.granted(waiter)) for waiter in waiters] == [True, True, False]
    assert desk.machine.next_deadline() == desk.now
    view = desk.machine.place(waiters[2], desk.now)
    assert view is not None
    assert (view.blocked_by.reason, view.blocked_by.subject) == (Reason.QUEUED_AHEAD, "conns")
    desk.advance(0)
    assert desk.granted(waiters[2])


def test_queues_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.lock()
    desk.lock("b")
    desk.wait(wanted())
    monkeypatch.setattr("coordd.core.waits.WAITERS_PER_QUEUE_MAX", 1)
    assert desk.error(wanted("w3")) == "QUEUE_FULL"
    monkeypatch.setattr("coordd.core.waits.WAITERS_MAX", 1)
    assert desk.error(wanted("w3", item="b")) == "QUEUE_FULL"


# -- away ----------------------------------------------------------------------------------------------------


def test_wait_without_a_request_id_is_over_when_its_stream_is(desk: Desk) -> None:
    held = desk.lock()
    first, second = desk.wait(wanted()), desk.wait(wanted("w3"))
    assert not desk.leave(first)
    assert position(desk, second) == 1
    desk.release(held)
    assert desk.granted(first) is None
    assert desk.granted(second)


def test_away_waiter_is_skipped_never_granted_and_holds_nobody_up(desk: Desk) -> None:
    held = desk.lock()
    away, second = desk.wait(wanted(request_id="r1")), desk.wait(wanted("w3"))
    assert desk.leave(away)
    assert desk.leave(away)
    assert desk.machine.place(away, desk.now) is None
    assert position(desk, second) == 1
    desk.release(held)
    assert desk.granted(away) is None
    assert desk.granted(second)
    assert desk.machine.counts().waiters_away == 1


def test_whoever_was_held_up_by_one_that_went_away_is_served(desk: Desk) -> None:
    desk.reserve(units=2)
    large = desk.wait(ReserveResource(type="db", units=2, worker="w2", request_id="r1", wait_ns=HOUR))
    small = desk.wait(ReserveResource(type="db", units=1, worker="w3", wait_ns=HOUR))
    assert desk.leave(large)
    assert desk.granted(small)


def test_same_request_id_brings_a_waiter_back_to_its_place(desk: Desk) -> None:
    held = desk.lock(ttl_ns=HOUR)
    away, second = desk.wait(wanted(request_id="r1")), desk.wait(wanted("w3"))
    desk.leave(away)
    desk.advance(20 * SECOND)
    back = desk.do(wanted(request_id="r1"))
    assert back == Queued(id=away, is_resumed=True)
    assert (position(desk, away), position(desk, second)) == (1, 2)
    desk.advance(20 * SECOND)
    desk.release(held)
    assert desk.granted(away)


def test_waiter_that_comes_back_to_something_free_has_it(desk: Desk) -> None:
    held = desk.lock()
    away = desk.wait(wanted(request_id="r1"))
    desk.leave(away)
    desk.release(held)
    outcome = desk.do(wanted(request_id="r1"))
    assert isinstance(outcome, Granted)
    assert outcome.grant.worker == "w2"
    assert not outcome.is_repeat


def test_away_waiter_s_request_that_does_not_wait_has_what_is_free(desk: Desk) -> None:
    held = desk.lock()
    away = desk.wait(wanted(request_id="r1"))
    desk.leave(away)
    assert desk.refused(wanted(request_id="r1", wait_ns=0)).reason == Reason.HELD
    desk.release(held)
    assert desk.lock("a", "w2", request_id="r1").worker == "w2"
    assert desk.machine.counts().waiters == 0


def test_request_of_a_waiter_that_does_not_wait_tells_its_place(desk: Desk) -> None:
    desk.lock()
    desk.wait(wanted("w3"))
    desk.wait(wanted(request_id="r1"))
    refused = desk.refused(wanted(request_id="r1", wait_ns=0))
    assert (refused.reason, refused.position) == (Reason.HELD, 2)


def test_waiter_that_comes_back_too_late_for_its_item_is_refused_for_good() -> None:
    kinds = {"reply": KindRule(min_interval_ns=HOUR), "like": KindRule(ttl_ns=MINUTE)}
    desk = Desk(rules_of(kinds=kinds))
    held = desk.lock(kind="reply")
    desk.leave(desk.wait(wanted(kind="reply", request_id="r1")))
    desk.release(held)
    outcome = desk.do(wanted(kind="reply", request_id="r1"))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.position) == (Reason.RECENTLY_ENGAGED, 0)
    assert desk.machine.counts().waiters == 0
    desk.lock("b", "w2", request_id="r1")


def test_waiter_that_comes_back_wanting_more_than_there_is_by_now_is_refused_for_good(desk: Desk) -> None:
    desk.reserve(units=1)
    large = ReserveResource(type="db", worker="w2", units=3, request_id="r1", wait_ns=HOUR)
    desk.leave(desk.wait(large))
    desk.do(UpdatePool(name="conns", capacity=2))
    outcome = desk.do(large)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.subject) == (Reason.UNITS_TAKEN, "conns")
    assert desk.machine.counts().waiters == 0
    desk.advance(2 * HOUR)


def test_away_waiter_is_dropped_after_the_grace(desk: Desk) -> None:
    held = desk.lock(ttl_ns=HOUR)
    away = desk.wait(wanted(request_id="r1"))
    desk.leave(away)
    desk.advance(30 * SECOND)
    assert desk.refusal(away) is not None
    desk.release(held)
    assert desk.lock("a", "w2", request_id="r1").worker == "w2"


def test_away_waiter_s_own_timeout_still_counts(desk: Desk) -> None:
    desk.lock(ttl_ns=HOUR)
    away = desk.wait(wanted(request_id="r1", wait_ns=5 * SECOND))
    desk.leave(away)
    desk.advance(5 * SECOND)
    assert desk.refusal(away) is not None
    assert desk.machine.counts().waiters_away == 0


def test_away_waiter_whose_item_is_free_can_time_out_too(desk: Desk) -> None:
    held = desk.lock()
    away = desk.wait(wanted(request_id="r1"))
    desk.leave(away)
    desk.release(held)
    desk.advance(30 * SECOND)
    assert desk.refusal(away) is not None


def test_waiter_that_came_back_is_not_dropped_when_the_old_grace_ends(desk: Desk) -> None:
    desk.lock(ttl_ns=HOUR)
    away = desk.wait(wanted(request_id="r1"))
    desk.leave(away)
    desk.do(wanted(request_id="r1"))
    desk.advance(MINUTE)
    assert position(desk, away) == 1


def test_second_stream_of_the_same_request_goes_on_with_the_wait(desk: Desk) -> None:
    desk.lock(ttl_ns=HOUR)
    waiter = desk.wait(wanted(request_id="r1", wait_ns=MINUTE))
    desk.advance(30 * SECOND)
    assert desk.do(wanted(request_id="r1", wait_ns=MINUTE)) == Queued(id=waiter, is_resumed=True)
    desk.advance(MINUTE - 1)
    assert position(desk, waiter) == 1
    desk.advance(1)
    assert desk.refusal(waiter) is not None


def test_stream_that_ends_after_the_wait_changes_nothing(desk: Desk) -> None:
    held = desk.lock()
    waiter = desk.wait(wanted())
    desk.release(held)
    before = desk.machine.digest()
    assert not desk.leave(waiter)
    assert desk.machine.digest() == before


# -- request ids ---------------------------------------------------------------------------------------------


def test_same_request_id_gives_the_same_grant_again(desk: Desk) -> None:
    lock, held, permit = (
        desk.lock(request_id="r1"),
        desk.reserve(units=2, request_id="r2"),
        desk.permit(request_id="r3"),
    )
    for again in (
        desk.do(wanted("w1", request_id="r1")),
        desk.do(wanted("w1", wait_ns=0, request_id="r1")),
    ):
        assert again.is_repeat
        assert again.grant is lock
    assert desk.reserve(units=2, request_id="r2") is held
    assert desk.permit(request_id="r3") is permit


def test_request_ids_are_the_worker_s_own(desk: Desk) -> None:
    desk.lock("a", "w1", request_id="r1")
    desk.lock("b", "w2", request_id="r1")


@pytest.mark.parametrize(
    "command",
    [
        wanted("w1", item="b", request_id="r1"),
        wanted("w1", kind="reply", request_id="r1"),
        TakePermit(endpoint="one", worker="w1", request_id="r1"),
        ReserveResource(type="db", worker="w1", request_id="r1"),
    ],
)
def test_request_id_of_another_request_is_an_error(desk: Desk, command: Any) -> None:
    desk.lock("a", "w1", request_id="r1")
    assert desk.error(command) == "REQUEST_ID_REUSED"


def test_request_id_of_another_wait_is_an_error(desk: Desk) -> None:
    desk.lock()
    desk.wait(wanted(request_id="r1"))
    assert desk.error(wanted(item="b", request_id="r1")) == "REQUEST_ID_REUSED"
    desk.permit(count=3, request_id="p")
    assert desk.error(TakePermit(endpoint="search", worker="w1", request_id="p")) == "REQUEST_ID_REUSED"


# -- operators lower what is waited for ----------------------------------------------------------------------


def test_waiter_for_more_than_there_is_by_now_is_refused_and_holds_nobody_up(desk: Desk) -> None:
    desk.reserve(units=1)
    large = desk.wait(ReserveResource(type="db", worker="w2", units=3, wait_ns=HOUR))
    small = desk.wait(ReserveResource(type="db", worker="w3", units=1, wait_ns=HOUR))
    desk.do(UpdatePool(name="conns", capacity=2))
    refusal = desk.refusal(large)
    assert refusal is not None
    assert (refusal.reason, refusal.subject, refusal.position) == (Reason.UNITS_TAKEN, "conns", 0)
    assert desk.granted(small)


def test_waiter_for_more_permits_than_a_limit_allows_by_now_is_refused(desk: Desk) -> None:
    desk.permit(count=1)
    large = desk.wait(TakePermit(endpoint="search", worker="w2", count=3, wait_ns=HOUR))
    desk.do(UpdateLimit(endpoint="search", windows={100 * SECOND: 2}))
    refusal = desk.refusal(large)
    assert refusal is not None
    assert (refusal.reason, refusal.subject) == (Reason.WINDOW_FULL, "search")


# -- restarts ------------------------------------------------------------------------------------------------


def test_after_a_restart_waiters_are_away_and_come_back_to_their_places(desk: Desk) -> None:
    held = desk.lock(ttl_ns=HOUR)
    first, second = desk.wait(wanted("w2", request_id="r")), desk.wait(wanted("w3", request_id="r"))
    desk.wait(wanted("w4"))
    desk.restart()
    assert (desk.machine.counts().waiters, desk.machine.counts().waiters_away) == (2, 2)
    desk.do(wanted("w3", request_id="r"))
    desk.do(wanted("w2", request_id="r"))
    assert (position(desk, first), position(desk, second)) == (1, 2)
    desk.release(held)
    assert desk.granted(first)


def test_waiter_whose_wish_the_configuration_no_longer_knows_is_dropped(desk: Desk) -> None:
    desk.lock()
    desk.wait(wanted(request_id="r1"))
    desk.restart(rules_of(kinds={"reply": KindRule()}))
    assert desk.machine.counts().waiters == 0
    desk.commit()
    assert desk.rows[Table.WAITERS] == {}


def test_only_waits_that_can_be_resumed_are_kept(desk: Desk) -> None:
    desk.lock()
    desk.wait(wanted("w2"))
    desk.wait(wanted("w3", request_id="r"))
    desk.commit()
    assert [row[4] for row in desk.rows[Table.WAITERS].values()] == ["w3"]


def test_leaving_a_wait_that_never_was_is_no_error(desk: Desk) -> None:
    assert not desk.do(LeaveWait(id=1 << 60)).is_away
