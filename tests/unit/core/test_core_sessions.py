"""A worker's session: what it keeps, when it is late, and how it ends."""

from typing import Any

import pytest
from core_desk import Desk, rules_of
from msgspec.structs import replace

from coordd.core import sessions
from coordd.core.commands import (
    AcquireBundle,
    CloseSession,
    ForceRelease,
    KeepSession,
    OpenSession,
    ReleaseLock,
    RenewBundle,
    RequestLock,
    ReserveResource,
    TakePermit,
)
from coordd.core.limits import HOUR, LEASES_PER_WARNING_MAX, MINUTE, SECOND
from coordd.core.outcomes import (
    Expired,
    GivenBack,
    LeasesExpiring,
    Notice,
    Reason,
    SessionClosed,
    SessionExpired,
    SessionKept,
    SessionOpened,
)
from coordd.core.records import EndedBy, Outcome, Table


def open_session(desk: Desk, worker: str = "w1", **more: Any) -> SessionOpened:
    opened = desk.do(OpenSession(worker=worker, **more))
    assert isinstance(opened, SessionOpened)
    return opened


def keep(desk: Desk, opened: SessionOpened) -> SessionKept:
    kept = desk.do(KeepSession(worker=opened.session.worker, id=opened.session.id))
    assert isinstance(kept, SessionKept)
    return kept


def close(desk: Desk, opened: SessionOpened) -> SessionClosed:
    closed = desk.do(CloseSession(worker=opened.session.worker, id=opened.session.id))
    assert isinstance(closed, SessionClosed)
    return closed


def of(type_: type, notices: list[Notice]) -> list[Any]:
    return [notice for notice in notices if isinstance(notice, type_)]


# ---- what it keeps


def test_a_kept_session_keeps_locks_and_reservations(desk: Desk) -> None:
    opened = open_session(desk)
    lock, units = desk.lock(), desk.reserve()
    for _ in range(20):
        desk.advance(10 * SECOND)
        keep(desk, opened)
    assert desk.machine.locks([lock.token])
    assert desk.machine.reservations([units.id])
    assert lock.expires_at == units.expires_at == desk.now + MINUTE


def test_each_lease_is_renewed_by_its_own_time_to_live(desk: Desk) -> None:
    opened = open_session(desk)
    short, long = desk.lock(ttl_ns=9 * SECOND), desk.lock("b", ttl_ns=30 * MINUTE)
    desk.advance(3 * SECOND)
    kept = keep(desk, opened)
    assert (short.expires_at, long.expires_at) == (desk.now + 9 * SECOND, desk.now + 30 * MINUTE)
    assert kept == SessionKept(
        held=(short.token, long.token), first_end=desk.now + 9 * SECOND, keepalive_ns=3 * SECOND
    )


def test_without_leases_a_third_of_its_own_time_is_asked_for(desk: Desk) -> None:
    kept = keep(desk, open_session(desk, ttl_ns=12 * SECOND))
    assert kept == SessionKept(held=(), first_end=0, keepalive_ns=4 * SECOND)


def test_what_was_taken_before_it_was_opened_is_not_kept(desk: Desk) -> None:
    left_behind = desk.lock()
    opened = open_session(desk)
    assert opened.kept.held == ()
    desk.advance(30 * SECOND - 1)
    assert not keep(desk, opened).held
    assert left_behind.expires_at == desk.now + 30 * SECOND + 1


def test_what_others_hold_is_not_kept(desk: Desk) -> None:
    opened = open_session(desk)
    desk.lock(worker="w2")
    desk.release(desk.lock("b", worker="w2"))
    assert not keep(desk, opened).held


def test_units_that_refill_and_permits_are_not_kept(desk: Desk) -> None:
    opened = open_session(desk)
    units = desk.reserve("quota", resource_id="tweet")
    permit = desk.permit()
    use_by = units.expires_at, permit.use_by
    desk.advance(SECOND)
    assert not keep(desk, opened).held
    assert (units.expires_at, permit.use_by) == use_by


def test_what_was_given_back_is_not_kept(desk: Desk) -> None:
    opened = open_session(desk)
    desk.release(desk.lock())
    desk.give_back(desk.reserve())
    assert not keep(desk, opened).held


def test_a_preempted_lease_is_not_kept_beyond_its_end(desk: Desk) -> None:
    opened = open_session(desk)
    lock, units = desk.lock(), desk.reserve()
    lock.preempt_at = units.preempt_at = lock.expires_at = units.expires_at = desk.now + 5 * SECOND
    desk.advance(SECOND)
    assert open_session(desk, session_id=opened.session.id).preempted == (lock, units)
    assert keep(desk, opened).first_end == desk.now + 4 * SECOND
    assert lock.expires_at == units.expires_at == desk.now + 4 * SECOND


