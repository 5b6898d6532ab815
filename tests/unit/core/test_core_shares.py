"""Fair shares, rule by rule; the order against brute force is a property test."""

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import (
    CloseSession,
    OpenSession,
    ReserveResource,
    TakePermit,
    UpdateLimit,
)
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Granted, Queued, Reason
from coordd.core.records import Table
from coordd.core.rules import (
    CRITICAL,
    DYNAMIC,
    HIGH,
    LOW,
    MEDIUM,
    PROPORTIONAL,
    LimitRule,
    PoolRule,
    Rules,
    TypeRule,
)
from coordd.core.shares import Shares

FAIR = ("limit", "fair")


def desk_of(*, windows: dict[int, int] | None = None, **more: object) -> Desk:
    """A desk with a fair limit and a fair pool."""
    share = str(more.pop("share", "equal"))
    fair = LimitRule(
        windows=windows or {100 * SECOND: 10}, use_within_ns=10 * SECOND, is_fair=True, share=share
    )
    refilling = LimitRule(windows={100 * SECOND: 4}, use_within_ns=10 * SECOND, is_fair=True)
    rules = rules_of(
        limits={"fair": fair},
        types={"slot": TypeRule(ttl_ns=MINUTE, pool="slots"), "unit": TypeRule(pool="units")},
        pools={"slots": PoolRule(capacity=4, is_fair=True), "units": PoolRule(limit=refilling)},
        **more,
    )
    return Desk(rules)


def shares_of(desk: Desk, key: tuple[str, str] = FAIR) -> Shares:
    return desk.machine._parts.sharing._shares[key]


def want(worker: str, count: int = 1, **more: object) -> TakePermit:
    return TakePermit(endpoint="fair", worker=worker, count=count, wait_ns=HOUR, **more)  # type: ignore[arg-type]


def order_of(desk: Desk, waiters: dict[int, str]) -> list[str]:
    """Let all who wait be served; return their names in the order in which they were."""
    desk.advance(10 * MINUTE)
    granted = [desk.granted(waiter) for waiter in waiters]
    assert all(granted)
    by_id = {grant.id: name for grant, name in zip(granted, waiters.values(), strict=True)}
    return [by_id[id_] for id_ in sorted(by_id)]


def test_worker_that_has_least_goes_first_whenever_it_came() -> None:
    desk = desk_of()
    desk.permit("fair", "w2", count=3)
    desk.advance(50 * SECOND)
    desk.permit("fair", "w1", count=7)
    waiters = {desk.wait(want(name)): name for name in ("w1", "w2", "w3")}
    assert order_of(desk, waiters) == ["w2", "w3", "w1"]


def test_one_that_leaves_may_have_been_why_its_class_was_next() -> None:
    desk = desk_of()
    desk.permit("fair", "w1", count=6)
    oldest = desk.wait(want("w1", 5, priority=LOW))
    desk.advance(61 * SECOND)
    medium = desk.wait(want("w3"))
    # It goes before the oldest by its share, and by nothing before the class above.
    low = desk.wait(want("w2", 5, priority=LOW))
    desk.leave(oldest)
    assert (desk.granted(medium) is not None, desk.granted(low)) == (True, None)


def test_one_that_comes_back_may_make_its_class_the_next() -> None:
    desk = desk_of(resume_grace_ns=HOUR)
    desk.permit("fair", "w1", count=6)
    oldest = desk.wait(want("w1", 5, priority=LOW, request_id="r"))
    desk.leave(oldest)
    desk.advance(61 * SECOND)
    medium = desk.wait(want("w3", 5))
    low = desk.wait(want("w2", priority=LOW))
    assert desk.granted(low) is None
    assert desk.wait(want("w1", 5, priority=LOW, request_id="r")) == oldest
    assert (desk.granted(medium), desk.granted(low) is not None) == (None, True)


def test_newcomer_that_would_go_first_is_not_behind_those_who_wait() -> None:
    desk = desk_of()
    desk.permit("fair", "w1", count=8)
    desk.wait(want("w1", 3))
    assert isinstance(desk.do(want("w2")), Granted)
    assert desk.refused(TakePermit(endpoint="fair", worker="w1")).reason == Reason.QUEUED_AHEAD


def test_higher_class_goes_first_whatever_its_share() -> None:
    desk = desk_of()
    desk.permit("fair", "w1", count=9)
    desk.permit("fair", "w2", count=1)
    waiters = {
        desk.wait(want("w2")): "w2",
        desk.wait(want("w1", priority=CRITICAL)): "critical w1",
        desk.wait(want("w3", priority=LOW)): "low w3",
    }
    assert order_of(desk, waiters) == ["critical w1", "w2", "low w3"]


