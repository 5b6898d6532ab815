from typing import Any

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    AcquireBundle,
    ForceRelease,
    NotEngaged,
    RecordUsage,
    ReleaseBundle,
    ReleaseLock,
    ReleaseResource,
    RenewBundle,
    RenewLock,
    RequestLock,
    ReserveResource,
    TakePermit,
    UpdateLimit,
    UpdatePool,
)
from coordd.core.errors import FailedPrecondition, InvalidArgument
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import BundleEnded, Expired, Granted, Queued, Reason, grant_id
from coordd.core.records import Bundle, Lock, Outcome, Permit, Reservation, Table
from coordd.core.rules import LimitRule
from coordd.core.waiters import ReturnGrant


@pytest.fixture
def desk() -> Desk:
    return Desk(rules_of(engagement_memory_ns=2 * HOUR))


def lock(item: str = "a", kind: str = "like", worker: str = "w1") -> RequestLock:
    return RequestLock(item=item, kind=kind, worker=worker)


def units(count: int = 2, worker: str = "w1") -> ReserveResource:
    return ReserveResource(type="db", units=count, worker=worker)


def permit(endpoint: str = "search", count: int = 1, worker: str = "w1") -> TakePermit:
    return TakePermit(endpoint=endpoint, count=count, worker=worker)


def acquire(*claims: Any, worker: str = "w1", **more: Any) -> AcquireBundle:
    return AcquireBundle(
        worker=worker,
        locks=tuple(claim for claim in claims if isinstance(claim, RequestLock)),
        reservations=tuple(claim for claim in claims if isinstance(claim, ReserveResource)),
        permits=tuple(claim for claim in claims if isinstance(claim, TakePermit)),
        not_engaged=tuple(claim for claim in claims if isinstance(claim, NotEngaged)),
        **more,
    )


def take(desk: Desk, *claims: Any, **more: Any) -> Bundle:
    outcome = desk.do(acquire(*claims, **more))
    assert isinstance(outcome, Granted), outcome
    assert isinstance(outcome.grant, Bundle)
    return outcome.grant


def wait(desk: Desk, *claims: Any, **more: Any) -> int:
    outcome = desk.do(acquire(*claims, **({"wait_ns": HOUR} | more)))
    assert isinstance(outcome, Queued), outcome
    return outcome.id


def usage(of: Permit, *, is_sent: bool = True, endpoint: str = "search", **more: Any) -> RecordUsage:
    return RecordUsage(endpoint=endpoint, worker="w1", id=of.id, is_sent=is_sent, is_success=is_sent, **more)


def is_free(desk: Desk) -> bool:
    counts = desk.machine.counts()
    return (counts.locks, counts.reservations, counts.permits, counts.bundles) == (0, 0, 0, 0)


# ---- all or none


def test_everything_is_granted_at_once_in_the_order_of_the_claims(desk: Desk) -> None:
    bundle = take(desk, permit(), units(), ReserveResource(type="file", resource_id="x", worker="w1"), lock())
    assert [type(member) for member in bundle.held] == [Lock, Reservation, Reservation, Permit]
    ids = [grant_id(member) for member in bundle.held]
    assert ids == sorted(ids)
    assert bundle.id > ids[-1]
    assert all(member.worker == "w1" for member in bundle.held)
    counts = desk.machine.counts()
    assert (counts.locks, counts.reservations, counts.permits, counts.bundles) == (1, 2, 1, 1)
    assert counts.bookings == 0
    # What is not of it ends without it.
    desk.release(desk.lock("z"))
    assert desk.machine.counts().bundles == 1


@pytest.mark.parametrize(
    ("blocker", "reason", "subject"),
    [
        (lock(worker="w2"), Reason.HELD, "a"),
        (units(worker="w2"), Reason.UNITS_TAKEN, "conns"),
        (permit(count=3, worker="w2"), Reason.WINDOW_FULL, "search"),
    ],
)
def test_nothing_is_granted_where_one_thing_is_missing(
    desk: Desk, blocker: Any, reason: Reason, subject: str
) -> None:
    desk.do(blocker)
    refused = desk.refused(acquire(permit(), units(), lock()))
    assert (refused.reason, refused.subject, refused.position) == (reason, subject, 1)


def test_the_first_blocker_is_told_and_the_latest_time_known(desk: Desk) -> None:
    held = desk.lock("a", "w2", ttl_ns=20 * SECOND)
    desk.do(permit(count=3, worker="w2"))
    refused = desk.refused(acquire(permit(), lock()))
    assert (refused.reason, refused.holder) == (Reason.HELD, "w2")
    assert refused.retry_at > held.expires_at


