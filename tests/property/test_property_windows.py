"""Rolling windows and bookings against brute force: never too many, hardly too early, retry_at to the ns."""

from typing import Any

from harness import T0, Harness
from hypothesis import assume, given
from hypothesis import strategies as st
from property_rules import rules_of

from coordd.core.commands import CancelSchedule, RecordUsage, ScheduleRequest, TakePermit
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Booked, Granted, Reason, Refused
from coordd.core.rules import LimitRule, Rules, contradiction

NAME = "limit/e"

# Some lengths do not divide by 500, and none is a multiple of all the others' buckets.
lengths = st.sampled_from([SECOND, 3 * SECOND, 3 * SECOND + 7, 7 * SECOND, 20 * SECOND, 61 * SECOND])
deeds = st.one_of(
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("book"), st.integers(1, 3)),
    st.tuples(st.just("book later"), st.integers(1, 3)),
    st.tuples(st.just("report"), st.integers(0, 5)),
    st.tuples(st.just("give back"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("claim"), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.integers(0, 9_000)),
)
plays = st.lists(deeds, min_size=3, max_size=25)


@st.composite
def limits(draw: st.DrawFn) -> Rules:
    """One endpoint with one to three windows that do not contradict each other."""
    windows: dict[int, int] = {}
    number = 0
    for length in sorted(draw(st.sets(lengths, min_size=1, max_size=3))):
        number = draw(st.integers(max(number, 1), number + 4))
        windows[length] = number
    assume(contradiction(windows) is None)
    rule = LimitRule(
        windows=windows,
        use_within_ns=draw(st.sampled_from([100 * MILLISECOND, 2 * SECOND, 2 * SECOND + 1])),
        claim_window_ns=draw(st.sampled_from([SECOND, 5 * SECOND])),
    )
    fields = {name: getattr(rules_of(), name) for name in Rules.__struct_fields__}
    return Rules(**(fields | {"limits": {"e": rule}}))


def play(harness: Harness, deeds: list[tuple[str, int]], *, is_claiming: bool = True) -> None:
    """Do what the list says; the harness checks every answer."""
    smallest = min(harness.rules.limits["e"].windows.values())
    for deed, number in deeds:
        count = min(number, smallest)
        if deed == "take":
            harness.do(TakePermit(endpoint="e", worker="w1", count=count))
        elif deed == "book":
            harness.do(ScheduleRequest(endpoint="e", worker="w1", count=count))
        elif deed == "book later":
            later = ScheduleRequest(endpoint="e", worker="w1", count=count, not_before_ns=4 * SECOND)
            harness.do(later)
        elif deed == "wait":
            harness.do(TakePermit(endpoint="e", worker="w4", count=count, wait_ns=300 * SECOND))
        elif deed == "pass":
            harness.advance(harness.now + number * MILLISECOND)
        elif deed != "claim" or is_claiming:
            end(harness, deed, number)


def end(harness: Harness, deed: str, number: int) -> None:
    """End a permit or a booking, if there is one."""
    grants: Any = harness.model.permits if deed in ("report", "give back") else harness.model.slots
    if not grants:
        return
    chosen = grants[number % len(grants)]
    if deed == "cancel":
        harness.do(CancelSchedule(id=chosen.id, worker="w1"))
    elif deed == "claim":
        # Too early by a nanosecond, where there still is one; then in time.
        for at in (chosen.execute_at - 1, chosen.execute_at):
            harness.advance(max(harness.now, at))
            harness.do(TakePermit(endpoint="e", worker="w1", booking_id=chosen.id))
    else:
        is_sent = deed == "report"
        usage = RecordUsage(endpoint="e", worker="w1", id=chosen.id, is_sent=is_sent, is_success=is_sent)
        harness.do(usage)


def pass_time(machine: Machine, to: int) -> None:
    """Let a machine do what is due until `to`."""
    while (due_at := machine.next_deadline()) is not None and due_at <= to:
        machine.tick(due_at)
    machine.tick(to)


@given(rules=limits(), deeds=plays, count=st.integers(1, 4))
def test_refused_permit_is_granted_at_retry_at_and_not_a_nanosecond_before(
    rules: Rules, deeds: list[tuple[str, int]], count: int
) -> None:
    harness = Harness(rules)
    play(harness, deeds)
    wanted = TakePermit(endpoint="e", worker="w2", count=min(count, *rules.limits["e"].windows.values()))
    refused = harness.do(wanted)
    if not isinstance(refused, Refused):
        return
    assert refused.reason == Reason.WINDOW_FULL
    assert refused.retry_at > harness.now
    assert refused.window_ns in rules.limits["e"].windows
    machine = harness.replay()
    pass_time(machine, refused.retry_at)
    assert isinstance(machine.apply(wanted, refused.retry_at), Granted)
    # A booking that lapses on the way makes room that nobody could know of.
    if all(slot.claim_until >= refused.retry_at for slot in harness.model.slots):
        machine = harness.replay()
        pass_time(machine, refused.retry_at - 1)
        assert isinstance(machine.apply(wanted, refused.retry_at - 1), Refused)


