"""Conflicts: waited out, refused or escalated; what each decision does; and how a lease is taken."""

from typing import Any

import pytest
from core_desk import Desk, rules_of
from msgspec.structs import replace

from coordd.core import escalations
from coordd.core.commands import (
    AcquireBundle,
    ReleaseLock,
    RenewLock,
    RenewReservation,
    RequestLock,
    ReserveResource,
    ResolveEscalation,
    TakePermit,
)
from coordd.core.decisions import BY_DEFAULT
from coordd.core.holders import Holders
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import (
    Alert,
    EscalationChanged,
    EscalationResolved,
    Expired,
    Preempted,
    Queued,
    Reason,
)
from coordd.core.records import Decision, EndedBy, Escalation, Outcome, Table
from coordd.core.rules import CRITICAL, DENY, ESCALATE, WAIT, KindRule, LimitRule, PoolRule, TypeRule

TIMEOUT = MINUTE
GRACE = 5 * SECOND


def desk_of(*, default: Decision = Decision.WAIT, **more: Any) -> Desk:
    kinds = {
        "like": KindRule(ttl_ns=10 * MINUTE),
        "slow": KindRule(ttl_ns=10 * MINUTE, escalate_after_ns=20 * SECOND),
        "deny": KindRule(ttl_ns=10 * MINUTE, on_conflict=DENY),
        "ask": KindRule(ttl_ns=10 * MINUTE, on_conflict=ESCALATE, escalate_after_ns=30 * SECOND),
        "reply": KindRule(ttl_ns=10 * MINUTE, min_interval_ns=HOUR),
    }
    types = {
        "file": TypeRule(ttl_ns=10 * MINUTE),
        "deny": TypeRule(ttl_ns=10 * MINUTE, pool="conns", on_conflict=DENY),
        "ask": TypeRule(ttl_ns=10 * MINUTE, pool="conns", on_conflict=ESCALATE),
        "slow": TypeRule(ttl_ns=10 * MINUTE, escalate_after_ns=10 * SECOND),
        "db": TypeRule(ttl_ns=10 * MINUTE, pool="conns"),
        "quota": TypeRule(pools={"tweet": "tweets"}, on_conflict=ESCALATE),
        "post": TypeRule(pool="tweets"),
    }
    fields = {
        "kinds": kinds,
        "types": types,
        "escalation_timeout_ns": TIMEOUT,
        "escalation_default": default,
        "preempt_grace_ns": GRACE,
    }
    return Desk(rules_of(**(fields | more)))


@pytest.fixture
def desk() -> Desk:
    return desk_of()


def lock(worker: str = "w2", kind: str = "like", **more: Any) -> RequestLock:
    return RequestLock(**({"item": "a", "kind": kind, "worker": worker, "wait_ns": HOUR} | more))


def reserve(type_: str = "file", worker: str = "w2", **more: Any) -> ReserveResource:
    return ReserveResource(**({"type": type_, "worker": worker, "wait_ns": HOUR} | more))


def asked(desk: Desk, command: Any = None) -> tuple[int, Escalation]:
    """Begin a wait that is escalated at once; return the waiter's id and the escalation."""
    waiter = desk.wait(lock(on_conflict=ESCALATE) if command is None else command)
    [escalation] = [each for each in desk.machine.escalations() if each.waiter_id == waiter]
    return waiter, escalation


def decide(desk: Desk, escalation: Escalation, decision: Decision, **more: Any) -> Escalation:
    command = ResolveEscalation(id=escalation.id, decision=decision, decided_by="boss", **more)
    resolved = desk.do(command)
    assert isinstance(resolved, EscalationResolved)
    return resolved.escalation


def told(desk: Desk) -> list[tuple[bool, int, str]]:
    return [
        (notice.is_open, notice.escalation.decision, notice.escalation.decided_by)
        for notice in desk.notices
        if isinstance(notice, EscalationChanged)
    ]


