from typing import Any

import pytest
from core_desk import T0, Desk, rules_of

from coordd.core.commands import OpenSession, RecordUsage, ScheduleRequest, TakePermit, UpdateLimit
from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from coordd.core.outcomes import Alert, Expired, GateChanged, Reason
from coordd.core.records import Gate, Permit, Table
from coordd.core.rules import HIGH, LimitRule
from coordd.core.views import GateState
from coordd.core.waiters import ReturnGrant

RULE = LimitRule(
    windows={100 * SECOND: 50},
    use_within_ns=10 * SECOND,
    claim_window_ns=20 * SECOND,
    backoff_ns=4 * SECOND,
    backoff_max_ns=16 * SECOND,
    backoff_decay_ns=MINUTE,
    reset_max_ns=HOUR,
    alert_after=3,
)
AFTER_10_S = (("Retry-After", "10"),)


@pytest.fixture
def desk() -> Desk:
    return Desk(rules_of(limits={"e": RULE, "other": RULE}))


def wanted(**more: Any) -> TakePermit:
    return TakePermit(endpoint="e", worker="w2", **more)


def refuse(desk: Desk, permit: Permit, *, headers: Any = AFTER_10_S, status_code: int = 429) -> None:
    desk.report(permit, status_code=status_code, headers=headers, is_success=False)


def close(desk: Desk, **more: Any) -> None:
    """Have a call refused."""
    refuse(desk, desk.permit("e"), **more)


def gate(desk: Desk) -> Any:
    return desk.machine.limit("e", desk.now).gate


def changes(desk: Desk) -> list[Gate]:
    return [notice.gate for notice in desk.notices if isinstance(notice, GateChanged)]


def state(desk: Desk) -> GateState:
    seen: GateState = gate(desk).state
    return seen


# -- closing -------------------------------------------------------------------------------------------------


def test_a_refusal_closes_the_gate_for_everybody_until_upstream_says(desk: Desk) -> None:
    close(desk)
    assert (gate(desk).state, gate(desk).opens_at, gate(desk).strikes) == (
        GateState.CLOSED,
        T0 + 10 * SECOND,
        1,
    )
    refused = desk.refused(wanted())
    assert (refused.reason, refused.subject, refused.position) == (Reason.GATE, "e", 1)
    assert refused.retry_at == T0 + 10 * SECOND
    desk.advance(refused.retry_at - desk.now - 1)
    desk.refused(wanted())
    desk.advance(1)
    desk.permit("e")


def test_it_is_of_one_endpoint_only(desk: Desk) -> None:
    close(desk)
    desk.permit("other")


