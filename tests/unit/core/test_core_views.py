from coordd.core.limits import HOUR, MINUTE
from coordd.core.views import LimitView, WindowView


def window(length_ns: int, limit: int, used: int) -> WindowView:
    return WindowView(length_ns=length_ns, limit=limit, used=used, resets_at=0)


def test_remaining_is_never_below_nothing() -> None:
    assert window(HOUR, 10, 4).remaining == 6
    assert window(HOUR, 10, 12).remaining == 0


def test_utilisation_is_that_of_the_fullest_window() -> None:
    view = LimitView(
        name="e",
        windows=(window(MINUTE, 10, 5), window(HOUR, 20, 15)),
        is_fair=False,
        use_within_ns=1,
        claim_window_ns=1,
        queued=0,
        bookings=0,
        active_workers=0,
        violations=0,
        is_overridden=False,
    )
    assert view.utilisation == 0.75