def test_one_for_which_waiting_is_no_use_goes_before_all(desk: Desk) -> None:
    desk.release(desk.lock("b", "w2", kind="reply"))
    desk.lock("a", "w2")
    refused = desk.refused(acquire(lock(), lock("b", "reply"), wait_ns=HOUR))
    assert (refused.reason, refused.subject, refused.position) == (Reason.RECENTLY_ENGAGED, "b", 0)


@pytest.mark.parametrize(
    ("claims", "subject"),
    [
        ((lock(), lock(kind="reply")), "a"),
        ((units(1), units(1)), "conns"),
        ((ReserveResource(type="file", resource_id="x", worker="w1"),) * 2, "file/x"),
        ((permit(), permit(count=2)), "search"),
    ],
)
def test_two_claims_on_one_thing_are_a_mistake(desk: Desk, claims: tuple[Any, ...], subject: str) -> None:
    with pytest.raises(InvalidArgument, match=f"Two claims are on {subject}") as caught:
        desk.do(acquire(*claims))
    assert (caught.value.reason, caught.value.metadata) == ("DUPLICATE_CLAIM", {"subject": subject})
    outcome = Desk(rules_of(is_exclusive_by_kind=True)).do(acquire(lock(), lock(kind="reply")))
    assert isinstance(outcome, Granted)


def test_what_is_unknown_or_too_much_is_an_error_whatever_else_blocks(desk: Desk) -> None:
    desk.lock("a", "w2")
    assert desk.error(acquire(lock(), units(4))) == "UNITS_ABOVE_CAPACITY"
    assert desk.error(acquire(lock(), permit(count=4))) == "PERMITS_ABOVE_LIMIT"
    assert desk.error(acquire(lock(), permit("nowhere"))) == "UNKNOWN_ENDPOINT"
    assert desk.error(acquire(lock(kind="wave"))) == "UNKNOWN_KIND"


# ---- conditions


def test_a_condition_looks_back_at_every_kind_or_some(desk: Desk) -> None:
    desk.release(desk.lock("a", "w2"), Outcome.UNKNOWN)
    engaged_at = desk.now
    desk.advance(MINUTE)
    any_kind = NotEngaged(item="a", within_ns=HOUR)
    refused = desk.refused(acquire(permit(), any_kind, wait_ns=HOUR))
    assert (refused.reason, refused.subject, refused.holder) == (Reason.RECENTLY_ENGAGED, "a", "w2")
    assert (refused.retry_at, refused.position) == (engaged_at + HOUR, 0)
    desk.refused(acquire(permit(), NotEngaged(item="a", kinds=("like",), within_ns=HOUR)))
    take(desk, permit(), NotEngaged(item="a", kinds=("reply",), within_ns=HOUR))
    take(desk, permit(), NotEngaged(item="a", within_ns=MINUTE))
    desk.advance(HOUR - MINUTE - 1)
    desk.refused(acquire(permit(), any_kind))
    desk.advance(1)
    take(desk, permit(), any_kind)


def test_a_failure_is_no_engagement(desk: Desk) -> None:
    desk.release(desk.lock("a", "w2"), Outcome.FAILURE)
    take(desk, permit(), NotEngaged(item="a", within_ns=HOUR))


def test_a_condition_looks_back_no_further_than_the_memory(desk: Desk) -> None:
    take(desk, permit(), NotEngaged(item="a", within_ns=2 * HOUR))
    assert desk.error(acquire(permit(), NotEngaged(item="a", within_ns=2 * HOUR + 1))) == "BEYOND_HISTORY"
    assert desk.error(acquire(permit(), NotEngaged(item="a", kinds=("wave",), within_ns=1))) == "UNKNOWN_KIND"


def test_a_condition_is_remembered_over_a_restart(desk: Desk) -> None:
    desk.release(desk.lock("a", "w2"))
    desk.restart(down_ns=MINUTE)
    desk.refused(acquire(permit(), NotEngaged(item="a", within_ns=HOUR)))


# ---- waiting