def of(type_: type, desk: Desk) -> list[Any]:
    return [notice for notice in desk.notices if isinstance(notice, type_)]


# -- on_conflict ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said", "becomes"),
    [
        ("like", 0, WAIT),
        ("like", WAIT, WAIT),
        ("like", DENY, DENY),
        ("like", ESCALATE, ESCALATE),
        ("deny", 0, DENY),
        ("deny", WAIT, WAIT),
        ("ask", 0, ESCALATE),
        ("ask", DENY, DENY),
        ("ask", WAIT, WAIT),
    ],
)
def test_the_request_goes_before_the_kind(desk: Desk, kind: str, said: int, becomes: int) -> None:
    desk.lock(kind="like")
    command = lock(kind=kind, on_conflict=said)
    if becomes == DENY:
        refused = desk.refused(command)
        assert (refused.reason, refused.holder, refused.position) == (Reason.HELD, "w1", 1)
    else:
        desk.wait(command)
    assert len(desk.machine.escalations()) == desk.machine.counts().escalations == (becomes == ESCALATE)


def test_the_type_says_it_of_resources_and_units(desk: Desk) -> None:
    desk.reserve(units=3)
    assert desk.refused(reserve("deny")).reason == Reason.UNITS_TAKEN
    desk.wait(reserve("deny", on_conflict=WAIT))
    _, escalation = asked(desk, reserve("ask"))
    assert (escalation.subject, escalation.holder, escalation.holder_id) == ("conns", "", 0)


def test_a_full_window_is_no_conflict(desk: Desk) -> None:
    desk.permit("one")
    desk.wait(TakePermit(endpoint="one", worker="w2", wait_ns=HOUR))
    bundle = AcquireBundle(
        worker="w3",
        wait_ns=HOUR,
        on_conflict=DENY,
        permits=(TakePermit(endpoint="one", worker="w3"),),
        locks=(RequestLock(item="a", kind="like", worker="w3"),),
    )
    desk.wait(bundle)


def test_who_would_not_wait_for_a_holder_is_refused_when_it_meets_one_later(desk: Desk) -> None:
    desk.permit("one")
    bundle = AcquireBundle(
        worker="w3",
        wait_ns=HOUR,
        on_conflict=DENY,
        request_id="r1",
        permits=(TakePermit(endpoint="one", worker="w3"),),
        locks=(RequestLock(item="a", kind="like", worker="w3"),),
    )
    met, away = desk.wait(bundle), desk.wait(replace(bundle, request_id="r2"))
    desk.leave(away)
    desk.lock("a")
    assert desk.refusal(met) is None
    desk.advance(200 * SECOND)
    refusal = desk.refusal(met)
    assert refusal is not None
    assert (refusal.reason, refusal.subject, refusal.holder) == (Reason.HELD, "a", "w1")


def test_who_comes_back_and_meets_a_holder_then_is_refused_where_it_would_not_wait(desk: Desk) -> None:
    desk.permit("one")
    bundle = AcquireBundle(
        worker="w3",
        wait_ns=HOUR,
        on_conflict=DENY,
        request_id="r1",
        permits=(TakePermit(endpoint="one", worker="w3"),),
        locks=(RequestLock(item="a", kind="like", worker="w3"),),
    )
    desk.leave(desk.wait(bundle))
    desk.lock("a")
    assert desk.do(bundle).reason == Reason.HELD
    assert desk.machine.counts().waiters == 0


@pytest.mark.parametrize("said", [0, DENY])
def test_of_a_bundle_the_claim_that_blocks_it_counts(desk: Desk, said: int) -> None:
    def bundle(kind: str, type_: str, **more: Any) -> AcquireBundle:
        return AcquireBundle(
            worker="w2",
            locks=(
                RequestLock(item="b", kind="ask", worker="w2"),
                RequestLock(item="a", kind=kind, worker="w2"),
            ),
            reservations=(
                ReserveResource(type="file", resource_id="y", worker="w2"),
                ReserveResource(type=type_, resource_id="x", worker="w2"),
            ),
            wait_ns=HOUR,
            **more,
        )

    held = desk.lock()
    assert desk.refused(bundle("deny", "file", on_conflict=said)).subject == "a"
    desk.release(held, Outcome.FAILURE)
    resource = desk.reserve("deny", resource_id="x")
    assert desk.refused(bundle("like", "deny", on_conflict=said)).subject == "deny/x"
    if not said:
        desk.give_back(resource)
        desk.reserve("db", units=3)
        assert desk.refused(bundle("like", "deny")).subject == "conns"


