from coordd.core.limits import SECOND
from coordd.core.promises import Promises


def test_error_is_a_mean_in_which_a_new_one_counts_an_eighth() -> None:
    promises = Promises()
    assert promises.error_ns is None
    promises.observe(10 * SECOND, 18 * SECOND)
    assert promises.error_ns == 8 * SECOND
    promises.observe(10 * SECOND, 10 * SECOND)
    assert promises.error_ns == 7 * SECOND
    promises.observe(10 * SECOND, 3 * SECOND)
    assert promises.error_ns == 7 * SECOND


def test_late_booking_counts_once_however_often_it_is_asked_for() -> None:
    promises = Promises()
    for _ in range(3):
        promises.booking_late(1, SECOND, 9 * SECOND)
    promises.booking_kept(1, SECOND)
    assert promises.error_ns == 8 * SECOND
    promises.forget(1)
    promises.booking_kept(2, SECOND)
    assert promises.error_ns == 7 * SECOND
