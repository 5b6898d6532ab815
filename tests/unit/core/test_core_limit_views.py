from typing import Any

from core_desk import Desk, rules_of

from coordd.core.commands import TakePermit
from coordd.core.limits import HOUR, MINUTE, SECOND
from coordd.core.rules import LimitRule


def wanted(endpoint: str = "search", worker: str = "w2", **more: Any) -> TakePermit:
    return TakePermit(endpoint=endpoint, worker=worker, **more)


def test_view_of_a_limit(desk: Desk) -> None:
    desk.permit(count=2)
    desk.permit(worker="w2")
    desk.wait(wanted(wait_ns=HOUR))
    desk.book()
    view = desk.machine.limit("search", desk.now)
    # What is booked counts where a call made now would meet it.
    assert [window.used for window in view.windows] == [3, 4]
    assert [window.remaining for window in view.windows] == [0, 6]
    assert (view.remaining, view.utilisation) == (0, 1.0)
    assert (view.queued, view.bookings, view.active_workers) == (1, 1, 2)
    assert (view.use_within_ns, view.claim_window_ns) == (10 * SECOND, 20 * SECOND)
    assert [limit.name for limit in desk.machine.limits(desk.now)] == ["one", "search"]


def test_allocation_by_priority_is_the_whole_limit(desk: Desk) -> None:
    desk.permit(worker="w1")
    share = desk.machine.allocation("search", "w2", desk.now).windows[0]
    assert (share.allocated, share.used, share.remaining) == (3, 0, 2)


def test_allocation_of_a_fair_limit_is_what_a_worker_gets_if_it_asks_for_all_it_can() -> None:
    fair = LimitRule(windows={100 * SECOND: 10}, use_within_ns=10 * SECOND, is_fair=True)
    desk = Desk(rules_of(limits={"fair": fair}))
    desk.permit("fair", "w1", count=2)
    view = desk.machine.allocation("fair", "w2", desk.now)
    assert view.active_workers == 2
    assert [(w.allocated, w.used, w.remaining) for w in view.windows] == [(8, 0, 8)]
    desk.permit("fair", "w1", count=6)
    desk.permit("fair", "w2", count=1)
    own, other = (desk.machine.allocation("fair", worker, desk.now).windows[0] for worker in ("w1", "w2"))
    assert (own.own, own.allocated, own.used, own.remaining, own.lent, own.borrowed) == (5, 9, 8, 1, 0, 3)
    assert (other.own, other.allocated, other.used, other.lent, other.borrowed) == (5, 5, 1, 4, 0)
    desk.advance(8 * MINUTE)
    assert desk.machine.allocation("fair", "w2", desk.now).active_workers == 1