def test_one_that_waits_unserved_for_the_bound_goes_first() -> None:
    desk = desk_of(windows={100 * SECOND: 10, HOUR: 20}, fair_bound_ns=SECOND)
    desk.permit("fair", "w1", count=10)
    first = desk.wait(want("w1"))
    desk.advance(2 * SECOND)
    second = desk.wait(want("w2"))
    assert order_of(desk, {first: "w1", second: "w2"}) == ["w1", "w2"]


def test_order_that_time_changes_is_noticed_without_anything_else_happening() -> None:
    # w1 is first and wants more than there is; once it has used less than w1, w2 is, who wants less.
    desk = desk_of(windows={100 * SECOND: 10, 500 * SECOND: 40})
    desk.permit("fair", "w2", count=4)
    desk.advance(50 * SECOND)
    desk.permit("fair", "w1", count=3)
    big, small = desk.wait(want("w1", 9)), desk.wait(want("w2", 3))
    assert desk.granted(small) is None
    # The charge of w2 has left the short window then, and it has 4 of 40 in the long one; w1 has 3 of 10.
    desk.advance(61 * SECOND)
    assert desk.granted(small) is not None
    assert desk.granted(big) is None


def test_weights_of_configuration_class_and_session() -> None:
    desk = desk_of(
        share=PROPORTIONAL,
        worker_weights={"w1": 2.0},
        worker_class_weights={"fast": 4.0},
        session_ttl_ns=HOUR,
    )
    weigh = desk.machine._parts.sharing.weights.of
    assert [weigh(name) for name in ("w1", "w2")] == [2_000, 1_000]
    desk.do(OpenSession(worker="w2", worker_class="fast"))
    assert weigh("w2") == 4_000
    opened = desk.do(OpenSession(worker="w1", weight_milli=500)).session
    assert weigh("w1") == 500
    assert [each.worker for each in shares_of(desk).active()] == ["w1", "w2"]
    assert shares_of(desk).active_milli == 4_500
    desk.do(CloseSession(worker="w1", id=opened.id))
    desk.advance(SECOND)
    assert weigh("w1") == 2_000
    assert [each.worker for each in shares_of(desk).active()] == ["w2"]


def test_heavier_worker_has_its_turn_so_much_more_often() -> None:
    desk = desk_of(share=PROPORTIONAL, worker_weights={"w1": 3.0})
    desk.permit("fair", "w0", count=10)
    waiters = [(desk.wait(want(name)), name) for name in ["w1"] * 6 + ["w2"] * 4]
    desk.advance(3 * MINUTE)
    grants = sorted((desk.granted(waiter).id, name) for waiter, name in waiters)
    first = [name for _, name in grants[:8]]
    assert (first.count("w1"), first.count("w2")) == (6, 2)


def test_dynamic_weight_follows_how_urgent_its_calls_are() -> None:
    desk = desk_of(windows={100 * SECOND: 100}, share=DYNAMIC)
    for _ in range(20):
        desk.permit("fair", "w1", priority=CRITICAL)
        desk.permit("fair", "w2", priority=LOW)
        desk.permit("fair", "w3")
    weights = {each.worker: each.weight_milli for each in shares_of(desk).active()}
    assert weights["w1"] > 1_800
    assert weights["w2"] < 600
    assert weights["w3"] == 1_000


def test_failures_count_for_more_beyond_ones_own_part_and_never_below() -> None:
    desk = desk_of(windows={100 * SECOND: 100})
    shares = shares_of(desk)
    desk.permit("fair", "w2")
    for _ in range(40):
        desk.report(desk.permit("fair", "w1"), is_success=False)
    assert shares.level("w1")[0] == 400_000_000
    for _ in range(20):
        desk.report(desk.permit("fair", "w1"), is_success=False)
    efficiency_ppm = shares.sharer("w1").efficiency_ppm
    assert efficiency_ppm < 500_000
    assert shares.level("w1")[0] == 500_000_000 + 2 * 100_000_000
    # One that is not there any more weighs itself in.
    desk.report(desk.permit("fair", "w2"), is_success=False)
    assert shares.sharer("w2").efficiency_ppm == 968_750
    desk.report(desk.permit("fair", "w2"))
    assert shares.sharer("w2").efficiency_ppm > 968_750


