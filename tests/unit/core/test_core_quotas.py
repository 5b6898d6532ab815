import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    AcquireBundle,
    LeaveWait,
    OpenSession,
    RequestLock,
    ReserveResource,
    ScheduleRequest,
    TakePermit,
)
from coordd.core.errors import ResourceExhausted
from coordd.core.limits import MINUTE, SECOND
from coordd.core.machine import Command
from coordd.core.outcomes import Granted, Queued
from coordd.core.rules import QuotaRule
from coordd.core.waiters import ReturnGrant


def desk_of(**quotas: int) -> Desk:
    return Desk(rules_of(quotas=QuotaRule(**quotas)))


def lock(item: str, worker: str = "w1", **more: object) -> RequestLock:
    return RequestLock(item=item, kind="like", worker=worker, **more)  # type: ignore[arg-type]


def test_what_is_held_never_exceeds_its_quota_whatever_it_is() -> None:
    desk = desk_of(leases=4)
    desk.lock("a")
    desk.reserve()
    desk.permit()
    booking = desk.book()
    one_more: list[Command] = [
        lock("b"),
        ReserveResource(type="file", resource_id="r", worker="w1"),
        TakePermit(endpoint="one", worker="w1"),
        ScheduleRequest(endpoint="search", worker="w1"),
        AcquireBundle(worker="w1", locks=(lock("c"),)),
    ]
    for command in one_more:
        with pytest.raises(ResourceExhausted) as refusal:
            desk.do(command)
        assert refusal.value.metadata == {"quota": "leases", "limit": "4"}
        assert refusal.value.reason == "QUOTA_EXCEEDED"
    # A booking that is claimed is no more than it was.
    desk.advance(booking.execute_at - desk.now)
    desk.permit(booking_id=booking.id)


def test_what_is_waited_for_counts_with_what_is_held() -> None:
    desk = desk_of(leases=2)
    held = desk.lock("a")
    waiter = desk.wait(lock("a", "w2", wait_ns=MINUTE))
    assert desk.error(lock("b")) == "QUOTA_EXCEEDED"
    assert desk.error(lock("a", "w3", wait_ns=MINUTE)) == "QUOTA_EXCEEDED"
    desk.release(held)
    assert desk.granted(waiter) is not None
    desk.lock("b")


def test_a_bundle_counts_by_its_members_and_one_more() -> None:
    desk = desk_of(leases=4)
    blocker = desk.lock("a")
    command = AcquireBundle(worker="w2", locks=(lock("a"), lock("b")), wait_ns=MINUTE)
    waiter = desk.wait(command)  # type: ignore[arg-type]
    assert desk.error(lock("c")) == "QUOTA_EXCEEDED"
    desk.release(blocker)
    assert len(desk.granted(waiter).held) == 2
    desk.lock("c")
    assert desk.error(lock("d")) == "QUOTA_EXCEEDED"


def test_a_request_that_is_known_is_answered_whatever_the_quota() -> None:
    desk = desk_of(leases=2, waiters=1)
    held = desk.lock("a", request_id="r")
    waiting = lock("a", "w2", wait_ns=MINUTE, request_id="q")
    waiter = desk.wait(waiting)
    assert desk.do(lock("a", request_id="r")) == Granted(grant=held, is_repeat=True)
    desk.leave(waiter)
    assert desk.do(waiting) == Queued(id=waiter, is_resumed=True)
    # And a grant that went back is the waiter's place again.
    desk.release(held)
    [notice] = [notice for notice in desk.notices if hasattr(notice, "waiter")]
    desk.do(ReturnGrant(id=notice.grant.token, waiter=notice.waiter))
    assert desk.do(waiting).grant.worker == "w2"


def test_waiters_have_a_quota_and_those_away_count() -> None:
    desk = desk_of(waiters=1)
    desk.lock("a")
    waiter = desk.wait(lock("a", "w2", wait_ns=MINUTE, request_id="r"))
    desk.leave(waiter)
    with pytest.raises(ResourceExhausted) as refusal:
        desk.do(lock("a", "w3", wait_ns=MINUTE))
    assert refusal.value.metadata == {"quota": "waiters", "limit": "1"}
    desk.advance(31 * SECOND)
    desk.wait(lock("a", "w3", wait_ns=MINUTE))


def test_sessions_have_a_quota_and_to_come_back_needs_no_room() -> None:
    desk = desk_of(sessions=1)

    def open_(worker: str) -> OpenSession:
        return OpenSession(worker=worker, session_id=0, worker_class="", weight_milli=0, labels=(), ttl_ns=0)

    desk.do(open_("w1"))
    desk.do(open_("w1"))
    with pytest.raises(ResourceExhausted) as refusal:
        desk.do(open_("w2"))
    assert refusal.value.metadata == {"quota": "sessions", "limit": "1"}
    desk.advance(30 * SECOND)
    desk.do(open_("w2"))


def test_what_is_there_when_a_quota_is_lowered_stays_and_nothing_is_added() -> None:
    desk = desk_of()
    held = [desk.lock(item) for item in "abc"]
    waiter = desk.wait(lock("a", "w2", wait_ns=10 * MINUTE, request_id="r"))
    desk.restart(rules_of(quotas=QuotaRule(leases=2, waiters=1)))
    assert desk.machine.counts().locks == 3
    for each in held[1:]:
        assert desk.error(lock("d")) == "QUOTA_EXCEEDED"
        desk.release(each)
    # One is held and one is waited for.
    assert desk.error(lock("d")) == "QUOTA_EXCEEDED"
    desk.do(LeaveWait(id=waiter))
    desk.advance(31 * SECOND)
    desk.lock("d")


def test_what_is_taken_of_each_quota_that_is_set_can_be_seen() -> None:
    assert desk_of().machine.quotas() == []
    desk = desk_of(leases=9, sessions=3)
    desk.lock("a")
    desk.wait(lock("a", "w2", wait_ns=MINUTE))
    assert [(view.name, view.used, view.limit) for view in desk.machine.quotas()] == [
        ("leases", 2, 9),
        ("sessions", 0, 3),
    ]


def test_without_a_quota_there_is_a_bound_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.core.quotas.LEASES_MAX", 2)
    desk = desk_of()
    desk.lock("a")
    desk.lock("b")
    with pytest.raises(ResourceExhausted) as refusal:
        desk.do(lock("c"))
    assert refusal.value.metadata == {"quota": "leases", "limit": "2"}


def test_a_session_keeps_so_many_leases_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.core.ledger.LEASES_PER_SESSION_MAX", 3)
    desk = desk_of()
    other = desk.lock("other", "w2")
    desk.do(OpenSession(worker="w1"))
    held = [desk.lock("a"), desk.lock("b")]
    # What is waited for counts, for it will be held.
    desk.wait(lock("other", "w1", wait_ns=MINUTE))
    for command in (lock("c"), lock("other", wait_ns=MINUTE), AcquireBundle(worker="w1", locks=(lock("c"),))):
        with pytest.raises(ResourceExhausted) as refusal:
            desk.do(command)
        assert refusal.value.reason == "TOO_MANY_LEASES"
        assert refusal.value.metadata == {"worker": "w1", "limit": "3"}
    # Others, and those without a session, are none of its business.
    desk.lock("c", "w3")
    desk.release(held[0])
    desk.lock("d")
    desk.release(other)