def test_a_bundle_waits_for_each_thing_in_turn_and_holds_nothing_meanwhile(desk: Desk) -> None:
    held, slot = desk.lock("a", "w2"), desk.reserve("db", "w2", units=2)
    waiter = wait(desk, lock(), units(2))
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert (place.blocked_by.reason, place.blocked_by.subject) == (Reason.HELD, "a")
    # What it wants and does not wait for, others may take.
    desk.reserve("db", "w3", units=1)
    desk.release(held)
    desk.lock("a", "w3", ttl_ns=SECOND)
    desk.give_back(slot)
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert place.blocked_by.subject == "a"
    desk.advance(SECOND)
    bundle = desk.granted(waiter)
    assert [type(member) for member in bundle.held] == [Lock, Reservation]


def test_one_behind_a_bundle_that_has_moved_on_is_served(desk: Desk) -> None:
    held = desk.lock("a", "w2")
    desk.permit("one", "w2")
    bundle = wait(desk, lock(), permit("one"))
    behind = desk.wait(RequestLock(item="a", kind="like", worker="w3", wait_ns=HOUR))
    desk.release(held)
    assert desk.granted(behind) is not None
    assert desk.granted(bundle) is None


def test_a_condition_that_can_not_hold_any_more_ends_the_wait(desk: Desk) -> None:
    desk.lock("a", "w2")
    failed, other = desk.lock("b", "w3"), desk.lock("c", "w3")
    conditions = (NotEngaged(item="b", within_ns=HOUR), NotEngaged(item="c", within_ns=HOUR))
    waiter = wait(desk, lock(), permit(), *conditions, request_id="r")
    alone = wait(desk, lock("d"), lock(), NotEngaged(item="c", kinds=("reply",), within_ns=HOUR))
    desk.release(failed, Outcome.FAILURE)
    desk.release(desk.lock("e", "w3"))
    assert desk.refusal(waiter) is None
    desk.release(other)
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert (refusal.reason, refusal.subject) == (Reason.RECENTLY_ENGAGED, "c")
    # Of another kind: that condition holds on.
    assert desk.refusal(alone) is None


def test_a_lease_that_runs_out_breaks_a_condition(desk: Desk) -> None:
    desk.lock("a", "w2", ttl_ns=HOUR)
    desk.lock("b", "w3", ttl_ns=SECOND)
    waiter = wait(desk, lock(), NotEngaged(item="b", within_ns=HOUR))
    desk.advance(SECOND)
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert refusal.reason == Reason.RECENTLY_ENGAGED


def test_one_that_is_away_is_told_when_it_comes_back(desk: Desk) -> None:
    desk.lock("a", "w2")
    other = desk.lock("b", "w3")
    command = acquire(lock(), NotEngaged(item="b", within_ns=HOUR), request_id="r", wait_ns=HOUR)
    waiter = desk.do(command).id
    desk.leave(waiter)
    desk.release(other)
    assert desk.refusal(waiter) is None
    assert desk.do(command).reason == Reason.RECENTLY_ENGAGED


def test_an_estimate_is_the_longest_and_none_where_one_is_unknown(desk: Desk) -> None:
    desk.lock("a", "w2")
    desk.do(permit(count=3, worker="w2"))
    waiter = wait(desk, lock(), permit())
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert place.wait_ns is None
    alone = wait(desk, permit(), lock("b"))
    place = desk.machine.place(alone, desk.now)
    assert place is not None
    assert place.wait_ns is not None
    assert place.wait_ns > 100 * SECOND


def test_one_that_can_never_be_granted_any_more_is_refused(desk: Desk) -> None:
    desk.reserve("db", "w2", units=1)
    waiter = wait(desk, units(3))
    desk.do(UpdatePool(name="conns", capacity=2))
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert (refusal.reason, refusal.subject) == (Reason.UNITS_TAKEN, "conns")
    desk.do(permit(count=1, worker="w2"))
    waiter = wait(desk, permit(count=3))
    desk.do(UpdateLimit(endpoint="search", windows={100 * SECOND: 2}))
    refusal = desk.refusal(waiter)
    assert refusal is not None
    assert (refusal.reason, refusal.subject) == (Reason.WINDOW_FULL, "search")


def test_the_place_of_one_that_can_never_be_granted_any_more_has_no_estimate(desk: Desk) -> None:
    desk.release(desk.lock("a", "w2"))
    desk.lock("a", "w2")
    waiter = wait(desk, lock(), units(3))
    desk.do(UpdatePool(name="conns", capacity=2))
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert (place.position, place.wait_ns, place.blocked_by.reason) == (1, None, Reason.UNITS_TAKEN)


# ---- request ids