def test_a_bundle_is_asked_about_after_the_shortest_time_of_its_claims(desk: Desk) -> None:
    desk.lock()
    bundle = AcquireBundle(
        worker="w2",
        locks=(
            RequestLock(item="a", kind="slow", worker="w2"),
            RequestLock(item="b", kind="like", worker="w2"),
        ),
        reservations=(ReserveResource(type="slow", resource_id="x", worker="w2"),),
        wait_ns=HOUR,
    )
    desk.wait(bundle)
    desk.advance(10 * SECOND - 1)
    assert not desk.machine.escalations()
    desk.advance(1)
    [escalation] = desk.machine.escalations()
    assert (escalation.subject, escalation.holder) == ("a", "w1")


# -- opening and closing -------------------------------------------------------------------------------------


def test_an_escalation_says_who_waits_for_what_and_who_holds_it(desk: Desk) -> None:
    held = desk.lock()
    desk.advance(SECOND)
    waiter, escalation = asked(desk, lock(on_conflict=ESCALATE, priority=CRITICAL))
    assert escalation == Escalation(
        id=escalation.id,
        waiter_id=waiter,
        subject="a",
        worker="w2",
        priority=CRITICAL,
        waited_ns=0,
        holder="w1",
        holder_id=held.token,
        opened_at=desk.now,
        decide_by=desk.now + TIMEOUT,
        scheduled=escalation.scheduled,
    )
    assert told(desk) == [(True, 0, "")]


def test_it_is_opened_exactly_when_the_wait_has_lasted_so_long(desk: Desk) -> None:
    desk.lock()
    desk.wait(lock(kind="slow"))
    desk.advance(20 * SECOND - 1)
    assert not desk.machine.escalations()
    desk.advance(1)
    [escalation] = desk.machine.escalations()
    assert (escalation.waited_ns, escalation.opened_at) == (20 * SECOND, desk.now)
    desk.advance(30 * SECOND)
    assert len(desk.machine.escalations()) == 1


def test_a_wait_that_times_out_at_that_instant_is_over(desk: Desk) -> None:
    desk.lock()
    waiter = desk.wait(lock(kind="slow", wait_ns=20 * SECOND))
    desk.advance(20 * SECOND)
    refused = desk.refusal(waiter)
    assert refused is not None
    assert refused.reason == Reason.WAIT_TIMEOUT
    assert not told(desk)


def test_one_that_is_away_is_not_escalated_before_it_comes_back(desk: Desk) -> None:
    desk.lock()
    command = lock(kind="slow", request_id="r")
    waiter = desk.wait(command)
    desk.advance(10 * SECOND)
    assert desk.leave(waiter)
    desk.advance(20 * SECOND)
    assert not told(desk)
    assert desk.wait(command) == waiter
    desk.advance(0)
    assert [escalation.waiter_id for escalation in desk.machine.escalations()] == [waiter]


@pytest.mark.parametrize("how", ["granted", "timed out", "left"])
def test_it_closes_when_the_wait_ends_otherwise(desk: Desk, how: str) -> None:
    held = desk.lock()
    waiter, escalation = asked(desk, lock(on_conflict=ESCALATE, wait_ns=30 * SECOND))
    if how == "granted":
        desk.release(held)
    elif how == "left":
        desk.leave(waiter)
    else:
        desk.advance(30 * SECOND)
    assert told(desk) == [(True, 0, ""), (False, 0, "")]
    assert not desk.machine.escalations()
    command = ResolveEscalation(id=escalation.id, decision=Decision.DENY, decided_by="boss")
    assert desk.error(command) == "ESCALATION_CLOSED"


