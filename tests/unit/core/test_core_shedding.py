"""Waits that would outlast their own timeout: `waits`, and what the components have seen."""

from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import AcquireBundle, RequestLock, ReserveResource, TakePermit
from coordd.core.limits import MINUTE, SECOND
from coordd.core.outcomes import Queued, Reason
from coordd.core.rules import KindRule, Rules


def shedding_rules(**changes: Any) -> Rules:
    return rules_of(is_shedding=True, **changes)


@pytest.fixture
def desk() -> Desk:
    return Desk(shedding_rules())


def permit(wait_ns: int, **more: Any) -> TakePermit:
    return TakePermit(endpoint="one", worker="w2", wait_ns=wait_ns, **more)


def lock(wait_ns: int, **more: Any) -> RequestLock:
    return RequestLock(**{"item": "a", "kind": "like", "worker": "w2", "wait_ns": wait_ns} | more)


def hold_for(desk: Desk, length_ns: int, times: int = 8, item: str = "b") -> None:
    """Let locks of that length be observed."""
    for _ in range(times):
        held = desk.lock(item=item)
        desk.advance(length_ns)
        desk.release(held, 2)


def test_a_wait_for_a_window_that_would_time_out_is_refused_at_once(desk: Desk) -> None:
    desk.permit("one")
    free_at = desk.now + 110 * SECOND
    refused = desk.refused(permit(100 * SECOND))
    assert (refused.reason, refused.subject, refused.position) == (Reason.WOULD_TIME_OUT, "one", 1)
    # A newcomer that waits as long would be served in time from then on.
    assert free_at <= refused.retry_at + 100 * SECOND <= free_at + SECOND
    desk.advance(refused.retry_at - desk.now - 1)
    assert desk.refused(permit(100 * SECOND)).reason == Reason.WOULD_TIME_OUT
    desk.advance(1)
    waiter = desk.wait(permit(100 * SECOND))
    desk.advance(100 * SECOND)
    assert desk.granted(waiter) is not None


def test_who_is_behind_others_waits_for_what_they_take_first(desk: Desk) -> None:
    desk.permit("one")
    desk.wait(permit(2 * MINUTE))
    refused = desk.refused(permit(200 * SECOND))
    assert (refused.reason, refused.position) == (Reason.WOULD_TIME_OUT, 2)
    desk.wait(permit(4 * MINUTE))


def test_where_it_is_off_everybody_waits() -> None:
    desk = Desk()
    desk.permit("one")
    desk.wait(permit(SECOND))


def test_who_does_not_wait_is_told_what_blocks_it(desk: Desk) -> None:
    desk.permit("one")
    assert desk.refused(permit(0)).reason == Reason.WINDOW_FULL


def test_no_estimate_no_refusal(desk: Desk) -> None:
    desk.lock()
    desk.wait(lock(1))


def test_a_few_observations_are_no_ground_to_refuse_by(desk: Desk) -> None:
    hold_for(desk, 10 * SECOND, times=7)
    held = desk.lock()
    desk.wait(lock(SECOND))
    desk.advance(SECOND)
    desk.release(held, 2)
    desk.lock()
    assert desk.refused(lock(SECOND)).reason == Reason.WOULD_TIME_OUT


def test_a_wait_for_a_lock_is_judged_by_what_is_usual(desk: Desk) -> None:
    hold_for(desk, 10 * SECOND)
    desk.lock()
    refused = desk.refused(lock(4 * SECOND))
    assert (refused.reason, refused.retry_at) == (Reason.WOULD_TIME_OUT, desk.now + 6 * SECOND)
    desk.wait(lock(10 * SECOND))


def test_a_resumed_wait_is_not_shed(desk: Desk) -> None:
    hold_for(desk, 10 * SECOND)
    desk.lock()
    waiter = desk.wait(lock(10 * SECOND, request_id="r"))
    desk.leave(waiter)
    resumed = desk.do(lock(SECOND, request_id="r"))
    assert isinstance(resumed, Queued)
    assert resumed.is_resumed


def test_one_that_is_decided_in_time_is_not_shed() -> None:
    kinds = {"like": KindRule(ttl_ns=MINUTE, lock_delay_ns=0, escalate_after_ns=2 * SECOND)}
    desk = Desk(shedding_rules(kinds=kinds))
    hold_for(desk, 10 * SECOND)
    desk.lock()
    assert desk.refused(lock(SECOND)).reason == Reason.WOULD_TIME_OUT
    desk.wait(lock(2 * SECOND))


def test_units_are_judged_by_what_is_usual_and_windows_by_themselves(desk: Desk) -> None:
    def wants(type: str, wait_ns: int, **more: Any) -> ReserveResource:
        return ReserveResource(type=type, worker="w2", wait_ns=wait_ns, **more)

    held = [desk.reserve() for _ in range(3)]
    desk.wait(wants("db", 1))
    desk.advance(SECOND)
    for reservation in held:
        desk.give_back(reservation)
    for _ in range(8):
        reservation = desk.reserve()
        desk.advance(30 * SECOND)
        desk.give_back(reservation)
    desk.reserve(units=3)
    assert desk.refused(wants("db", SECOND)).reason == Reason.WOULD_TIME_OUT
    desk.reserve("post", units=3)
    assert desk.refused(wants("post", SECOND)).reason == Reason.WOULD_TIME_OUT


def test_a_bundle_is_judged_by_the_worst_of_its_claims(desk: Desk) -> None:
    def bundle(wait_ns: int, *locks: RequestLock) -> AcquireBundle:
        return AcquireBundle(
            worker="w2",
            locks=locks,
            reservations=(),
            permits=(TakePermit(endpoint="one", worker="w2"),),
            not_engaged=(),
            wait_ns=wait_ns,
        )

    desk.permit("one")
    assert desk.refused(bundle(50 * SECOND, lock(0))).reason == Reason.WOULD_TIME_OUT
    desk.lock()
    waits = bundle(110 * SECOND, lock(0))
    hold_for(desk, SECOND)
    assert desk.refused(bundle(SECOND // 2, lock(0))).reason == Reason.WOULD_TIME_OUT
    assert isinstance(desk.do(waits), Queued)


def test_behind_a_closed_gate_the_gate_says_when(desk: Desk) -> None:
    held = [desk.permit(), desk.permit()]
    desk.report(held[0], status_code=429, headers=(("Retry-After", "300"),))
    desk.wait(TakePermit(endpoint="search", worker="w3", wait_ns=400 * SECOND))
    refused = desk.refused(TakePermit(endpoint="search", worker="w2", wait_ns=200 * SECOND))
    assert refused.reason == Reason.WOULD_TIME_OUT
    assert desk.refused(TakePermit(endpoint="search", worker="w2")).reason == Reason.GATE