@given(rules=limits(), deeds=plays, count=st.integers(1, 4))
def test_waiter_is_granted_at_retry_at_when_nothing_else_happens(
    rules: Rules, deeds: list[tuple[str, int]], count: int
) -> None:
    harness = Harness(rules)
    play(harness, deeds)
    count = min(count, *rules.limits["e"].windows.values())
    refused = harness.do(TakePermit(endpoint="e", worker="w2", count=count))
    if not isinstance(refused, Refused):
        return
    harness.do(TakePermit(endpoint="e", worker="w2", count=count, wait_ns=600 * SECOND))
    # A booking that lapses on the way makes room that nobody could know of.
    is_certain = all(slot.claim_until >= refused.retry_at for slot in harness.model.slots)
    harness.advance(refused.retry_at - 1)
    assert harness.model.waiting or not is_certain
    harness.advance(refused.retry_at)
    assert not harness.model.waiting


@given(rules=limits(), deeds=plays)
def test_refusals_are_early_by_one_bucket_at_most(rules: Rules, deeds: list[tuple[str, int]]) -> None:
    harness = Harness(rules)
    # Without bookings: those hold room in the future, which a count of the past can't see.
    play(harness, [deed for deed in deeds if not deed[0].startswith("book")])
    if isinstance(harness.do(TakePermit(endpoint="e", worker="w2")), Refused):
        now = harness.now
        assert any(
            sum(
                charge.count
                for charge in harness.model.charges
                if charge.at > now - length - length // 500 - 1
            )
            >= limit
            for length, limit in rules.limits["e"].windows.items()
        )


@given(rules=limits(), deeds=plays, count=st.integers(1, 3))
def test_no_earlier_time_could_have_been_booked(
    rules: Rules, deeds: list[tuple[str, int]], count: int
) -> None:
    harness = Harness(rules)
    play(harness, deeds)
    model, rule = harness.model, rules.limits["e"]
    count = min(count, *rule.windows.values())
    expected_slots = list(model.slots)
    booked = harness.do(ScheduleRequest(endpoint="e", worker="w2", count=count))
    if not isinstance(booked, Booked):
        return
    model.slots = expected_slots
    execute_at = booked.booking.execute_at
    hold_ns = rule.claim_window_ns + rule.use_within_ns
    boundaries = {harness.now} if execute_at > harness.now else set()
    for length in rule.windows:
        width = -(-length // 500)
        # Room comes as a bucket's edge passes: the last ones before, and an even spread of the others.
        last = (execute_at - 1) // width * width
        first = max(harness.now // width * width + width, last - 50 * width)
        boundaries |= set(range(first, last + 1, width))
        boundaries |= set(range(harness.now, execute_at, max(1, (execute_at - harness.now) // 20)))
    assert not any(model.fits(NAME, count, at, hold_ns) for at in boundaries)


@given(
    rules=limits(),
    deeds=st.lists(st.one_of(deeds, st.tuples(st.just("wait"), st.integers(1, 4))), min_size=3, max_size=25),
)
def test_queue_is_served_the_moment_it_can_be_whatever_is_reported_booked_or_claimed(
    rules: Rules, deeds: list[tuple[str, int]]
) -> None:
    harness = Harness(rules)
    play(harness, deeds)
    # At each step the harness checks that nobody who could be served is left behind.
    for _ in range(60):
        harness.advance(harness.now + SECOND)


@given(
    rules=limits(),
    deeds=plays,
    greed=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3_000)), max_size=40),
    late_ms=st.integers(0, 999),
)
def test_booking_is_always_granted_when_claimed_in_time(
    rules: Rules, deeds: list[tuple[str, int]], greed: list[tuple[int, int]], late_ms: int
) -> None:
    """Whatever others take meanwhile."""
    harness = Harness(rules)
    play(harness, deeds, is_claiming=False)
    smallest = min(rules.limits["e"].windows.values())
    for count, pause_ms in greed:
        harness.do(TakePermit(endpoint="e", worker="w9", count=min(count, smallest)))
        following = min((slot.execute_at for slot in harness.model.slots), default=T0)
        if following > harness.now:
            harness.advance(min(following, harness.now + pause_ms * MILLISECOND))
        for slot in list(harness.model.slots):
            at = min(slot.execute_at + late_ms * MILLISECOND, slot.claim_until - 1)
            if slot.execute_at <= harness.now and at < slot.claim_until:
                harness.advance(max(harness.now, at) if late_ms % 2 else harness.now)
                if slot in harness.model.slots:
                    claim = TakePermit(endpoint="e", worker="w1", booking_id=slot.id)
                    assert isinstance(harness.do(claim), Granted)


@given(
    rules=limits(),
    deeds=plays,
    count=st.integers(1, 4),
    bookings=st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_bookings_behind_it_do_not_delay_the_head_of_the_queue(
    rules: Rules, deeds: list[tuple[str, int]], count: int, bookings: list[int]
) -> None:
    harness = Harness(rules)
    play(harness, deeds)
    smallest = min(rules.limits["e"].windows.values())
    refused = harness.do(TakePermit(endpoint="e", worker="w2", count=min(count, smallest)))
    if not isinstance(refused, Refused):
        return
    harness.do(TakePermit(endpoint="e", worker="w2", count=min(count, smallest), wait_ns=600 * SECOND))
    for number in bookings:
        harness.do(ScheduleRequest(endpoint="e", worker="w3", count=min(number, smallest)))
    harness.advance(refused.retry_at)
    assert not harness.model.waiting