def test_a_lease_whose_end_has_come_is_not_kept(desk: Desk) -> None:
    opened = open_session(desk)
    desk.lock(ttl_ns=SECOND)
    desk.now += SECOND
    kept = desk.machine.apply(KeepSession(worker="w1", id=opened.session.id), desk.now)
    assert isinstance(kept, SessionKept)
    assert not kept.held


# ---- registering


def test_naming_the_session_resumes_it(desk: Desk) -> None:
    opened = open_session(desk, worker_class="slow", labels='{"a":"b"}')
    lock = desk.lock()
    desk.advance(29 * SECOND)
    again = open_session(desk, session_id=opened.session.id, worker_class="fast", ttl_ns=MINUTE)
    assert again.is_resumed
    assert again.session is opened.session
    assert again.kept.held == (lock.token,)
    assert (again.session.worker_class, again.session.labels, again.session.ttl_ns) == ("fast", "{}", MINUTE)


def test_registering_anew_leaves_the_earlier_leases_to_themselves(desk: Desk) -> None:
    opened = open_session(desk)
    lock = desk.lock()
    desk.advance(SECOND)
    again = open_session(desk)
    assert not again.is_resumed
    assert again.session.id > lock.token > opened.session.id
    assert not again.kept.held
    assert desk.error(KeepSession(worker="w1", id=opened.session.id)) == "SESSION_LOST"
    assert desk.machine.counts().sessions == 1


@pytest.mark.parametrize("is_ticked", [True, False])
def test_a_session_that_is_over_is_not_resumed(desk: Desk, *, is_ticked: bool) -> None:
    opened = open_session(desk)
    if is_ticked:
        desk.advance(30 * SECOND)
    else:
        desk.now += 30 * SECOND
    command = OpenSession(worker="w1", session_id=opened.session.id)
    again = desk.machine.apply(command, desk.now)
    desk.notices += desk.machine.take_notices()
    assert isinstance(again, SessionOpened)
    assert not again.is_resumed
    assert [each.session for each in of(SessionExpired, desk.notices)] == [opened.session]


def test_there_may_be_only_so_many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 1)
    open_session(desk)
    assert desk.error(OpenSession(worker="w2")) == "TOO_MANY_SESSIONS"
    open_session(desk)


def test_weight_is_as_registered_or_the_workers_or_its_classes() -> None:
    rules = rules_of(worker_weights={"w1": 2.5}, worker_class_weights={"fast": 4.0})
    desk = Desk(rules)
    assert open_session(desk, weight_milli=7_000, worker_class="fast").weight_milli == 7_000
    assert open_session(desk, worker_class="fast").weight_milli == 2_500
    assert open_session(desk, "w2", worker_class="fast").weight_milli == 4_000
    assert open_session(desk, "w3", worker_class="no such").weight_milli == 1_000


def test_sessions_are_shown_by_worker(desk: Desk) -> None:
    for worker in ("w2", "w1"):
        open_session(desk, worker)
    desk.lock()
    assert [(view.name, view.held, view.weight_milli) for view in desk.machine.sessions()] == [
        ("w1", 1, 1_000),
        ("w2", 0, 1_000),
    ]


# ---- late


def test_a_late_keepalive_is_told_once(desk: Desk) -> None:
    opened = open_session(desk)
    short = desk.lock(ttl_ns=25 * SECOND)
    desk.lock("b", ttl_ns=MINUTE)
    assert not desk.advance(20 * SECOND - 1)
    [warning] = desk.advance(1)
    assert warning == LeasesExpiring(
        worker="w1",
        ids=(short.token,),
        first_end=short.expires_at,
        session_end=opened.session.expires_at,
    )
    assert not desk.advance(4 * SECOND)
    keep(desk, opened)
    assert not of(LeasesExpiring, desk.advance(16 * SECOND))
    assert of(LeasesExpiring, desk.advance(SECOND))


def test_a_late_keepalive_is_told_without_leases_too(desk: Desk) -> None:
    open_session(desk)
    [warning] = desk.advance(20 * SECOND)
    assert (warning.ids, warning.first_end) == ((), 0)


def test_late_goes_by_the_shortest_lease(desk: Desk) -> None:
    opened = open_session(desk)
    desk.lock(ttl_ns=3 * SECOND)
    keep(desk, opened)
    assert of(LeasesExpiring, desk.advance(2 * SECOND))