def test_it_stays_open_while_other_waits_end(desk: Desk) -> None:
    desk.lock()
    other = desk.wait(lock("w3", wait_ns=SECOND))
    _, escalation = asked(desk)
    desk.advance(SECOND)
    assert desk.refusal(other) is not None
    assert [each.id for each in desk.machine.escalations()] == [escalation.id]


def test_there_may_be_only_so_many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escalations, "ESCALATIONS_MAX", 1)
    desk.lock()
    _, first = asked(desk)
    slow = desk.wait(lock(kind="slow"))
    desk.wait(lock(on_conflict=ESCALATE))
    desk.advance(25 * SECOND)
    assert [alert.subject for alert in of(Alert, desk)] == ["escalations"]
    decide(desk, first, Decision.WAIT)
    # One that time has escalated is tried again after as long.
    desk.advance(15 * SECOND)
    assert [escalation.waiter_id for escalation in desk.machine.escalations()] == [slow]
    desk.wait(lock(on_conflict=ESCALATE))
    assert len(of(Alert, desk)) == 2


def test_only_what_is_open_can_be_decided(desk: Desk) -> None:
    held = desk.lock()
    unknown = ResolveEscalation(id=1 << 60, decision=Decision.GRANT, decided_by="boss")
    assert desk.error(unknown) == "UNKNOWN_ID"
    other = ResolveEscalation(id=held.token, decision=Decision.GRANT, decided_by="boss")
    assert desk.error(other) == "ESCALATION_CLOSED"


def test_the_first_decision_counts(desk: Desk) -> None:
    desk.lock()
    waiter, escalation = asked(desk)
    closed = decide(desk, escalation, Decision.WAIT, reason="patience")
    assert (closed.decision, closed.decided_by, closed.reason) == (Decision.WAIT, "boss", "patience")
    command = ResolveEscalation(id=escalation.id, decision=Decision.DENY, decided_by="other")
    assert desk.error(command) == "ESCALATION_CLOSED"
    assert desk.refusal(waiter) is None
    assert told(desk)[-1] == (False, Decision.WAIT, "boss")


@pytest.mark.parametrize("is_of_wait", [True, False])
def test_a_decision_at_the_end_is_too_late_ticked_or_not(desk: Desk, *, is_of_wait: bool) -> None:
    desk.lock()
    _, escalation = asked(desk, lock(on_conflict=ESCALATE, wait_ns=30 * SECOND if is_of_wait else HOUR))
    desk.now += 30 * SECOND if is_of_wait else TIMEOUT
    command = ResolveEscalation(id=escalation.id, decision=Decision.GRANT, decided_by="boss")
    with pytest.raises(Exception, match="is closed"):
        desk.machine.apply(command, desk.now)


# -- decisions -----------------------------------------------------------------------------------------------


def test_granted_ones_go_before_all_others_in_the_order_of_decision(desk: Desk) -> None:
    held = desk.lock()
    first = desk.wait(lock("w2"))
    one, asked_one = asked(desk, lock("w3", on_conflict=ESCALATE))
    two, asked_two = asked(desk, lock("w4", on_conflict=ESCALATE))
    decide(desk, asked_two, Decision.GRANT)
    decide(desk, asked_one, Decision.GRANT)
    urgent = desk.wait(lock("w5", priority=CRITICAL))
    served = []
    for _ in range(4):
        desk.release(held, Outcome.FAILURE)
        notice = desk.notices[-1]
        served.append(notice.waiter.id)  # type: ignore[union-attr]
        held = notice.grant  # type: ignore[union-attr]
    assert served == [two, one, urgent, first]


def test_grant_serves_at_once_what_only_the_order_held_back(desk: Desk) -> None:
    desk.reserve(units=2)
    desk.wait(reserve("db", "w3", units=2))
    waiter, escalation = asked(desk, reserve("ask", "w4"))
    decide(desk, escalation, Decision.GRANT)
    assert desk.granted(waiter).units == 1


