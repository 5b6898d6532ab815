"""Minimum intervals: after the same kind, after others, and how quality shortens them."""

import pytest
from core_desk import Desk, rules_of

from coordd.core.commands import ForceRelease, RequestLock
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.outcomes import Reason
from coordd.core.records import Outcome
from coordd.core.rules import KindRule


def desk_of(**reply: object) -> Desk:
    kinds = {
        "reply": KindRule(ttl_ns=MINUTE, lock_delay_ns=0, **reply),  # type: ignore[arg-type]
        "like": KindRule(ttl_ns=MINUTE, lock_delay_ns=0),
        "quote": KindRule(ttl_ns=MINUTE, lock_delay_ns=0),
    }
    return Desk(rules_of(kinds=kinds))


def reply(quality: float = 0.0, **more: object) -> RequestLock:
    return RequestLock(item="a", kind="reply", worker="w2", quality=quality, **more)  # type: ignore[arg-type]


def refused_until(desk: Desk, command: RequestLock) -> int:
    """Check that a command is refused to its very end, and granted then; return how long that was."""
    refused = desk.refused(command)
    assert refused.reason == Reason.RECENTLY_ENGAGED
    assert refused.position == 0
    wait_ns = refused.retry_at - desk.now
    desk.advance(wait_ns - 1)
    assert desk.refused(command).retry_at == refused.retry_at
    desk.now += 1
    desk.lock("a", "w2", "reply", quality=command.quality)
    return wait_ns


def test_a_kind_waits_after_another_kind_and_not_the_other_way_round() -> None:
    desk = desk_of(min_interval_after_ns={"like": 10 * MINUTE})
    desk.release(desk.lock(kind="like"))
    desk.release(desk.lock(kind="like"))
    desk.release(desk.lock(kind="quote"))
    assert desk.refused(reply()).holder == "w1"
    assert refused_until(desk, reply()) == 10 * MINUTE


def test_a_kind_without_an_interval_after_itself_follows_itself_at_once() -> None:
    desk = desk_of(min_interval_after_ns={"like": 10 * MINUTE})
    desk.release(desk.lock(kind="reply"))
    desk.release(desk.lock(kind="reply"))


def test_the_interval_that_ends_last_is_told() -> None:
    desk = desk_of(min_interval_ns=HOUR, min_interval_after_ns={"like": 10 * MINUTE})
    desk.release(desk.lock(kind="reply", worker="w7"))
    desk.advance(55 * MINUTE)
    desk.release(desk.lock(kind="like", worker="w8"))
    refused = desk.refused(reply())
    assert (refused.holder, refused.retry_at) == ("w8", desk.now + 10 * MINUTE)


def test_a_kind_named_after_itself_has_the_longer_of_the_two() -> None:
    desk = desk_of(min_interval_ns=MINUTE, min_interval_after_ns={"reply": HOUR})
    desk.release(desk.lock(kind="reply"))
    assert refused_until(desk, reply()) == HOUR


@pytest.mark.parametrize(
    ("quality", "wait_ns"),
    [(0.0, HOUR), (0.5, HOUR * 3 // 4), (0.999, HOUR - int(HOUR * (0.999 * 0.5))), (1.0, HOUR // 2)],
)
def test_quality_shortens_the_interval_after_a_success(quality: float, wait_ns: int) -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR}, quality_discount=0.5)
    desk.release(desk.lock(kind="like"))
    assert refused_until(desk, reply(quality)) == wait_ns


def test_an_unknown_shortens_for_nobody() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR}, quality_discount=1.0, bypass_quality=0.9)
    desk.do(ForceRelease(id=desk.lock(kind="like").token, reason="test"))
    assert refused_until(desk, reply(1.0)) == HOUR


def test_an_older_unknown_still_stands_in_the_way_after_a_success() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR}, quality_discount=1.0)
    desk.release(desk.lock(kind="like", worker="w7"), Outcome.UNKNOWN)
    desk.advance(MINUTE)
    desk.release(desk.lock(kind="like", worker="w8"))
    refused = desk.refused(reply(1.0))
    assert (refused.holder, refused.retry_at) == ("w7", desk.now + HOUR - MINUTE)
    assert desk.refused(reply()).holder == "w8"


def test_bypass_quality_bypasses_other_kinds_too() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR}, bypass_quality=0.9)
    desk.release(desk.lock(kind="like"))
    desk.refused(reply(0.8))
    desk.lock(kind="reply", quality=0.9)


def test_a_failure_is_no_engagement() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR})
    desk.release(desk.lock(kind="like"), Outcome.FAILURE)
    desk.lock(kind="reply")


def test_who_waits_is_refused_when_next_if_the_interval_is_not_over() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR})
    held = desk.lock(kind="like")
    waiter = desk.wait(reply(wait_ns=HOUR))
    desk.release(held)
    refused = desk.refusal(waiter)
    assert refused is not None
    assert (refused.reason, refused.retry_at) == (Reason.RECENTLY_ENGAGED, desk.now + HOUR)


def test_who_is_next_at_the_instant_the_interval_ends_is_granted() -> None:
    desk = desk_of(min_interval_after_ns={"like": 10 * SECOND})
    desk.release(desk.lock(kind="like"))
    held = desk.lock(kind="quote")
    assert desk.refused(reply(wait_ns=HOUR)).reason == Reason.RECENTLY_ENGAGED
    desk.advance(10 * SECOND)
    waiter = desk.wait(reply(wait_ns=HOUR))
    desk.release(held)
    assert desk.granted(waiter).granted_at == desk.now


def test_intervals_hold_over_a_restart() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR})
    desk.release(desk.lock(kind="like"))
    ends_at = desk.refused(reply()).retry_at
    assert desk.machine.history_ns == HOUR
    desk.restart(down_ns=MINUTE)
    assert desk.refused(reply()).retry_at == ends_at


def test_memory_ends_with_the_longest_interval_that_may_ask() -> None:
    desk = desk_of(min_interval_after_ns={"like": HOUR})
    desk.release(desk.lock(kind="like"))
    desk.release(desk.lock(kind="quote"))
    desk.advance(30 * MINUTE)
    assert [engaged.kind for engaged in desk.machine._locks.engaged] == ["like"]
    desk.advance(31 * MINUTE)
    assert not list(desk.machine._locks.engaged)
