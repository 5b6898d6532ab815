from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import ForceRelease, LeaveWait, ReleaseLock, RenewLock, RequestLock
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Expired, LockReleased, Reason
from coordd.core.records import EndedBy, Outcome, Table
from coordd.core.rules import HIGH, KindRule


def wanted(item: str = "a", worker: str = "w2", kind: str = "like", **more: Any) -> RequestLock:
    return RequestLock(item=item, kind=kind, worker=worker, **more)


def history(desk: Desk) -> list[tuple[Any, ...]]:
    """Return what was written to the history, as (token, outcome, ended by)."""
    desk.commit()
    return [(row[0], row[4], row[7]) for row in desk.rows[Table.ENGAGEMENTS].values()]


# -- granting ------------------------------------------------------------------------------------------------


def test_grant_holds_the_item_for_the_kind_s_time_or_the_one_asked_for(desk: Desk) -> None:
    assert desk.lock("a").expires_at == desk.now + MINUTE
    assert desk.lock("b", ttl_ns=7).expires_at == desk.now + 7


def test_held_item_is_refused_to_others_and_to_its_holder(desk: Desk) -> None:
    lock = desk.lock(worker="w1")
    for worker in ("w1", "w2"):
        refused = desk.refused(wanted(worker=worker))
        assert (refused.reason, refused.subject, refused.holder) == (Reason.HELD, "a", "w1")
        assert (refused.retry_at, refused.position) == (lock.expires_at, 1)


def test_an_item_is_exclusive_whatever_the_kind(desk: Desk) -> None:
    desk.lock(kind="like")
    assert desk.refused(wanted(kind="reply")).reason == Reason.HELD


def test_exclusive_by_kind_an_item_has_one_holder_for_each_kind() -> None:
    desk = Desk(rules_of(is_exclusive_by_kind=True))
    desk.lock(kind="like")
    desk.lock(kind="reply", worker="w2")
    assert desk.refused(wanted(kind="like", worker="w3")).reason == Reason.HELD


def test_unknown_kind_is_an_error(desk: Desk) -> None:
    assert desk.error(wanted(kind="unheard of")) == "UNKNOWN_KIND"
    assert desk.error(wanted(kind="unheard of", wait_ns=MINUTE)) == "UNKNOWN_KIND"


def test_reasons_are_told_in_order(desk: Desk) -> None:
    """RECENTLY_ENGAGED, HELD, LOCK_DELAY, QUEUED_AHEAD."""
    desk.release(desk.lock(kind="reply"))
    desk.lock(kind="like")
    assert desk.refused(wanted(kind="reply")).reason == Reason.RECENTLY_ENGAGED
    assert desk.refused(wanted(kind="like")).reason == Reason.HELD
    held = desk.lock("b", kind="reply")
    waiter = desk.wait(wanted("b", wait_ns=HOUR))
    desk.advance(held.expires_at - desk.now)
    assert desk.refused(wanted("b")).reason == Reason.LOCK_DELAY
    assert desk.machine.place(waiter, desk.now).blocked_by.reason == Reason.LOCK_DELAY  # type: ignore[union-attr]