def test_efficiency_is_durable_and_forgotten_with_the_last_that_is_known_of_its_worker() -> None:
    desk = desk_of()
    desk.report(desk.permit("fair", "w1"), is_success=False)
    desk.report(desk.permit("fair", "w2"))
    desk.commit()
    assert [row[:2] for row in desk.rows[Table.EFFICIENCIES].values()] == [("limit/fair", "w1")]
    before = desk.machine.snapshot()
    desk.restart(down_ns=SECOND)
    assert desk.machine.snapshot()[Table.EFFICIENCIES] == before[Table.EFFICIENCIES]
    assert shares_of(desk).sharer("w1").efficiency_ppm == 968_750
    assert [each.worker for each in shares_of(desk).active()] == ["w1", "w2"]
    desk.advance(HOUR)
    desk.commit()
    assert not desk.rows[Table.EFFICIENCIES]
    assert not shares_of(desk).sharers


def test_efficiency_of_what_is_shared_no_longer_is_dropped() -> None:
    desk = desk_of()
    desk.report(desk.permit("fair", "w1"), is_success=False)
    desk.restart(rules_of())
    desk.commit()
    assert not desk.rows[Table.EFFICIENCIES]


def test_worker_is_active_for_the_window_after_it_last_waited_or_was_given_something() -> None:
    desk = desk_of(active_window_ns=MINUTE)
    desk.permit("fair", "w1", count=10)
    waiter = desk.wait(want("w2", request_id="r1"))
    desk.advance(90 * SECOND)
    assert [each.worker for each in shares_of(desk).active()] == ["w2"]
    desk.leave(waiter)
    desk.advance(61 * SECOND)
    assert shares_of(desk).active() == []
    assert desk.machine.limit("fair", desk.now).active_workers == 0


def test_refusal_makes_nobody_active() -> None:
    desk = desk_of()
    desk.permit("fair", "w1", count=10)
    desk.refused(TakePermit(endpoint="fair", worker="w2"))
    assert [each.worker for each in shares_of(desk).active()] == ["w1"]


def test_fair_pool_goes_by_units_held() -> None:
    desk = desk_of()
    held = [desk.reserve("slot", "w1"), desk.reserve("slot", "w1"), desk.reserve("slot", "w2", units=2)]
    one = desk.wait(ReserveResource(type="slot", worker="w1", wait_ns=HOUR))
    two = desk.wait(ReserveResource(type="slot", worker="w2", wait_ns=HOUR))
    three = desk.wait(ReserveResource(type="slot", worker="w3", wait_ns=HOUR))
    desk.give_back(held[0])
    assert desk.granted(three) is not None
    desk.give_back(held[1])
    assert desk.granted(one) is not None
    desk.give_back(held[2])
    assert desk.granted(two) is not None
    # It ends unreleased: that is a failure; one that held on is not forgotten meanwhile.
    desk.advance(2 * HOUR)
    assert not shares_of(desk, ("pool", "slots")).sharers


def test_worker_that_holds_units_for_long_is_known_for_as_long() -> None:
    desk = desk_of(active_window_ns=SECOND)
    held = desk.reserve("slot", "w1", ttl_ns=HOUR)
    desk.advance(30 * MINUTE)
    pool = shares_of(desk, ("pool", "slots"))
    assert [each.is_active for each in pool.sharers.values()] == [False]
    desk.restart()
    assert list(shares_of(desk, ("pool", "slots")).sharers) == ["w1"]
    desk.give_back(held)
    desk.advance(HOUR)
    assert not shares_of(desk, ("pool", "slots")).sharers


def test_fair_refilling_pool_goes_by_its_windows() -> None:
    desk = desk_of()
    desk.reserve("unit", "w1", units=2)
    desk.wait(ReserveResource(type="unit", worker="w1", units=4, wait_ns=HOUR))
    assert isinstance(desk.do(ReserveResource(type="unit", worker="w2", wait_ns=HOUR)), Granted)
    assert isinstance(desk.do(ReserveResource(type="unit", worker="w1", wait_ns=HOUR)), Queued)


def test_new_limit_puts_everybody_in_place_again() -> None:
    desk = desk_of(windows={100 * SECOND: 10, 200 * SECOND: 20})
    desk.permit("fair", "w1", count=6)
    desk.permit("fair", "w2", count=4)
    desk.wait(want("w1"))
    desk.wait(want("w2"))
    desk.do(UpdateLimit(endpoint="fair", windows={100 * SECOND: 12}))
    assert [desk.machine.limit("fair", desk.now).windows[0].used] == [12]


def test_place_in_a_fair_queue_is_an_estimate_that_knows_shares() -> None:
    desk = desk_of()
    desk.permit("fair", "w1", count=8)
    desk.permit("fair", "w2", count=2)
    waiters = [desk.wait(want(name)) for name in ("w1", "w1", "w2", "w2", "w3")]
    places = [desk.machine.place(waiter, desk.now) for waiter in waiters]
    assert [place.position for place in places if place is not None] == [4, 5, 2, 3, 1]