def test_the_same_request_is_given_the_same_bundle(desk: Desk) -> None:
    bundle = take(desk, lock(), units(), permit(), request_id="r")
    again = desk.do(acquire(permit(), units(), lock(), request_id="r"))
    assert again.is_repeat
    assert again.grant is bundle
    assert desk.error(acquire(lock(), units(1), permit(), request_id="r")) == "REQUEST_ID_REUSED"
    assert desk.error(RequestLock(item="a", kind="like", worker="w1", request_id="r")) == "REQUEST_ID_REUSED"
    desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=1))
    assert desk.error(acquire(lock(), units(), permit(), request_id="r")) == "REQUEST_ENDED"


def test_a_bundle_of_which_a_lease_was_lost_is_not_given_again(desk: Desk) -> None:
    """Simulation, seed 1188: an answer got lost, an operator took the lock, the retry was given the rest."""
    bundle = take(desk, lock(), units(), request_id="r")
    held, _ = bundle.held
    desk.do(ForceRelease(id=held.token, reason="because"))
    before = desk.machine.digest()
    assert desk.error(acquire(lock(), units(), request_id="r")) == "LEASE_LOST"
    assert desk.machine.digest() == before
    desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=1))
    assert desk.error(acquire(lock(), units(), request_id="r")) == "REQUEST_ENDED"


def test_the_same_request_resumes_its_wait(desk: Desk) -> None:
    held = desk.lock("a", "w2")
    waiter = wait(desk, lock(), permit(), request_id="r")
    assert desk.error(acquire(lock(), request_id="r", wait_ns=HOUR)) == "REQUEST_ID_REUSED"
    assert desk.leave(waiter)
    assert wait(desk, lock(), permit(), request_id="r") == waiter
    desk.release(held)
    assert desk.granted(waiter) is not None


# ---- ends


def test_a_release_gives_everything_back(desk: Desk) -> None:
    bundle = take(desk, lock(), lock("b"), units(), permit())
    first, second, _, right = bundle.held
    assert isinstance(right, Permit)
    release = ReleaseBundle(
        id=bundle.id,
        worker="w1",
        outcome=1,
        outcomes={grant_id(second): 2},
        usages=(usage(right, is_sent=False),),
    )
    outcome = desk.do(release)
    assert outcome.bundle is bundle
    assert outcome.refunded == 1
    assert [(e.token, e.outcome) for e in outcome.engagements] == [
        (grant_id(first), 1),
        (grant_id(second), 2),
    ]
    assert is_free(desk)
    assert desk.machine.limit("search", desk.now).windows[0].used == 0
    again = desk.do(release)
    assert (again.bundle, again.refunded) == (None, 0)
    # What was named is told again.
    assert [(e.token, e.outcome) for e in again.engagements] == [(grant_id(second), 2)]
    desk.advance(11 * MINUTE)
    assert desk.do(release).engagements == ()


def test_a_permit_nobody_reports_stays_open_alone(desk: Desk) -> None:
    bundle = take(desk, lock(), permit())
    right = bundle.held[1]
    assert isinstance(right, Permit)
    desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=1))
    counts = desk.machine.counts()
    assert (counts.locks, counts.permits, counts.bundles) == (0, 1, 0)
    assert desk.report(right).permit is right
    assert is_free(desk)


def test_an_outcome_is_needed_only_for_locks_that_are_not_named(desk: Desk) -> None:
    bundle = take(desk, lock(), permit())
    release = ReleaseBundle(id=bundle.id, worker="w1")
    assert desk.error(release) == "INVALID_ENUM"
    desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcomes={grant_id(bundle.held[0]): 1}))
    desk.do(ReleaseBundle(id=take(desk, units()).id, worker="w1"))
    assert desk.machine.counts().bundles == 0