def test_grant_goes_first_in_a_fair_queue_too() -> None:
    pools = {
        "conns": PoolRule(capacity=1, is_fair=True),
        "tweets": PoolRule(limit=LimitRule(windows={100 * SECOND: 3})),
    }
    desk = desk_of(pools=pools)
    held = desk.reserve(worker="w9")
    others = [desk.wait(reserve("db", worker)) for worker in ("w1", "w2", "w3")]
    waiter, escalation = asked(desk, reserve("ask", "w9"))
    decide(desk, escalation, Decision.GRANT)
    desk.give_back(held)
    assert desk.granted(waiter) is not None
    assert not any(desk.granted(other) for other in others)


def test_one_that_is_away_keeps_the_place_it_was_put_in(desk: Desk) -> None:
    held = desk.lock()
    desk.wait(lock("w3", priority=CRITICAL))
    command = lock(on_conflict=ESCALATE, request_id="r")
    waiter, escalation = asked(desk, command)
    desk.leave(waiter)
    decide(desk, escalation, Decision.GRANT)
    desk.restart()
    assert desk.wait(command) == waiter
    desk.release(held)
    assert desk.granted(waiter) is not None


def test_a_bundle_is_put_first_with_all_that_is_set_aside_for_it(desk: Desk) -> None:
    desk.lock()
    held = desk.reserve("db", units=3)
    bundle = AcquireBundle(
        worker="w2",
        locks=(RequestLock(item="a", kind="like", worker="w2"),),
        reservations=(ReserveResource(type="db", units=3, worker="w2"),),
        wait_ns=HOUR,
        on_conflict=ESCALATE,
    )
    _, escalation = asked(desk, bundle)
    desk.advance(30 * SECOND)
    before_it = desk.wait(reserve("db", "w3", priority=CRITICAL))
    decide(desk, escalation, Decision.GRANT)
    desk.give_back(held)
    assert desk.granted(before_it) is None
    assert desk.refused(reserve("db", "w4", wait_ns=0)).reason == Reason.QUEUED_AHEAD


def test_deny_refuses_the_waiter(desk: Desk) -> None:
    desk.lock()
    waiter, escalation = asked(desk, lock(on_conflict=ESCALATE, request_id="r"))
    decide(desk, escalation, Decision.DENY)
    refused = desk.refusal(waiter)
    assert refused is not None
    assert (refused.reason, refused.subject) == (Reason.ESCALATION_DENIED, "a")
    assert told(desk)[-1] == (False, Decision.DENY, "boss")
    # Its id is free again: it was never granted anything.
    assert desk.wait(lock(request_id="r")) != waiter


def test_wait_lets_it_wait_and_be_escalated_again(desk: Desk) -> None:
    desk.lock()
    waiter, escalation = asked(desk, lock(kind="ask"))
    desk.advance(SECOND)
    decide(desk, escalation, Decision.WAIT)
    desk.advance(30 * SECOND - 1)
    assert not desk.machine.escalations()
    desk.advance(1)
    [again] = desk.machine.escalations()
    assert (again.waiter_id, again.waited_ns) == (waiter, 31 * SECOND)


def test_wait_without_a_time_to_escalate_is_for_good(desk: Desk) -> None:
    desk.lock(ttl_ns=2 * HOUR)
    _, escalation = asked(desk)
    decide(desk, escalation, Decision.WAIT)
    desk.advance(HOUR - 1)
    assert not desk.machine.escalations()


# -- the default ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", Decision)
def test_the_default_holds_at_its_time_to_the_ns(default: Decision) -> None:
    desk = desk_of(default=default)
    desk.lock()
    waiter, _ = asked(desk)
    desk.advance(TIMEOUT - 1)
    assert len(told(desk)) == 1
    desk.advance(1)
    assert told(desk)[1:] == [(False, default, BY_DEFAULT)]
    assert (desk.refusal(waiter) is not None) == (default == Decision.DENY)
    assert bool(of(Preempted, desk)) == (default == Decision.PREEMPT)


