"""What a restart must not do, least of all with another configuration: grant what is held, forget calls."""

from core_desk import Desk, rules_of

from coordd.core.commands import RequestLock, ReserveResource, TakePermit
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Expired, Reason, grant_id
from coordd.core.rules import LimitRule, TypeRule


def limits(windows: dict[int, int]) -> dict[str, LimitRule]:
    return {"search": LimitRule(windows=windows, use_within_ns=10 * SECOND, claim_window_ns=20 * SECOND)}


def test_new_window_begins_with_what_the_longest_of_the_old_ones_knows() -> None:
    desk = Desk(rules_of(limits=limits({100 * SECOND: 3, HOUR: 6})))
    for _ in range(2):
        for _ in range(3):
            desk.report(desk.permit())
        desk.advance(3 * MINUTE)
    desk.restart(rules_of(limits=limits({100 * SECOND: 3, 2 * HOUR: 6})))
    assert desk.refused(TakePermit(endpoint="search", worker="w1")).window_ns == 2 * HOUR
    desk.commit()
    desk.restart(rules_of(limits=limits({100 * SECOND: 3, 2 * HOUR: 6})))
    assert desk.refused(TakePermit(endpoint="search", worker="w1")).window_ns == 2 * HOUR


def test_refund_of_a_permit_older_than_a_window_never_makes_room_that_is_not_there() -> None:
    desk = Desk(rules_of(limits=limits({100 * SECOND: 3})))
    old = [desk.permit(), desk.permit()]
    desk.commit()
    desk.restart(rules_of(limits=limits({100 * SECOND: 3, HOUR: 20})))
    desk.permit()
    for permit in old:
        desk.report(permit, is_sent=False)
    view = desk.machine.limit("search", desk.now)
    assert view.windows[0].used == 1
    assert view.windows[1].used >= 1


def test_item_held_twice_after_a_restart_is_free_when_the_last_holder_goes() -> None:
    desk = Desk(rules_of(is_exclusive_by_kind=True))
    first, second = desk.lock(kind="like"), desk.lock(worker="w2", kind="reply")
    desk.commit()
    desk.restart(rules_of())
    wanted = RequestLock(item="a", kind="like", worker="w3")
    desk.release(first, 2)
    assert desk.refused(wanted).holder == "w2"
    desk.release(second, 2)
    desk.lock(worker="w3")


def test_resource_held_twice_after_a_restart_is_free_when_the_last_holder_goes() -> None:
    shared, exclusive = TypeRule(pools={"x": "conns"}), TypeRule(pool="conns")
    desk = Desk(rules_of(types={"db": shared}))
    first = desk.reserve(resource_id="x")
    second = desk.reserve(worker="w2", resource_id="x")
    desk.commit()
    desk.restart(rules_of(types={"db": exclusive}))
    wanted = ReserveResource(type="db", worker="w3", resource_id="x")
    desk.give_back(first)
    assert desk.refused(wanted).holder == "w2"
    desk.give_back(second)
    desk.reserve(worker="w3", resource_id="x")


def test_after_a_restart_those_who_wait_for_a_resource_without_a_pool_keep_their_place() -> None:
    desk = Desk()
    desk.reserve("file", resource_id="f")
    waiting = ReserveResource(type="file", worker="w2", resource_id="f", request_id="r", wait_ns=HOUR)
    desk.wait(waiting)
    desk.commit()
    desk.restart()
    assert desk.machine.counts().waiters_away == 1
    desk.wait(waiting)
    assert desk.machine.counts().waiters_away == 0


def test_after_a_restart_those_who_wait_for_permits_keep_their_place() -> None:
    desk = Desk()
    desk.permit("one")
    waiting = TakePermit(endpoint="one", worker="w2", request_id="r", wait_ns=HOUR)
    desk.wait(waiting)
    desk.commit()
    desk.restart(down_ns=1)
    desk.wait(waiting)
    place = desk.machine.place(next(iter(desk.machine._waits.waiters)), desk.now)
    assert place is not None
    assert place.blocked_by.reason is Reason.WINDOW_FULL


def test_window_that_is_not_new_is_not_told_again_what_has_left_it() -> None:
    desk = Desk(rules_of(limits=limits({100 * SECOND: 3, 500_000 * SECOND: 6})))
    desk.report(desk.permit())
    # It has left the short window; the bucket of the long one that knows of it ends only later.
    desk.advance(101 * SECOND)
    desk.machine.limit("search", desk.now)
    desk.restart()
    assert [window.used for window in desk.machine.limit("search", desk.now).windows] == [0, 1]


def test_live_leases_are_extended_to_the_grace_and_never_shortened(desk: Desk) -> None:
    short, long = desk.lock("a", ttl_ns=SECOND), desk.lock("b", ttl_ns=HOUR)
    held = desk.reserve(ttl_ns=SECOND)
    desk.restart(down_ns=MINUTE)
    live = desk.machine._ledger.live
    assert live[short.token].expires_at == desk.now + 30 * SECOND  # type: ignore[union-attr]
    assert live[held.id].expires_at == desk.now + 30 * SECOND  # type: ignore[union-attr]
    assert live[long.token].expires_at == long.expires_at  # type: ignore[union-attr]


def test_what_passed_its_time_while_the_daemon_was_down_ends_at_the_first_tick(desk: Desk) -> None:
    permit, booking = desk.permit(), desk.book("one")
    desk.restart(down_ns=MINUTE)
    expired = [notice.grant for notice in desk.advance(0) if isinstance(notice, Expired)]
    assert sorted(grant_id(grant) for grant in expired) == [permit.id, booking.id]


def test_what_is_live_is_shown_as_it_stands_after_a_restart(desk: Desk) -> None:
    lock, reservation, permit = desk.lock(), desk.reserve(), desk.permit()
    ids = [lock.token, reservation.id, permit.id, 1]
    desk.commit()
    desk.restart(down_ns=MINUTE)
    grace_ns = desk.machine.rules.recovery_grace_ns
    assert [held.expires_at for held in desk.machine.locks(ids)] == [desk.now + grace_ns]
    assert [held.expires_at for held in desk.machine.reservations(ids)] == [desk.now + grace_ns]