def test_only_its_holder_ends_or_renews_a_bundle_and_only_what_is_its(desk: Desk) -> None:
    bundle, other = take(desk, lock(), permit()), take(desk, lock("b"), permit())
    alone = desk.permit("one")
    right = other.held[1]
    assert isinstance(right, Permit)
    named: dict[str, Any] = {"id": bundle.id, "outcome": 1}
    assert desk.error(ReleaseBundle(worker="w2", **named)) == "NOT_HOLDER"
    assert desk.error(RenewBundle(id=bundle.id, worker="w2")) == "NOT_HOLDER"
    assert desk.error(ReleaseBundle(worker="w1", outcomes={right.id: 1}, **named)) == "NOT_HOLDER"
    assert desk.error(ReleaseBundle(worker="w1", usages=(usage(right),), **named)) == "NOT_HOLDER"
    assert (
        desk.error(ReleaseBundle(worker="w1", usages=(usage(alone, endpoint="one"),), **named))
        == "NOT_HOLDER"
    )
    own = bundle.held[1]
    assert isinstance(own, Permit)
    assert (
        desk.error(ReleaseBundle(worker="w1", usages=(usage(own, endpoint="one"),), **named)) == "NOT_HOLDER"
    )
    nowhere = usage(own, endpoint="nowhere")
    assert desk.error(ReleaseBundle(worker="w1", usages=(nowhere,), **named)) == "UNKNOWN_ENDPOINT"
    assert desk.error(ReleaseBundle(id=2**52, worker="w1")) == "UNKNOWN_ID"
    assert desk.error(ReleaseBundle(worker="w1", outcomes={2**52: 1}, **named)) == "UNKNOWN_ID"
    # Of a bundle that is over nothing can be named that lives.
    desk.do(ReleaseBundle(worker="w1", **named))
    assert desk.error(ReleaseBundle(worker="w1", outcomes={right.id: 1}, **named)) == "NOT_HOLDER"


def test_a_late_report_counts_where_upstream_refuses(desk: Desk) -> None:
    bundle = take(desk, lock(), permit())
    right = bundle.held[1]
    assert isinstance(right, Permit)
    desk.advance(20 * SECOND)
    late = usage(right, status_code=429)
    desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=2, usages=(late,)))
    assert desk.machine.limit("search", desk.now).violations == 1
    assert is_free(desk)


def test_a_renewal_holds_every_lease_for_its_own_time(desk: Desk) -> None:
    long = RequestLock(item="a", kind="like", worker="w1", ttl_ns=HOUR)
    bundle = take(desk, long, units(), ReserveResource(type="post", worker="w1"), permit())
    desk.advance(5 * SECOND)
    assert desk.do(RenewBundle(id=bundle.id, worker="w1")).grant is bundle
    first, second, refilling, right = bundle.held
    assert isinstance(first, Lock)
    assert isinstance(second, Reservation)
    assert isinstance(refilling, Reservation)
    assert isinstance(right, Permit)
    assert first.expires_at == desk.now + HOUR
    assert second.expires_at == desk.now + MINUTE
    assert refilling.expires_at == right.use_by == desk.now + 5 * SECOND
    # Units that refill and permits pass; that is no loss.
    desk.advance(30 * SECOND)
    desk.do(RenewBundle(id=bundle.id, worker="w1"))


def test_a_member_released_singly_is_left_out_and_one_lost_is_missed(desk: Desk) -> None:
    bundle = take(desk, lock(), lock("b"), units())
    first, second, third = bundle.held
    assert isinstance(first, Lock)
    assert isinstance(second, Lock)
    desk.release(first)
    desk.do(RenewLock(item="b", worker="w1", token=second.token, ttl_ns=10 * SECOND))
    assert desk.do(RenewBundle(id=bundle.id, worker="w1")).grant.held == (second, third)
    desk.do(ForceRelease(id=second.token, reason="because"))
    assert desk.error(RenewBundle(id=bundle.id, worker="w1")) == "LEASE_LOST"
    desk.restart()
    assert desk.error(RenewBundle(id=bundle.id, worker="w1")) == "LEASE_LOST"
    outcome = desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=1))
    assert outcome.bundle.id == bundle.id
    assert outcome.engagements == ()
    assert desk.error(RenewBundle(id=bundle.id, worker="w1")) == "LEASE_LOST"


def test_a_lease_whose_end_has_come_is_lost_before_it_is_ticked(desk: Desk) -> None:
    bundle = take(desk, lock(), permit())
    machine, at = desk.machine, desk.now + MINUTE
    desk.advance(MINUTE - 1)
    with pytest.raises(FailedPrecondition, match="held no longer"):
        machine.apply(RenewBundle(id=bundle.id, worker="w1"), at)
    outcome: Any = machine.apply(ReleaseBundle(id=bundle.id, worker="w1", outcome=1), at)
    assert outcome.engagements == ()
    machine.tick(at)
    [notice] = machine.take_notices()[-1:]
    assert isinstance(notice, Expired)
    assert isinstance(notice.grant, Lock)