def test_a_default_that_can_not_be_done_is_to_wait() -> None:
    desk = desk_of(default=Decision.PREEMPT)
    desk.reserve(units=3)
    waiter, _ = asked(desk, reserve("ask"))
    desk.advance(TIMEOUT)
    assert told(desk)[-1] == (False, Decision.WAIT, BY_DEFAULT)
    assert desk.machine.place(waiter, desk.now) is not None


def test_a_wait_that_ends_at_that_instant_ends() -> None:
    desk = desk_of(default=Decision.GRANT)
    desk.lock()
    waiter, _ = asked(desk, lock(on_conflict=ESCALATE, wait_ns=TIMEOUT))
    desk.advance(TIMEOUT)
    refused = desk.refusal(waiter)
    assert refused is not None
    assert refused.reason == Reason.WAIT_TIMEOUT
    assert told(desk)[-1] == (False, 0, "")


def test_a_wait_whose_end_was_brought_forward_ends_before_the_default() -> None:
    desk = desk_of(default=Decision.DENY)
    desk.lock()
    command = lock(on_conflict=ESCALATE, request_id="r")
    waiter, escalation = asked(desk, command)
    desk.do(lock(on_conflict=ESCALATE, request_id="r", wait_ns=TIMEOUT))
    desk.now += TIMEOUT
    desk.machine._decisions.due(desk.machine._escalations.all()[0], desk.now)
    desk.notices += desk.machine.take_notices()
    refused = desk.refusal(waiter)
    assert refused is not None
    assert refused.reason == Reason.WAIT_TIMEOUT
    assert told(desk)[-1] == (False, 0, "")
    assert escalation.id


# -- preemption ----------------------------------------------------------------------------------------------


def preempted(desk: Desk, **more: Any) -> tuple[Any, int]:
    """Let a lock be taken from w1 for a waiter; return the lock and the waiter."""
    held = desk.lock(**more)
    waiter, escalation = asked(desk)
    decide(desk, escalation, Decision.PREEMPT)
    return held, waiter


def test_a_preempted_holder_is_told_and_has_its_grace_and_then_the_lease_is_taken(desk: Desk) -> None:
    held, waiter = preempted(desk)
    ends_at = desk.now + GRACE
    assert [(notice.grant, notice.at) for notice in of(Preempted, desk)] == [(held, ends_at)]
    desk.advance(GRACE - 1)
    assert desk.granted(waiter) is None
    desk.advance(1)
    assert [notice.at for notice in of(Preempted, desk)] == [ends_at, ends_at]
    assert not of(Expired, desk)
    # Nothing rests: the next has it at once.
    assert desk.granted(waiter).granted_at == ends_at
    [engagement] = [e for e in desk.machine._locks.engagements() if e.token == held.token]
    assert (engagement.outcome, engagement.ended_by) == (Outcome.UNKNOWN, EndedBy.PREEMPTION)


def test_a_preempted_token_is_dead(desk: Desk) -> None:
    held, waiter = preempted(desk)
    desk.advance(GRACE)
    assert desk.granted(waiter).token > held.token
    assert desk.error(RenewLock(item="a", worker="w1", token=held.token)) == "LEASE_LOST"
    assert desk.error(ReleaseLock(item="a", worker="w1", token=held.token, outcome=1)) == "LEASE_LOST"


def test_what_the_holder_reports_within_its_grace_counts(desk: Desk) -> None:
    held, waiter = preempted(desk)
    desk.advance(GRACE - 1)
    assert desk.release(held).engagement.outcome == Outcome.SUCCESS
    assert desk.granted(waiter).granted_at == desk.now
    assert len(of(Preempted, desk)) == 1


