from typing import Any

from core_desk import Desk

from coordd.core.commands import TakePermit
from coordd.core.limits import HOUR, SECOND
from coordd.core.outcomes import Reason

BUCKET = SECOND // 5


def wanted(endpoint: str = "search", worker: str = "w2", **more: Any) -> TakePermit:
    return TakePermit(endpoint=endpoint, worker=worker, **more)


def test_full_window_refuses_and_says_which_and_until_when(desk: Desk) -> None:
    desk.permit(count=3)
    refused = desk.refused(wanted())
    assert (refused.reason, refused.subject) == (Reason.WINDOW_FULL, "search")
    assert refused.window_ns == 100 * SECOND
    assert refused.retry_at == desk.now + 110 * SECOND + BUCKET
    assert refused.position == 1
    desk.advance(refused.retry_at - 1 - desk.now)
    desk.refused(wanted())
    desk.advance(1)
    desk.permit()


def test_first_in_the_queue_is_granted_when_the_window_frees(desk: Desk) -> None:
    desk.permit("one")
    waiter = desk.wait(wanted("one", wait_ns=HOUR))
    place = desk.machine.place(waiter, desk.now)
    assert place is not None
    assert place.wait_ns == 110 * SECOND + BUCKET
    desk.advance(place.wait_ns - 1)
    assert desk.granted(waiter) is None
    desk.advance(1)
    assert desk.granted(waiter).granted_at == desk.now


def test_later_ones_are_told_when_those_ahead_will_have_been_served(desk: Desk) -> None:
    desk.permit("one")
    first = desk.wait(wanted("one", wait_ns=HOUR))
    refused = desk.refused(wanted("one", worker="w3"))
    assert (refused.reason, refused.position) == (Reason.WINDOW_FULL, 2)
    assert refused.retry_at >= desk.now + 210 * SECOND
    second = desk.wait(wanted("one", worker="w3", wait_ns=HOUR))
    desk.advance(refused.retry_at + 20 * SECOND - desk.now)
    assert desk.granted(first).id < desk.granted(second).id


def test_where_there_is_room_but_others_go_first_the_queue_is_the_reason(desk: Desk) -> None:
    desk.permit(count=1)
    desk.wait(wanted(count=3, wait_ns=HOUR))
    refused = desk.refused(wanted(count=1, worker="w3"))
    assert (refused.reason, refused.window_ns, refused.position) == (Reason.QUEUED_AHEAD, 0, 2)