def test_a_warning_names_no_more_than_so_many(desk: Desk) -> None:
    opened = open_session(desk)
    for index in range(LEASES_PER_WARNING_MAX + 1):
        desk.lock(f"item {index}", ttl_ns=25 * SECOND + index)
    keep(desk, opened)
    [warning] = of(LeasesExpiring, desk.advance(17 * SECOND))
    assert len(warning.ids) == LEASES_PER_WARNING_MAX
    assert list(warning.ids) == sorted(warning.ids)


# ---- its end


def test_a_session_that_is_not_kept_ends_and_its_leases_run_on(desk: Desk) -> None:
    opened = open_session(desk)
    lock = desk.lock()
    notices = desk.advance(30 * SECOND)
    assert [each.session for each in of(SessionExpired, notices)] == [opened.session]
    assert desk.machine.locks([lock.token])
    assert desk.error(KeepSession(worker="w1", id=opened.session.id)) == "SESSION_LOST"
    assert [each.grant for each in of(Expired, desk.advance(30 * SECOND))] == [lock]


def test_a_session_whose_end_has_come_is_over_before_it_is_ticked(desk: Desk) -> None:
    opened = open_session(desk)
    desk.now += 30 * SECOND
    with pytest.raises(Exception, match="is over"):
        desk.machine.apply(KeepSession(worker="w1", id=opened.session.id), desk.now)


def test_closing_gives_everything_back(desk: Desk) -> None:
    earlier = desk.lock("before")
    opened = open_session(desk)
    lock, units, other = desk.lock(), desk.reserve(units=3), desk.lock("c", worker="w2")
    mine = desk.wait(RequestLock(item="c", kind="like", worker="w1", wait_ns=MINUTE))
    theirs = desk.wait(ReserveResource(type="db", worker="w2", wait_ns=MINUTE))
    permit = desk.permit(count=3)
    closed = close(desk, opened)
    assert closed.released == 2
    assert [each.grant for each in of(GivenBack, desk.notices)] == [lock, units]
    refusal = desk.refusal(mine)
    assert refusal is not None
    assert refusal.reason == Reason.SESSION_CLOSED
    assert desk.granted(theirs)
    assert desk.machine.locks([earlier.token, other.token]) == [earlier, other]
    assert desk.refused(TakePermit(endpoint="search", worker="w1")).reason == Reason.WINDOW_FULL
    assert desk.report(permit, is_sent=False).refunded == 3
    assert desk.error(CloseSession(worker="w1", id=opened.session.id)) == "SESSION_LOST"


def test_waits_of_before_the_session_go_on(desk: Desk) -> None:
    desk.lock(worker="w2")
    waiter = desk.wait(RequestLock(item="a", kind="like", worker="w1", wait_ns=MINUTE))
    close(desk, open_session(desk))
    assert desk.refusal(waiter) is None


def test_a_lock_that_went_back_with_its_session_may_have_been_acted_under(desk: Desk) -> None:
    opened = open_session(desk)
    lock = desk.lock(kind="reply")
    close(desk, opened)
    desk.commit()
    [row] = desk.rows[Table.ENGAGEMENTS].values()
    assert (row[4], row[7]) == (Outcome.UNKNOWN, EndedBy.CLOSE)
    again = RequestLock(item="a", kind="reply", worker="w2")
    assert desk.refused(again).reason == Reason.RECENTLY_ENGAGED
    # Not at rest: who says that it is done is not still acting.
    desk.lock(worker="w2")
    late = ReleaseLock(item="a", worker="w1", token=lock.token, outcome=1)
    assert desk.error(late) == "LEASE_LOST"


def test_what_had_ended_is_not_given_back(desk: Desk) -> None:
    opened = open_session(desk)
    lock = desk.lock(ttl_ns=SECOND)
    desk.now += SECOND
    closed = desk.machine.apply(CloseSession(worker="w1", id=opened.session.id), desk.now)
    assert isinstance(closed, SessionClosed)
    assert closed.released == 0
    assert [each.grant for each in of(Expired, desk.advance(0))] == [lock]


def test_forced_from_its_holder_it_is_not_kept(desk: Desk) -> None:
    opened = open_session(desk)
    desk.do(ForceRelease(id=desk.lock().token, reason="stuck"))
    assert not keep(desk, opened).held


# ---- a restart


