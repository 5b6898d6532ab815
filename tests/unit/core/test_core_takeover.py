"""Other rules while the machine goes on: whoever holds or waits notices no more than he must."""

from typing import Any

from core_desk import Desk, rules_of

from coordd.core.commands import (
    KeepSession,
    LeaveWait,
    OpenSession,
    RequestLock,
    ReserveResource,
    TakePermit,
    UpdatePool,
)
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import (
    EscalationChanged,
    Expired,
    LeasesExpiring,
    Reason,
    WaitGranted,
    WaitRefused,
    WaitVoided,
)
from coordd.core.records import Table
from coordd.core.rules import DENY, ESCALATE, KindRule, LimitRule, PoolRule, Rules, TypeRule


def reload(desk: Desk, rules: Rules) -> list[Any]:
    """Put other rules in force; return what is told then."""
    desk.commit()
    history = sorted(desk.rows[Table.ENGAGEMENTS].values(), key=lambda row: (row[5], row[0]))
    stored = {Table.CELLS: list(desk.rows[Table.CELLS].values()), Table.ENGAGEMENTS: history}
    desk.machine.reload(rules, stored, desk.now)
    told = desk.machine.take_notices()
    desk.notices += told
    return told


def wants(worker: str, **more: Any) -> RequestLock:
    return RequestLock(item="a", kind="like", worker=worker, wait_ns=HOUR, **more)


def test_the_same_rules_change_nothing_at_all() -> None:
    desk = Desk()
    desk.lock(request_id="r")
    desk.permit()
    desk.reserve(units=2)
    for worker, request_id in (("w2", ""), ("w3", "r")):
        desk.do(wants(worker, request_id=request_id))
    before, next_at = desk.machine.digest(), desk.machine.next_deadline()
    assert reload(desk, rules_of()) == []
    assert desk.machine.digest() == before
    assert desk.machine.next_deadline() == next_at
    assert not desk.machine.has_changes


def test_leases_are_not_extended_and_ids_go_on() -> None:
    desk = Desk()
    lock = desk.lock()
    desk.advance(50 * SECOND)
    reload(desk, rules_of(recovery_grace_ns=HOUR))
    assert desk.lock("b").token == lock.token + 1
    assert [type(notice) for notice in desk.advance(10 * SECOND)] == [Expired]


def test_who_waits_is_there_still_with_and_without_a_request_id_and_who_is_away_stays_away() -> None:
    desk = Desk()
    lock = desk.lock()
    away = desk.do(wants("w2", request_id="r"))
    desk.do(LeaveWait(id=away.id))
    first, second = desk.do(wants("w3")), desk.do(wants("w4", request_id="r"))
    reload(desk, rules_of(request_memory_ns=HOUR))
    assert desk.machine.place(away.id, desk.now) is None
    assert [desk.machine.place(each.id, desk.now).position for each in (first, second)] == [1, 2]
    assert desk.machine.counts().waiters_away == 1
    desk.release(lock)
    [granted] = [notice for notice in desk.notices if isinstance(notice, WaitGranted)]
    assert granted.waiter.id == first.id


def test_what_there_is_more_of_is_given_at_once() -> None:
    desk = Desk()
    desk.reserve(units=3)
    desk.do(ReserveResource(type="db", worker="w2", units=2, wait_ns=HOUR))
    told = reload(desk, rules_of(pools={"conns": PoolRule(capacity=5), "tweets": PoolRule(capacity=1)}))
    assert [type(notice) for notice in told] == [WaitGranted]


def test_who_waits_for_what_is_unknown_or_too_much_now_is_told_what_a_newcomer_is_told() -> None:
    desk = Desk()
    desk.lock()
    desk.reserve(units=3)
    desk.do(wants("w2", request_id="r"))
    desk.do(ReserveResource(type="db", worker="w3", units=3, wait_ns=HOUR))
    pools = {"conns": PoolRule(capacity=2), "tweets": PoolRule(capacity=1)}
    told = reload(desk, rules_of(kinds={"reply": KindRule()}, pools=pools))
    assert [(type(notice), notice.error.reason) for notice in told] == [
        (WaitVoided, "UNKNOWN_KIND"),
        (WaitVoided, "UNITS_ABOVE_CAPACITY"),
    ]
    assert desk.machine.counts().waiters == 0
    desk.commit()
    assert not desk.rows[Table.WAITERS]
    # And its request id is free.
    assert desk.refused(RequestLock(item="a", kind="reply", worker="w2", request_id="r")).holder == "w1"