@pytest.mark.parametrize("is_fair", [False, True])
def test_aged_low_that_headroom_holds_up_holds_up_nobody_above(*, is_fair: bool) -> None:
    limit = LimitRule(
        windows={100 * SECOND: 10}, use_within_ns=10 * SECOND, is_fair=is_fair, headroom={HIGH: 0.2}
    )
    desk = Desk(rules_of(limits={"e": limit}))
    desk.permit("e", "w1", count=8, priority=LOW)
    low = desk.wait(TakePermit(endpoint="e", worker="w2", priority=LOW, wait_ns=HOUR))
    place = desk.machine.place(low, desk.now)
    assert place is not None
    assert place.blocked_by.reason == Reason.HEADROOM
    assert place.blocked_by.retry_at > desk.now
    desk.advance(50 * SECOND)
    # It goes before a fresh HIGH by now in a queue without headroom, and here for all but the headroom.
    desk.machine._waits._boost_ns = dict.fromkeys(desk.machine._waits._boost_ns, 0)
    desk.permit("e", "w3", count=2, priority=HIGH)
    high = desk.wait(TakePermit(endpoint="e", worker="w3", priority=HIGH, wait_ns=HOUR))
    assert desk.refused(TakePermit(endpoint="e", worker="w4", priority=HIGH)).reason == Reason.WINDOW_FULL
    desk.advance(2 * MINUTE)
    assert desk.granted(low).id < desk.granted(high).id


def test_fair_pool_s_mixed_waiters_are_looked_at_when_one_of_them_is_starved() -> None:
    desk = desk_of(fair_bound_ns=20 * SECOND)
    desk.reserve("slot", "w1", ttl_ns=HOUR)
    desk.reserve("slot", "w3", units=2, ttl_ns=HOUR)
    desk.advance(SECOND)
    big = desk.wait(ReserveResource(type="slot", worker="w2", units=2, wait_ns=HOUR))
    small = desk.wait(ReserveResource(type="slot", worker="w1", wait_ns=HOUR))
    # w1 was given something a second before w2 began to wait: it is starved only with w2.
    desk.advance(19 * SECOND)
    assert desk.granted(small) is None
    desk.advance(30 * SECOND)
    assert (desk.granted(big), desk.granted(small)) == (None, None)


def test_window_that_is_new_takes_over_classes_and_workers() -> None:
    def rules(windows: dict[int, int]) -> Rules:
        limit = LimitRule(windows=windows, use_within_ns=10 * SECOND, headroom={HIGH: 0.2})
        return rules_of(limits={"e": limit})

    desk = Desk(rules({100 * SECOND: 10}))
    desk.permit("e", "w1", count=2, priority=HIGH)
    desk.permit("e", "w2", count=3, priority=LOW)
    desk.restart(rules({100 * SECOND: 10, 500 * SECOND: 10}))
    # High has had what is kept for it, in the new window, too.
    desk.permit("e", "w2", count=5, priority=LOW)


def test_charges_made_before_classes_were_kept_go_back_as_of_the_lowest() -> None:
    plain = LimitRule(windows={100 * SECOND: 10}, use_within_ns=10 * SECOND)
    kept = LimitRule(windows={100 * SECOND: 10}, use_within_ns=10 * SECOND, headroom={HIGH: 0.2})
    desk = Desk(rules_of(limits={"e": plain}))
    permit = desk.permit("e", "w1", count=4, priority=HIGH)
    desk.restart(rules_of(limits={"e": kept}))
    assert (
        desk.refused(TakePermit(endpoint="e", worker="w2", count=5, priority=LOW)).reason == Reason.HEADROOM
    )
    desk.report(permit, is_sent=False)
    desk.permit("e", "w2", count=8, priority=LOW)
    assert desk.error(TakePermit(endpoint="e", worker="w2", count=9, priority=LOW)) == "PERMITS_ABOVE_LIMIT"


def test_refund_that_a_new_window_knows_nothing_of_leaves_it_alone() -> None:
    def rules(windows: dict[int, int]) -> Rules:
        limit = LimitRule(windows=windows, use_within_ns=10 * SECOND, headroom={HIGH: 0.2})
        return rules_of(limits={"e": limit})

    desk = Desk(rules({500 * SECOND: 10}))
    permit = desk.permit("e", "w1", count=2)
    desk.restart(rules({5 * SECOND: 5, 500 * SECOND: 10}))
    # The short window has its charges at the end of the long one's bucket.
    desk.report(permit, is_sent=False)
    assert [window.used for window in desk.machine.limit("e", desk.now).windows] == [2, 0]
    assert desk.machine.limit("e", desk.now).active_workers == 1