def test_a_restart_keeps_sessions_and_what_they_keep(desk: Desk) -> None:
    before = desk.lock("before")
    opened = open_session(desk, labels='{"zone":"a"}', worker_class="fast", weight_milli=3)
    lock, units = desk.lock(), desk.reserve()
    desk.restart(down_ns=MINUTE)
    [view] = desk.machine.sessions()
    assert view.session.row() == (
        *("w1", opened.session.id, "fast", 3, '{"zone":"a"}'),
        *(opened.session.opened_at, desk.now + 30 * SECOND, 30 * SECOND),
    )
    again = open_session(desk, session_id=opened.session.id)
    assert again.is_resumed
    assert set(again.kept.held) == {lock.token, units.id}
    assert desk.machine.locks([before.token])


def test_after_a_restart_a_session_has_time_to_come_back_and_then_ends(desk: Desk) -> None:
    open_session(desk)
    desk.restart(down_ns=MINUTE)
    assert of(LeasesExpiring, desk.advance(20 * SECOND))
    assert of(SessionExpired, desk.advance(10 * SECOND))
    desk.commit()
    assert not desk.rows[Table.SESSIONS]


# ---- bundles


def take_bundle(desk: Desk) -> Any:
    command = AcquireBundle(
        worker="w1",
        locks=(RequestLock(item="a", kind="like", worker="w1", ttl_ns=6 * SECOND),),
        reservations=(ReserveResource(type="db", worker="w1"),),
        permits=(TakePermit(endpoint="search", worker="w1"),),
    )
    return desk.do(command).grant


def test_what_is_in_a_bundle_is_kept(desk: Desk) -> None:
    opened = open_session(desk)
    bundle = take_bundle(desk)
    for _ in range(10):
        desk.advance(5 * SECOND)
        kept = keep(desk, opened)
    lock, units = bundle.held[:2]
    assert kept.held == (lock.token, units.id)
    assert kept.keepalive_ns == 2 * SECOND
    desk.do(RenewBundle(id=bundle.id, worker="w1"))


def test_closing_gives_back_what_is_in_a_bundle_but_for_its_permits(desk: Desk) -> None:
    opened = open_session(desk)
    bundle = take_bundle(desk)
    permit = bundle.held[2]
    assert close(desk, opened).released == 2
    assert desk.machine.counts().locks == desk.machine.counts().reservations == 0
    assert desk.error(RenewBundle(id=bundle.id, worker="w1")) == "LEASE_LOST"
    assert desk.report(permit, is_sent=False).refunded == 1


def test_a_session_knows_the_waits_that_were_begun_in_it_and_no_others(desk: Desk) -> None:
    desk.lock(worker="w2", ttl_ns=HOUR)
    wait = RequestLock(item="a", kind="like", worker="w1", wait_ns=MINUTE)
    desk.wait(wait)
    session = open_session(desk).session
    kept = desk.wait(replace(wait, request_id="r1"))
    gone = desk.wait(wait)
    desk.wait(replace(wait, worker="w3"))
    assert list(session.waits) == [kept, gone]
    desk.leave(gone)
    desk.leave(kept)
    assert list(session.waits) == [kept]
    desk.restart()
    [session] = [view.session for view in desk.machine.sessions()]
    assert list(session.waits) == [kept]
    desk.do(CloseSession(worker="w1", id=session.id))
    refusal = desk.refusal(kept)
    assert refusal is not None
    assert refusal.reason == Reason.SESSION_CLOSED


def test_when_much_comes_back_at_once_those_who_wait_for_it_are_served_in_several_steps(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.core.machine.QUEUES_PER_STEP_MAX", 2)
    opened = open_session(desk)
    items = ["a", "b", "c", "d"]
    for item in items:
        desk.lock(item)
    waiters = [
        desk.wait(RequestLock(item=item, kind="like", worker="w2", wait_ns=MINUTE)) for item in items[:3]
    ]
    close(desk, opened)
    assert [bool(desk.granted(waiter)) for waiter in waiters] == [True, True, False]
    # It is free, but not for anybody who comes now.
    waits = RequestLock(item="c", kind="like", worker="w3")
    assert desk.machine.apply(waits, desk.now).reason == Reason.QUEUED_AHEAD  # type: ignore[union-attr]
    desk.advance(0)
    assert desk.granted(waiters[2])


def test_a_wait_of_somebody_without_one_is_no_sessions() -> None:
    desk = Desk()
    open_session(desk, "w1")
    desk.lock(worker="w1")
    waiter = desk.wait(RequestLock(item="a", kind="like", worker="w2", wait_ns=HOUR))
    desk.leave(waiter)
    assert desk.machine.counts().waiters == 0
    assert desk.machine.counts().sessions == 1