def test_where_nobody_may_wait_any_more_who_waits_is_refused() -> None:
    desk = Desk()
    desk.lock()
    desk.do(wants("w2"))
    [refused] = reload(desk, rules_of(kinds={"like": KindRule(on_conflict=DENY)}))
    assert isinstance(refused, WaitRefused)
    assert refused.refused.reason is Reason.HELD


def test_a_session_is_late_when_it_would_have_been_and_what_it_keeps_is_renewed() -> None:
    desk = Desk(rules_of(session_ttl_ns=30 * SECOND))
    session = desk.do(OpenSession(worker="w1"))
    lock = desk.lock()
    desk.advance(12 * SECOND)
    reload(desk, rules_of(session_ttl_ns=30 * SECOND, recovery_grace_ns=HOUR))
    late = desk.advance(9 * SECOND)
    assert [type(notice) for notice in late] == [LeasesExpiring]
    reload(desk, rules_of(session_ttl_ns=30 * SECOND, recovery_grace_ns=HOUR))
    assert desk.advance(SECOND) == []
    kept = desk.do(KeepSession(worker="w1", id=session.session.id))
    assert kept.held == (lock.token,)


def test_an_escalation_keeps_its_time() -> None:
    kinds = {"like": KindRule(on_conflict=ESCALATE)}
    desk = Desk(rules_of(kinds=kinds, escalation_timeout_ns=10 * SECOND))
    desk.lock()
    desk.do(wants("w2"))
    desk.advance(8 * SECOND)
    reload(desk, rules_of(kinds=kinds, escalation_timeout_ns=10 * SECOND, recovery_grace_ns=HOUR))
    assert len(desk.machine.escalations()) == 1
    assert EscalationChanged in map(type, desk.advance(2 * SECOND))


def test_a_longer_interval_holds_for_what_was_done_before() -> None:
    """Also for what the old rules had forgotten: more of the history is read."""
    desk = Desk(rules_of(kinds={"like": KindRule(min_interval_ns=MINUTE)}, request_memory_ns=SECOND))
    desk.release(desk.lock())
    desk.advance(HOUR)
    desk.release(desk.lock("b"))
    desk.advance(2 * MINUTE)
    reload(desk, rules_of(kinds={"like": KindRule(min_interval_ns=2 * HOUR)}, request_memory_ns=SECOND))
    assert desk.refused(RequestLock(item="a", kind="like", worker="w2")).reason is Reason.RECENTLY_ENGAGED


def test_calls_of_an_endpoint_that_was_gone_count_when_it_comes_back() -> None:
    desk = Desk()
    desk.report(desk.permit("one"))
    with_it = rules_of()
    reload(desk, rules_of(limits={"search": with_it.limits["search"]}))
    desk.commit()
    reload(desk, with_it)
    assert desk.refused(TakePermit(endpoint="one", worker="w2")).reason is Reason.WINDOW_FULL


def test_an_operators_change_is_kept_until_the_file_says_something_new() -> None:
    desk = Desk()
    desk.do(UpdatePool(name="conns", capacity=1, windows={}))
    reload(desk, rules_of(request_memory_ns=HOUR))
    assert desk.machine.pool("conns", desk.now).capacity == 1
    reload(desk, rules_of(pools={"conns": PoolRule(capacity=4), "tweets": PoolRule(capacity=1)}))
    assert desk.machine.pool("conns", desk.now).capacity == 4
    desk.commit()
    assert not desk.rows[Table.OVERRIDES]


def test_rules_are_the_new_ones_everywhere() -> None:
    desk = Desk()
    rules = rules_of(
        kinds={"like": KindRule(ttl_ns=7 * SECOND)},
        types={"db": TypeRule(ttl_ns=8 * SECOND, pool="conns")},
        limits={"new": LimitRule(windows={SECOND: 1})},
    )
    reload(desk, rules)
    assert desk.lock().ttl_ns == 7 * SECOND
    assert desk.reserve().ttl_ns == 8 * SECOND
    assert desk.permit("new").endpoint == "new"
    assert desk.machine.rules is rules