def test_headroom_of_a_pool_counts_what_classes_above_hold() -> None:
    desk = Desk(
        rules_of(
            pools={"slots": PoolRule(capacity=4, headroom={HIGH: 0.5})},
            types={"slot": TypeRule(ttl_ns=HOUR, pool="slots")},
        )
    )

    def ask(worker: str, priority: int, units: int = 1, wait_ns: int = 0) -> ReserveResource:
        return ReserveResource(type="slot", worker=worker, units=units, priority=priority, wait_ns=wait_ns)

    desk.reserve("slot", "w1", units=2, priority=LOW)
    assert desk.refused(ask("w2", LOW)).reason == Reason.HEADROOM
    waiter = desk.wait(ask("w2", LOW, wait_ns=HOUR))
    high = desk.reserve("slot", "w3", units=2, priority=HIGH)
    assert desk.refused(ask("w4", HIGH)).reason == Reason.UNITS_TAKEN
    assert desk.error(ask("w2", LOW, units=3)) == "UNITS_ABOVE_CAPACITY"
    desk.give_back(high)
    assert desk.granted(waiter) is None
    assert isinstance(desk.do(ask("w4", CRITICAL, units=2)), Granted)


def failing(desk: Desk, *workers: str) -> None:
    """Let each have a call that fails, and wait for the next."""
    for worker in workers:
        desk.report(desk.permit("fair", worker), is_success=False)
        desk.wait(want(worker, 2))


def test_report_moves_nobody_but_its_own_worker() -> None:
    desk = desk_of(windows={100 * SECOND: 2})
    failing(desk, "w1", "w2")
    shares = shares_of(desk)
    assert not shares.touched
    shares.reported("w1", desk.now, is_success=False)
    assert list(shares.touched) == ["w1"]


def test_where_many_are_active_one_more_moves_nobody() -> None:
    desk = desk_of(windows={100 * SECOND: 2})
    failing(desk, "w1", "w2")
    shares = shares_of(desk)
    moved = []
    for number in range(200):
        shares.touched.clear()
        shares.given(f"a{number}", 1, 2, desk.now)
        moved.append(set(shares.touched) == {"w1", "w2"})
    assert shares.active_milli == 202_000
    assert all(moved[:62])
    assert sum(moved[128:]) < 40


def test_names_that_only_ask_are_forgotten_when_they_are_active_no_longer() -> None:
    desk = desk_of(windows={100 * SECOND: 1, 24 * HOUR: 100}, active_window_ns=MINUTE)
    desk.permit("fair", "w0")
    for number in range(50):
        desk.leave(desk.wait(want(f"w{number}")))
    assert len(shares_of(desk).sharers) == 50
    desk.advance(MINUTE)
    assert list(shares_of(desk).sharers) == ["w0"]


def test_one_step_serves_a_bounded_number_also_where_each_grant_is_a_reason_to_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordd.core.waits.SERVED_PER_CALL_MAX", 2)
    desk = desk_of()
    held = desk.permit("fair", "w0", count=10)
    waiters = [desk.wait(want(f"w{number}")) for number in range(1, 6)]
    waiters.append(desk.wait(want("w6", 3)))
    desk.report(held, is_sent=False)
    assert sum(desk.granted(waiter) is not None for waiter in waiters) == 2
    desk.advance(0)
    assert all(desk.granted(waiter) for waiter in waiters)


def test_whoever_may_pass_is_seen_though_nobody_has_looked_at_the_windows_since() -> None:
    rule = LimitRule(windows={10 * SECOND: 4, 100 * SECOND: 12}, use_within_ns=SECOND, headroom={HIGH: 0.5})
    boost_ns = {LOW: 0, MEDIUM: SECOND, HIGH: 2 * SECOND, CRITICAL: 3 * SECOND}
    desk = Desk(rules_of(limits={"e": rule}, boost_ns=boost_ns))
    for _ in range(3):
        desk.permit("e", count=2, priority=LOW)
        desk.advance(12 * SECOND)
    desk.permit("e", count=2, priority=HIGH)
    low = desk.wait(TakePermit(endpoint="e", worker="w2", priority=LOW, wait_ns=HOUR))
    # Meanwhile the calls of the higher class have left the shorter window; the first waits for the longer.
    desk.advance(12 * SECOND)
    # A desk that does something looks first.
    outcome = desk.machine.apply(TakePermit(endpoint="e", worker="w3", count=2, priority=HIGH), desk.now)
    assert (isinstance(outcome, Granted), desk.granted(low)) == (True, None)