def test_a_preempted_lease_can_be_renewed_up_to_its_end_and_no_further(desk: Desk) -> None:
    held, _ = preempted(desk, ttl_ns=2 * SECOND)
    assert held.expires_at == desk.now + 2 * SECOND
    desk.advance(SECOND)
    renewed = desk.do(RenewLock(item="a", worker="w1", token=held.token, ttl_ns=HOUR))
    assert renewed.grant.expires_at == held.preempt_at == desk.now + 4 * SECOND
    desk.advance(4 * SECOND)
    assert of(Preempted, desk)[-1].at == desk.now


def test_a_holder_that_lets_it_lapse_before_may_still_be_acting(desk: Desk) -> None:
    _, waiter = preempted(desk, ttl_ns=2 * SECOND)
    desk.advance(2 * SECOND)
    assert len(of(Expired, desk)) == 1
    assert desk.granted(waiter) is None
    desk.advance(15 * SECOND)
    assert desk.granted(waiter) is not None


def test_a_kind_with_an_interval_refuses_the_waiter_after_an_unknown(desk: Desk) -> None:
    desk.lock(kind="reply")
    waiter, escalation = asked(desk, lock(kind="reply", on_conflict=ESCALATE))
    decide(desk, escalation, Decision.PREEMPT)
    desk.advance(GRACE)
    refused = desk.refusal(waiter)
    assert refused is not None
    assert (refused.reason, refused.retry_at) == (Reason.RECENTLY_ENGAGED, desk.now + HOUR)


def test_the_waiter_it_is_taken_for_goes_first(desk: Desk) -> None:
    desk.lock()
    other = desk.wait(lock("w3", priority=CRITICAL))
    waiter, escalation = asked(desk)
    decide(desk, escalation, Decision.PREEMPT)
    desk.advance(GRACE)
    assert desk.granted(waiter) is not None
    assert desk.granted(other) is None


def test_one_that_is_preempted_twice_is_told_once_and_has_one_grace(desk: Desk) -> None:
    held, _ = preempted(desk)
    desk.advance(SECOND)
    _, escalation = asked(desk, lock("w3", on_conflict=ESCALATE))
    decide(desk, escalation, Decision.PREEMPT)
    assert held.preempt_at == desk.now + GRACE - SECOND
    assert len(of(Preempted, desk)) == 1


def test_an_exclusive_resource_is_taken_with_its_units(desk: Desk) -> None:
    held = desk.reserve("db", resource_id="x", units=3)
    waiter, escalation = asked(desk, reserve("db", resource_id="x", on_conflict=ESCALATE))
    assert (escalation.subject, escalation.holder_id) == ("db/x", held.id)
    decide(desk, escalation, Decision.PREEMPT)
    desk.advance(SECOND)
    renewed = desk.do(RenewReservation(id=held.id, worker="w1"))
    assert renewed.grant.expires_at == held.preempt_at
    desk.advance(GRACE)
    assert desk.granted(waiter).resource_id == "x"
    assert [notice.grant for notice in of(Preempted, desk)] == [held, held]
    assert desk.error(RenewReservation(id=held.id, worker="w1")) == "LEASE_LOST"


def not_preemptible(desk: Desk, escalation: Escalation) -> bool:
    command = ResolveEscalation(id=escalation.id, decision=Decision.PREEMPT, decided_by="boss")
    return desk.error(command) == "NOT_PREEMPTIBLE"


def test_units_that_several_may_hold_can_not_be_taken(desk: Desk) -> None:
    desk.reserve(units=3)
    _, escalation = asked(desk, reserve("ask"))
    assert not_preemptible(desk, escalation)


def test_units_that_refill_can_not_be_taken(desk: Desk) -> None:
    desk.reserve("post", resource_id="x")
    _, escalation = asked(desk, reserve("post", resource_id="x", on_conflict=ESCALATE))
    assert escalation.holder == "w1"
    assert not_preemptible(desk, escalation)