def test_free_item_is_not_had_past_those_whose_turn_has_not_come_yet(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the release of an item that more wait for than one call serves."""
    monkeypatch.setattr("coordd.core.waits.SERVED_PER_CALL_MAX", 1)
    lock = desk.lock(kind="reply")
    for number in range(2):
        desk.wait(wanted(kind="reply", worker=f"w{number}", wait_ns=HOUR))
    desk.release(lock)
    refused: Any = desk.machine.apply(wanted("a", kind="like"), desk.now)
    assert (refused.reason, refused.position) == (Reason.QUEUED_AHEAD, 2)


# -- the end of a lock ---------------------------------------------------------------------------------------


def test_release_frees_the_item_and_writes_the_outcome(desk: Desk) -> None:
    lock = desk.lock()
    released = desk.release(lock, Outcome.FAILURE)
    assert not released.is_repeat
    assert (released.engagement.outcome, released.engagement.at) == (Outcome.FAILURE, desk.now)
    assert desk.lock(worker="w2").token > lock.token


def test_every_end_of_a_lock_writes_exactly_one_engagement(desk: Desk) -> None:
    released, forced, expired = desk.lock("a"), desk.lock("b"), desk.lock("c")
    desk.release(released)
    desk.do(ForceRelease(id=forced.token, reason="stuck"))
    desk.advance(MINUTE)
    assert sorted(history(desk)) == [
        (released.token, Outcome.SUCCESS, EndedBy.RELEASE),
        (forced.token, Outcome.UNKNOWN, EndedBy.FORCE),
        (expired.token, Outcome.UNKNOWN, EndedBy.EXPIRY),
    ]


def test_release_is_idempotent_and_the_first_outcome_counts(desk: Desk) -> None:
    lock = desk.lock()
    desk.release(lock, Outcome.SUCCESS)
    again: LockReleased = desk.release(lock, Outcome.FAILURE)
    assert again.is_repeat
    assert again.engagement.outcome == Outcome.SUCCESS
    assert len(history(desk)) == 1


def test_release_that_is_remembered_no_longer_is_too_late(desk: Desk) -> None:
    lock = desk.lock()
    desk.release(lock)
    desk.advance(10 * MINUTE)
    assert desk.error(ReleaseLock(item="a", worker="w1", token=lock.token, outcome=1)) == "LEASE_LOST"


@pytest.mark.parametrize("changes", [{"worker": "w2"}, {"item": "b"}])
def test_only_the_holder_releases_by_item_and_token(desk: Desk, changes: dict[str, str]) -> None:
    lock = desk.lock()
    foreign: dict[str, Any] = {"item": "a", "worker": "w1"} | changes
    command = ReleaseLock(token=lock.token, outcome=1, **foreign)
    assert desk.error(command) == "NOT_HOLDER"
    assert desk.error(RenewLock(token=lock.token, **foreign)) == "NOT_HOLDER"
    desk.release(lock)
    assert desk.error(command) == "NOT_HOLDER"


def test_token_that_was_never_given_is_not_found(desk: Desk) -> None:
    token = desk.lock().token + 1
    assert desk.error(ReleaseLock(item="a", worker="w1", token=token, outcome=1)) == "UNKNOWN_ID"
    assert desk.error(RenewLock(item="a", worker="w1", token=token)) == "UNKNOWN_ID"


def test_lease_that_ran_out_is_lost(desk: Desk) -> None:
    lock = desk.lock()
    desk.advance(MINUTE)
    assert desk.error(ReleaseLock(item="a", worker="w1", token=lock.token, outcome=1)) == "LEASE_LOST"
    assert desk.error(RenewLock(item="a", worker="w1", token=lock.token)) == "LEASE_LOST"


def test_lease_that_has_run_out_is_lost_even_before_its_tick(desk: Desk) -> None:
    lock = desk.lock()
    command = RenewLock(item="a", worker="w1", token=lock.token)
    with pytest.raises(Exception, match="held no longer"):
        desk.machine.apply(command, lock.expires_at)


def test_id_of_something_else_is_no_token(desk: Desk) -> None:
    permit = desk.permit()
    assert desk.error(ReleaseLock(item="a", worker="w1", token=permit.id, outcome=1)) == "LEASE_LOST"


def test_renewal_counts_from_now_and_keeps_its_length(desk: Desk) -> None:
    lock = desk.lock()
    desk.advance(30 * SECOND)
    desk.do(RenewLock(item="a", worker="w1", token=lock.token))
    assert lock.expires_at == desk.now + MINUTE
    desk.do(RenewLock(item="a", worker="w1", token=lock.token, ttl_ns=5 * SECOND))
    assert lock.expires_at == desk.now + 5 * SECOND
    desk.do(RenewLock(item="a", worker="w1", token=lock.token))
    assert desk.advance(5 * SECOND) == [Expired(grant=lock)]


def test_renewed_lock_outlives_its_first_end(desk: Desk) -> None:
    lock = desk.lock()
    desk.advance(30 * SECOND)
    desk.do(RenewLock(item="a", worker="w1", token=lock.token))
    assert desk.advance(MINUTE - 1) == []
    assert desk.advance(1) == [Expired(grant=lock)]


# -- rests ---------------------------------------------------------------------------------------------------


def test_item_rests_after_a_lapse_and_is_free_after_the_delay() -> None:
    desk = Desk(rules_of(kinds={"like": KindRule(ttl_ns=MINUTE, lock_delay_ns=15 * SECOND)}))
    desk.lock()
    desk.advance(MINUTE)
    refused = desk.refused(wanted())
    assert (refused.reason, refused.retry_at) == (Reason.LOCK_DELAY, desk.now + 15 * SECOND)
    assert desk.machine.item("a", "like", desk.now).delayed_until == refused.retry_at
    desk.advance(15 * SECOND - 1)
    desk.refused(wanted())
    desk.advance(1)
    desk.lock(worker="w2")


def test_without_a_delay_or_after_a_release_or_a_forced_one_an_item_does_not_rest(desk: Desk) -> None:
    desk.lock("a", kind="like")
    desk.advance(MINUTE)
    desk.lock("a")
    desk.release(desk.lock("b", kind="reply"), Outcome.FAILURE)
    desk.lock("b", kind="reply")
    desk.do(ForceRelease(id=desk.lock("c", kind="reply").token, reason="stuck"))
    desk.lock("c", kind="like")


def test_end_of_a_rest_serves_the_next() -> None:
    desk = Desk(rules_of(kinds={"like": KindRule(ttl_ns=MINUTE, lock_delay_ns=15 * SECOND)}))
    desk.lock()
    waiter = desk.wait(wanted(wait_ns=HOUR))
    desk.advance(75 * SECOND - 1)
    assert desk.granted(waiter) is None
    desk.advance(1)
    assert desk.granted(waiter).granted_at == desk.now


def test_rest_outlives_a_restart() -> None:
    desk = Desk(rules_of(kinds={"like": KindRule(ttl_ns=MINUTE, lock_delay_ns=15 * SECOND)}))
    desk.lock()
    desk.advance(MINUTE)
    until = desk.now + 15 * SECOND
    desk.restart(down_ns=5 * SECOND)
    assert desk.refused(wanted()).retry_at == until
    desk.advance(until - desk.now)
    desk.lock(worker="w2")


def test_the_longest_of_several_rests_counts() -> None:
    """After a restart with a longer delay than before, an item may have lapsed twice within it."""
    lapsing = {
        "like": KindRule(ttl_ns=SECOND, lock_delay_ns=0),
        "reply": KindRule(ttl_ns=SECOND, lock_delay_ns=0),
    }
    desk = Desk(rules_of(kinds=lapsing))
    desk.lock(kind="like")
    desk.advance(SECOND)
    until = desk.now + MINUTE
    desk.lock(kind="reply")
    desk.advance(SECOND)
    delaying = {
        "like": KindRule(ttl_ns=SECOND, lock_delay_ns=MINUTE),
        "reply": KindRule(ttl_ns=SECOND, lock_delay_ns=2 * SECOND),
    }
    desk.restart(rules_of(kinds=delaying))
    assert desk.refused(wanted()).retry_at == until
    desk.advance(HOUR)
    desk.lock()


# -- the minimum interval ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.UNKNOWN])
def test_item_is_not_engaged_again_within_the_interval(desk: Desk, outcome: Outcome) -> None:
    desk.release(desk.lock(kind="reply"), outcome)
    refused = desk.refused(wanted(kind="reply", wait_ns=HOUR))
    assert (refused.reason, refused.holder) == (Reason.RECENTLY_ENGAGED, "w1")
    assert (refused.retry_at, refused.position) == (desk.now + HOUR, 0)
    desk.advance(HOUR - 1)
    desk.refused(wanted(kind="reply"))
    desk.advance(1)
    desk.lock(kind="reply")


def test_failure_leaves_the_item_free_but_does_not_undo_what_was_done_before(desk: Desk) -> None:
    desk.release(desk.lock("a", kind="reply"), Outcome.FAILURE)
    desk.release(desk.lock("a", kind="reply"), Outcome.SUCCESS)
    desk.release(desk.lock("a", kind="reply", quality=1.0), Outcome.FAILURE)
    assert desk.refused(wanted(kind="reply")).reason == Reason.RECENTLY_ENGAGED


def test_interval_is_the_kind_s_own(desk: Desk) -> None:
    desk.release(desk.lock(kind="reply"))
    desk.lock(kind="like")


def test_quality_bypasses_a_success_and_never_an_unknown(desk: Desk) -> None:
    desk.release(desk.lock(kind="reply"), Outcome.SUCCESS)
    desk.refused(wanted(kind="reply", quality=0.89))
    bypassing = desk.lock(kind="reply", quality=0.9)
    desk.release(bypassing, Outcome.UNKNOWN)
    assert desk.refused(wanted(kind="reply", quality=1.0)).reason == Reason.RECENTLY_ENGAGED


def test_lapse_counts_as_engaged_even_for_the_best(desk: Desk) -> None:
    desk.lock(kind="reply")
    desk.advance(2 * MINUTE)
    assert desk.refused(wanted(kind="reply", quality=1.0)).reason == Reason.RECENTLY_ENGAGED


def test_latest_engagement_counts(desk: Desk) -> None:
    desk.release(desk.lock(kind="reply"))
    desk.advance(30 * MINUTE)
    desk.release(desk.lock(kind="reply", worker="w2", quality=1.0))
    desk.advance(30 * MINUTE)
    refused = desk.refused(wanted(kind="reply"))
    assert (refused.holder, refused.retry_at) == ("w2", desk.now + 30 * MINUTE)


def test_interval_outlives_a_restart(desk: Desk) -> None:
    desk.release(desk.lock(kind="reply"))
    until = desk.now + HOUR
    desk.restart(down_ns=30 * MINUTE)
    assert desk.refused(wanted(kind="reply")).retry_at == until


def test_interval_that_is_over_by_now_is_over_even_before_its_tick() -> None:
    """A late tick ends a lock first, and may come after the end of an interval that it forgets later."""
    kinds = {
        "reply": KindRule(ttl_ns=MINUTE, lock_delay_ns=0, min_interval_ns=MINUTE),
        "like": KindRule(ttl_ns=59 * SECOND, lock_delay_ns=0),
    }
    desk = Desk(rules_of(kinds=kinds))
    first = desk.lock(kind="reply")
    for worker in ("w2", "w3"):
        desk.wait(wanted(worker=worker, priority=HIGH, wait_ns=HOUR))
    waiter = desk.wait(wanted(kind="reply", worker="w4", wait_ns=HOUR))
    desk.release(first)
    desk.now += 61 * SECOND
    desk.do(LeaveWait(id=0))
    assert desk.refusal(waiter) is None
    desk.advance(59 * SECOND)
    assert desk.granted(waiter)


def test_waiter_whose_item_was_engaged_is_refused_since_waiting_is_no_use(desk: Desk) -> None:
    lock = desk.lock(kind="reply")
    reply = desk.wait(wanted(kind="reply", wait_ns=HOUR))
    like = desk.wait(wanted(kind="like", worker="w3", wait_ns=HOUR))
    desk.release(lock)
    refusal = desk.refusal(reply)
    assert refusal is not None
    assert (refusal.reason, refusal.position) == (Reason.RECENTLY_ENGAGED, 0)
    assert desk.granted(like)


# -- recovery and views --------------------------------------------------------------------------------------


def test_recovered_lock_holds_its_item_and_can_be_released(desk: Desk) -> None:
    lock = desk.lock(request_id="r1")
    desk.restart()
    assert desk.refused(wanted()).holder == "w1"
    assert desk.lock(request_id="r1").token == lock.token
    assert desk.release(lock).engagement.token == lock.token


def test_recovered_engagement_still_answers_a_release_sent_twice(desk: Desk) -> None:
    lock = desk.lock()
    desk.release(lock)
    desk.restart()
    assert desk.release(lock).is_repeat


def test_locks_taken_by_kind_both_run_on_where_they_are_exclusive_by_item_since() -> None:
    desk = Desk(rules_of(is_exclusive_by_kind=True))
    like, reply = desk.lock(kind="like"), desk.lock(kind="reply", worker="w2")
    desk.restart(rules_of())
    assert desk.refused(wanted(worker="w3")).reason == Reason.HELD
    desk.release(like)
    desk.release(reply)
    desk.lock(worker="w3")


def test_history_that_is_needed_covers_memory_intervals_and_rests() -> None:
    assert Desk().machine.history_ns == HOUR
    assert Desk(rules_of(kinds={})).machine.history_ns == 10 * MINUTE
    kinds = {"like": KindRule(lock_delay_ns=2 * HOUR, min_interval_ns=HOUR)}
    assert Desk(rules_of(kinds=kinds)).machine.history_ns == 2 * HOUR


def test_view_says_who_holds_and_how_many_wait(desk: Desk) -> None:
    lock = desk.lock()
    desk.wait(wanted(wait_ns=HOUR))
    view = desk.machine.item("a", "", desk.now)
    assert (view.lock, view.delayed_until, view.waiters) == (lock, 0, 1)
    assert desk.machine.item("b", "like", desk.now).lock is None


def test_view_of_an_unknown_kind_is_an_error(desk: Desk) -> None:
    with pytest.raises(Exception, match="not configured"):
        desk.machine.item("a", "unheard of", desk.now)


def test_estimate_comes_from_hold_times_as_they_were_seen(desk: Desk) -> None:
    desk.lock()
    first = desk.wait(wanted(worker="w2", wait_ns=HOUR))
    assert wait_of(desk, first) is None
    seen = desk.lock("b")
    desk.advance(8 * SECOND)
    desk.release(seen)
    second = desk.wait(wanted(worker="w3", wait_ns=HOUR))
    assert (wait_of(desk, first), wait_of(desk, second)) == (0, 8 * SECOND)
    desk.advance(52 * SECOND)
    assert (wait_of(desk, second), desk.granted(first).worker) == (8 * SECOND, "w2")


def test_estimate_knows_the_rest(desk: Desk) -> None:
    seen = desk.lock("b", kind="reply")
    desk.advance(8 * SECOND)
    desk.release(seen)
    desk.lock(kind="reply", quality=1.0)
    waiter = desk.wait(wanted(kind="like", wait_ns=HOUR))
    desk.machine._ledger.observe_hold("lock/like", 8 * SECOND)
    desk.advance(MINUTE + 5 * SECOND)
    assert wait_of(desk, waiter) == 10 * SECOND


def wait_of(desk: Desk, waiter: int) -> int | None:
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    return place.wait_ns