@pytest.mark.parametrize(
    ("status_code", "headers", "is_closed"),
    [
        (429, (), True),
        (429, AFTER_10_S, True),
        (503, AFTER_10_S, True),
        (503, (), False),
        (403, AFTER_10_S, True),
        (403, (), False),
        # As GitHub says that its primary limit is used up.
        (403, (("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "10")), True),
        (403, (("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset", "10")), False),
        # As Flask-Limiter does with every response.
        (201, AFTER_10_S, False),
        (500, AFTER_10_S, False),
    ],
)
def test_what_is_a_refusal(desk: Desk, status_code: int, headers: Any, *, is_closed: bool) -> None:
    close(desk, status_code=status_code, headers=headers)
    assert (state(desk) == GateState.CLOSED) == is_closed


def test_what_was_not_sent_was_not_refused(desk: Desk) -> None:
    desk.report(desk.permit("e"), is_sent=False, status_code=429)
    assert state(desk) == GateState.OPEN


def test_without_retry_after_an_empty_windows_reset_is_the_time(desk: Desk) -> None:
    close(desk, headers=(("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "30")))
    assert gate(desk).opens_at == T0 + 30 * SECOND


def test_retry_after_wins_over_a_reset(desk: Desk) -> None:
    close(desk, headers=(("RateLimit", '"a";r=0;t=30'), ("Retry-After", "20")))
    assert gate(desk).opens_at == T0 + 20 * SECOND


def test_an_absurd_time_is_clamped_and_told(desk: Desk) -> None:
    close(desk, headers=(("Retry-After", "9999999"),))
    assert gate(desk).opens_at == T0 + HOUR
    (alert,) = [notice for notice in desk.notices if isinstance(notice, Alert)]
    assert alert.subject == "limit/e"
    assert "115d17h46m39s" in alert.detail


def test_those_in_flight_when_it_closed_are_the_same_incident(desk: Desk) -> None:
    permits = [desk.permit("e") for _ in range(4)]
    refuse(desk, permits[0])
    desk.advance(SECOND)
    refuse(desk, permits[1], headers=())
    assert (gate(desk).strikes, gate(desk).opens_at) == (1, T0 + 10 * SECOND)
    # One that knows better is believed.
    refuse(desk, permits[2], headers=(("Retry-After", "30"),))
    assert (gate(desk).strikes, gate(desk).opens_at) == (1, T0 + 31 * SECOND)
    # And a success among them opens nothing.
    desk.report(permits[3], status_code=200)
    assert (gate(desk).strikes, state(desk)) == (1, GateState.CLOSED)


def test_what_is_reported_twice_or_late_closes_once(desk: Desk) -> None:
    permit = desk.permit("e")
    desk.advance(11 * SECOND)
    refuse(desk, permit)
    assert gate(desk).strikes == 1
    desk.advance(10 * SECOND)
    desk.report(desk.permit("e"), status_code=200)
    refuse(desk, permit)
    assert state(desk) == GateState.OPEN


# -- probing -------------------------------------------------------------------------------------------------


def test_one_probe_goes_to_the_first_in_the_queue_and_its_success_lets_the_others_through(desk: Desk) -> None:
    close(desk)
    later, first = desk.wait(wanted(wait_ns=HOUR)), desk.wait(wanted(wait_ns=HOUR, priority=HIGH))
    assert desk.machine.place(later, desk.now).blocked_by.reason == Reason.GATE  # type: ignore[union-attr]
    desk.advance(10 * SECOND)
    probe = desk.granted(first)
    assert probe is not None
    assert desk.granted(later) is None
    assert (gate(desk).state, gate(desk).opens_at) == (GateState.PROBING, probe.use_by)
    assert desk.refused(wanted()).reason == Reason.GATE
    desk.report(probe, status_code=404, is_success=False)
    assert desk.granted(later) is not None
    assert [change.closed_until > 0 for change in changes(desk)] == [True, True, False]
    (row,) = desk.machine.snapshot()[Table.GATES]
    assert row[:3] == ("e", 0, 0)


def test_behind_a_probe_it_is_worth_asking_again_soon_and_waiting_is_not_refused() -> None:
    desk = Desk(rules_of(limits={"e": RULE}, is_shedding=True))
    close(desk)
    assert desk.refused(wanted(wait_ns=9 * SECOND)).reason == Reason.WOULD_TIME_OUT
    desk.wait(wanted(wait_ns=11 * SECOND))
    desk.advance(10 * SECOND)
    assert state(desk) == GateState.PROBING
    assert desk.refused(wanted()).retry_at == desk.now + 4 * SECOND
    desk.wait(wanted(wait_ns=SECOND))


def test_a_refused_probe_closes_it_again_for_longer(desk: Desk) -> None:
    close(desk, headers=())
    pauses = [gate(desk).opens_at - desk.now]
    for _ in range(3):
        desk.advance(gate(desk).opens_at - desk.now)
        close(desk, headers=())
        pauses.append(gate(desk).opens_at - desk.now)
    for pause, whole_s in zip(pauses, (4, 8, 16, 16), strict=True):
        assert whole_s * SECOND / 2 <= pause <= whole_s * SECOND
    assert len({pause % (2 * SECOND) for pause in pauses}) == 4
    assert [notice for notice in desk.notices if isinstance(notice, Alert)] == [
        Alert(subject="limit/e", detail=desk.notices[-3].detail)  # type: ignore[union-attr]
    ]


@pytest.mark.parametrize("end", ["not sent", "error", "no answer", "not reported"])
def test_a_probe_that_tells_nothing_makes_room_for_the_next(desk: Desk, end: str) -> None:
    close(desk)
    waiters = [desk.wait(wanted(wait_ns=HOUR)) for _ in range(3)]
    desk.advance(10 * SECOND)
    probe = desk.granted(waiters[0])
    if end == "not sent":
        desk.report(probe, is_sent=False)
    elif end == "not reported":
        desk.advance(10 * SECOND)
        assert Expired(grant=probe) in desk.notices
    else:
        desk.report(probe, is_success=False, status_code=500 if end == "error" else 0)
    assert desk.granted(waiters[1]) is not None
    assert desk.granted(waiters[2]) is None
    assert (gate(desk).state, gate(desk).strikes) == (GateState.PROBING, 1)


def test_a_probe_that_nobody_heard_of_makes_room_for_the_next(desk: Desk) -> None:
    close(desk)
    desk.advance(10 * SECOND)
    probe = desk.permit("e")
    desk.refused(wanted())
    desk.do(ReturnGrant(id=probe.id, waiter=None))
    desk.permit("e")


def test_a_probe_whose_report_is_late_opens_it_even_with_another_under_way(desk: Desk) -> None:
    close(desk)
    desk.advance(10 * SECOND)
    probe = desk.permit("e")
    desk.advance(10 * SECOND)
    other = desk.permit("e")
    desk.report(probe, status_code=200)
    assert state(desk) == GateState.OPEN
    refuse(desk, other)
    assert state(desk) == GateState.CLOSED


def test_a_late_refusal_of_an_old_probe_closes_it_again(desk: Desk) -> None:
    close(desk)
    desk.advance(10 * SECOND)
    probe = desk.permit("e")
    desk.advance(10 * SECOND)
    desk.permit("e")
    refuse(desk, probe)
    assert (gate(desk).state, gate(desk).strikes) == (GateState.CLOSED, 2)


def test_a_late_success_of_a_probe_opens_it_and_serves_those_who_wait(desk: Desk) -> None:
    close(desk)
    desk.advance(10 * SECOND)
    probe = desk.permit("e")
    waiter = desk.wait(wanted(wait_ns=HOUR))
    desk.now = probe.use_by
    desk.machine.apply(
        RecordUsage(endpoint="e", worker="w1", id=probe.id, is_sent=True, is_success=True), desk.now
    )
    desk.notices += desk.machine.take_notices()
    assert state(desk) == GateState.OPEN
    assert desk.granted(waiter) is not None


# -- strikes -------------------------------------------------------------------------------------------------


def strike(desk: Desk, times: int) -> None:
    for _ in range(times):
        close(desk)
        desk.advance(10 * SECOND)


def test_each_success_forgives_a_strike(desk: Desk) -> None:
    strike(desk, 3)
    for left in (2, 1, 0):
        desk.report(desk.permit("e"), status_code=200)
        assert (gate(desk).state, gate(desk).strikes) == (GateState.OPEN, left)
    desk.machine.take_changes()
    desk.report(desk.permit("e"), status_code=200)
    assert Table.GATES not in desk.machine.take_changes()[0]


def test_an_error_of_upstreams_own_forgives_none(desk: Desk) -> None:
    strike(desk, 3)
    desk.report(desk.permit("e"), status_code=200)
    desk.report(desk.permit("e"), status_code=500, is_success=False)
    assert gate(desk).strikes == 2


def test_strikes_fade_with_time_once_the_pause_is_over(desk: Desk) -> None:
    strike(desk, 3)
    desk.report(desk.permit("e"), status_code=200)
    desk.advance(MINUTE)
    assert gate(desk).strikes == 1
    desk.advance(30 * SECOND)
    close(desk, headers=())
    assert gate(desk).strikes == 2
    assert gate(desk).opens_at - desk.now <= 8 * SECOND


def test_what_is_left_of_a_decay_counts_on(desk: Desk) -> None:
    strike(desk, 5)
    desk.report(desk.permit("e"), status_code=200)
    desk.advance(90 * SECOND)
    desk.report(desk.permit("e"), status_code=200)
    assert gate(desk).strikes == 2
    desk.advance(30 * SECOND)
    assert gate(desk).strikes == 1


def test_a_pause_is_as_long_whatever_the_hash_seed_and_within_its_half() -> None:
    pauses = set()
    for n in range(20):
        desk = Desk(rules_of(limits={"e": RULE}), now=T0 + n * DAY)
        for _ in range(n):
            desk.permit("e")
        close(desk, headers=())
        pauses.add((gate(desk).opens_at - desk.now) // (100 * MILLISECOND))
    assert min(pauses) >= 20
    assert max(pauses) <= 40
    assert len(pauses) > 10


# -- bookings, sessions, restarts ----------------------------------------------------------------------------


def test_a_booking_is_not_claimed_while_it_is_closed_and_none_begins_before_it_opens(desk: Desk) -> None:
    early = desk.book("e")
    close(desk)
    claim = wanted(booking_id=early.id)
    refused = desk.refused(TakePermit(endpoint="e", worker="w1", booking_id=early.id))
    assert (refused.reason, refused.retry_at) == (Reason.GATE, T0 + 10 * SECOND)
    assert desk.error(claim) == "NOT_HOLDER"
    assert desk.book("e").execute_at >= T0 + 10 * SECOND
    desk.advance(10 * SECOND)
    desk.permit("e", booking_id=early.id)
    assert desk.refused(wanted()).reason == Reason.GATE


def test_a_booking_may_be_made_for_later(desk: Desk) -> None:
    close(desk)
    command = ScheduleRequest(endpoint="e", worker="w", not_before_ns=MINUTE)
    assert desk.do(command).booking.execute_at == T0 + MINUTE


def test_a_full_window_behind_a_closed_gate_is_reckoned_with(desk: Desk) -> None:
    rule = LimitRule(windows={100 * SECOND: 1}, use_within_ns=SECOND)
    desk = Desk(rules_of(limits={"e": rule}))
    close(desk)
    assert desk.refused(wanted()).retry_at == T0 + 100 * SECOND + SECOND // 5


def test_a_session_is_told_which_gates_are_not_open(desk: Desk) -> None:
    close(desk)
    (seen,) = desk.do(OpenSession(worker="w")).gates
    assert (seen.endpoint, seen.closed_until) == ("e", T0 + 10 * SECOND)
    desk.advance(10 * SECOND)
    desk.report(desk.permit("e"), status_code=200)
    assert desk.do(OpenSession(worker="w3")).gates == ()


def test_an_operators_word_ends_the_pause_and_the_next_call_probes(desk: Desk) -> None:
    close(desk)
    waiters = [desk.wait(wanted(wait_ns=HOUR)) for _ in range(2)]
    desk.do(UpdateLimit(endpoint="e", windows={100 * SECOND: 40}))
    assert desk.granted(waiters[0]) is not None
    assert desk.granted(waiters[1]) is None
    assert state(desk) == GateState.PROBING
    before = len(changes(desk))
    desk.do(UpdateLimit(endpoint="e", windows={100 * SECOND: 50}))
    assert len(changes(desk)) == before


def test_a_restart_keeps_it_closed_and_its_strikes(desk: Desk) -> None:
    close(desk)
    desk.restart(down_ns=SECOND)
    assert (gate(desk).state, gate(desk).opens_at, gate(desk).strikes) == (
        GateState.CLOSED,
        T0 + 10 * SECOND,
        1,
    )


def test_a_probe_under_way_at_a_restart_decides(desk: Desk) -> None:
    close(desk)
    desk.advance(10 * SECOND)
    probe = desk.permit("e")
    desk.restart()
    assert desk.refused(wanted()).reason == Reason.GATE
    desk.report(probe, status_code=200)
    assert state(desk) == GateState.OPEN


def test_a_probe_whose_permit_is_no_more_after_a_restart_is_over(desk: Desk) -> None:
    close(desk)
    desk.advance(10 * SECOND)
    probe = desk.permit("e")
    desk.commit()
    del desk.rows[Table.PERMITS][(probe.id,)]
    desk.restart()
    assert state(desk) == GateState.PROBING
    desk.permit("e")


def test_the_gate_of_an_endpoint_that_is_gone_is_forgotten(desk: Desk) -> None:
    close(desk)
    desk.restart(rules_of(limits={"other": RULE}))
    desk.commit()
    assert desk.rows[Table.GATES] == {}


def test_a_permit_from_before_that_runs_out_is_no_probe(desk: Desk) -> None:
    desk.permit("e")
    close(desk)
    desk.advance(10 * SECOND)
    desk.permit("e")
    assert desk.refused(wanted()).reason == Reason.GATE