def test_an_item_that_rests_has_no_holder(desk: Desk) -> None:
    desk.lock(ttl_ns=SECOND)
    desk.advance(SECOND)
    _, escalation = asked(desk)
    assert (escalation.holder, escalation.holder_id) == ("", 0)
    assert not_preemptible(desk, escalation)


def test_a_lease_whose_end_has_come_can_not_be_taken(desk: Desk) -> None:
    desk.lock(ttl_ns=SECOND)
    _, escalation = asked(desk)
    desk.now += SECOND
    command = ResolveEscalation(id=escalation.id, decision=Decision.PREEMPT, decided_by="boss")
    with pytest.raises(Exception, match="no one holder"):
        desk.machine.apply(command, desk.now)


def test_of_several_holders_none_can_be_taken() -> None:
    holders: Holders[str] = Holders()
    assert holders.only("k") is None
    holders.add("k", "one")
    assert holders.only("k") == "one"
    holders.add("k", "two")
    assert holders.only("k") is None
    holders.remove("k", "one")
    assert holders.only("k") == "two"


def test_it_can_be_taken_for_one_that_is_away(desk: Desk) -> None:
    desk.lock()
    command = lock(on_conflict=ESCALATE, request_id="r")
    waiter, escalation = asked(desk, command)
    desk.leave(waiter)
    decide(desk, escalation, Decision.PREEMPT)
    desk.advance(GRACE)
    assert desk.granted(waiter) is None
    assert desk.do(command).grant.worker == "w2"


# -- restart -------------------------------------------------------------------------------------------------


def test_open_escalations_outlive_a_restart_with_time_to_decide(desk: Desk) -> None:
    held = desk.lock()
    waiter, escalation = asked(desk, lock(on_conflict=ESCALATE, request_id="r"))
    desk.wait(lock("w3", on_conflict=ESCALATE))
    assert len(desk.machine.escalations()) == 2
    desk.restart(down_ns=HOUR // 4)
    [kept] = desk.machine.escalations()
    assert (kept.id, kept.waiter_id, kept.holder_id) == (escalation.id, waiter, held.token)
    assert kept.decide_by == desk.now + 30 * SECOND
    desk.commit()
    assert list(desk.rows[Table.ESCALATIONS].values()) == desk.machine.snapshot()[Table.ESCALATIONS]
    decide(desk, kept, Decision.DENY)


def test_the_time_to_decide_is_not_shortened_by_a_restart(desk: Desk) -> None:
    desk.lock()
    _, escalation = asked(desk, lock(on_conflict=ESCALATE, request_id="r"))
    desk.restart(down_ns=SECOND)
    assert desk.machine.escalations()[0].decide_by == escalation.decide_by


def test_when_it_is_to_be_escalated_outlives_a_restart(desk: Desk) -> None:
    desk.lock(ttl_ns=HOUR)
    command = lock(kind="slow", request_id="r")
    waiter = desk.wait(command)
    desk.advance(15 * SECOND)
    desk.restart()
    assert desk.wait(command) == waiter
    desk.advance(5 * SECOND - 1)
    assert not desk.machine.escalations()
    desk.advance(1)
    assert len(desk.machine.escalations()) == 1


def test_a_preempted_holder_has_its_grace_anew_after_a_restart(desk: Desk) -> None:
    held, _ = preempted(desk)
    reservation = desk.reserve("file", resource_id="x")
    desk.restart(down_ns=HOUR)
    [lock_] = desk.machine.locks([held.token])
    assert lock_.expires_at == lock_.preempt_at == desk.now + GRACE
    [other] = desk.machine.reservations([reservation.id])
    assert other.expires_at == desk.now + 30 * SECOND
    desk.advance(GRACE)
    assert [notice.grant for notice in of(Preempted, desk)][-1] is lock_


def test_a_wait_escalated_at_once_is_told_in_order(desk: Desk) -> None:
    desk.lock()
    outcome = desk.do(lock(on_conflict=ESCALATE))
    assert isinstance(outcome, Queued)
    assert isinstance(desk.notices[-1], EscalationChanged)