def test_a_bundle_ends_with_its_last_member(desk: Desk) -> None:
    bundle = take(desk, lock(), units(), permit(), request_id="r")
    first, second, right = bundle.held
    assert isinstance(first, Lock)
    assert isinstance(second, Reservation)
    assert isinstance(right, Permit)
    desk.do(ReleaseLock(item="a", worker="w1", token=first.token, outcome=1))
    desk.do(ReleaseResource(id=second.id, worker="w1"))
    assert desk.machine.counts().bundles == 1
    assert desk.do(acquire(lock(), units(), permit(), request_id="r")).grant.held == (right,)
    desk.report(right)
    assert is_free(desk)
    assert desk.notices == [BundleEnded(bundle=bundle)]
    assert desk.error(acquire(lock(), units(), permit(), request_id="r")) == "REQUEST_ENDED"


def test_a_bundle_runs_out_with_its_last_member(desk: Desk) -> None:
    bundle = take(desk, lock(), units(), permit())
    notices = desk.advance(MINUTE)
    assert all(isinstance(notice, Expired) for notice in notices)
    assert [type(notice.grant) for notice in notices if isinstance(notice, Expired)] == [
        Permit,
        Lock,
        Reservation,
        Bundle,
    ]
    assert is_free(desk)
    assert desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=1)).bundle is None


def test_an_operator_takes_a_bundle_with_all_it_holds(desk: Desk) -> None:
    bundle = take(desk, lock(), units(), permit())
    assert desk.do(ForceRelease(id=bundle.id, reason="because")).grant is bundle
    counts = desk.machine.counts()
    assert (counts.locks, counts.reservations, counts.permits, counts.bundles) == (0, 0, 1, 0)


def test_a_grant_that_is_taken_back_was_never_given(desk: Desk) -> None:
    held = desk.lock("a", "w2")
    waiter = wait(desk, lock(), units(), permit(), request_id="r")
    desk.release(held)
    bundle = desk.granted(waiter)
    [notice] = desk.notices
    outcome = desk.do(ReturnGrant(id=bundle.id, waiter=notice.waiter))  # type: ignore[union-attr]
    assert outcome.grant is bundle
    assert is_free(desk)
    assert desk.machine.limit("search", desk.now).windows[0].used == 0
    again = desk.do(acquire(lock(), units(), permit(), request_id="r", wait_ns=HOUR))
    assert isinstance(again, Granted)
    assert again.waiter is not None


# ---- restarts


def test_a_bundle_is_there_after_a_restart(desk: Desk) -> None:
    bundle = take(desk, lock(), units(), permit(), request_id="r")
    desk.restart()
    again = desk.do(acquire(lock(), units(), permit(), request_id="r"))
    assert again.is_repeat
    assert again.grant.id == bundle.id
    assert [grant_id(member) for member in again.grant.held] == [grant_id(m) for m in bundle.held]
    desk.do(ReleaseBundle(id=bundle.id, worker="w1", outcome=1))
    assert desk.machine.counts().bundles == 0


def test_a_bundle_whose_members_the_configuration_no_longer_knows_is_dropped(desk: Desk) -> None:
    bundle = take(desk, permit("one"))
    desk.commit()
    assert (bundle.id,) in desk.rows[Table.BUNDLES]
    rules = rules_of()
    limits = {name: rule for name, rule in rules.limits.items() if name != "one"}
    desk.restart(rules_of(limits=limits))
    desk.commit()
    assert desk.rows[Table.BUNDLES] == {}
    assert desk.machine.counts().bundles == 0


def test_a_waiter_for_a_bundle_is_there_after_a_restart(desk: Desk) -> None:
    held = desk.lock("a", "w2")
    condition = NotEngaged(item="c", kinds=("like",), within_ns=HOUR)
    waiter = wait(desk, lock(), units(), permit(), condition, request_id="r")
    desk.restart()
    assert wait(desk, lock(), units(), permit(), condition, request_id="r") == waiter
    desk.do(ForceRelease(id=held.token, reason="because"))
    assert desk.granted(waiter) is not None


def test_permits_of_a_bundle_are_demand_where_demand_is_learnt() -> None:
    limit = LimitRule(windows={HOUR: 10}, use_within_ns=10 * SECOND)
    learning = LimitRule(windows={HOUR: 10}, use_within_ns=10 * SECOND, forecast_max=0.5)
    desk = Desk(rules_of(limits={"plain": limit, "learning": learning}))
    before = desk.machine._rate_limits.pending()
    take(desk, permit("learning"), permit("plain"))
    after = desk.machine._rate_limits.pending()
    assert [now[0] for was, now in zip(before, after, strict=True) if was != now] == ["learning"]
