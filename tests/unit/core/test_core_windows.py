import pytest
from core_desk import T0

from coordd.core.limits import SECOND
from coordd.core.records import Booking, Cell
from coordd.core.rules import LOW
from coordd.core.windows import Full, Kept, Windows

# 100 s in 500 buckets.
WIDTH = SECOND // 5
USE_WITHIN = 10 * SECOND


@pytest.fixture
def changed() -> dict[Cell, None]:
    return {}


@pytest.fixture
def windows(changed: dict[Cell, None]) -> Windows:
    return Windows("limit/e", {500 * SECOND: 5, 100 * SECOND: 3}, USE_WITHIN, changed)


def booking(count: int, execute_at: int, *, id: int = 1) -> Booking:
    """Return a booking that can be claimed for 20 s."""
    claim_until = execute_at + 20 * SECOND
    return Booking(id, "e", "w1", count, T0, execute_at, claim_until, claim_until + USE_WITHIN)


def test_windows_are_in_order_and_the_smallest_bounds_a_call(windows: Windows) -> None:
    assert [window.length_ns for window in windows.of] == [100 * SECOND, 500 * SECOND]
    assert windows.smallest() == 3


def test_permit_is_charged_at_its_latest_possible_use_in_every_window(windows: Windows) -> None:
    assert windows.take("w1", 2, T0) == T0 + USE_WITHIN
    assert [window.used for window in windows.of] == [2, 2]
    assert [[cell.bucket * window.width_ns for cell in window.cells()] for window in windows.of] == [
        [T0 + USE_WITHIN],
        [T0 + USE_WITHIN],
    ]


def test_charge_counts_until_its_whole_bucket_has_left_the_window(windows: Windows) -> None:
    windows.take("w1", 3, T0 + WIDTH - 1)
    left_at = T0 + USE_WITHIN + 100 * SECOND + WIDTH
    assert not windows.is_room(1, left_at - 1)
    assert windows.is_room(1, left_at)


def test_room_is_needed_in_every_window(windows: Windows) -> None:
    windows.take("w1", 3, T0)
    later = T0 + 200 * SECOND
    assert windows.is_room(2, later)
    assert not windows.is_room(3, later)
    assert windows.earliest(3, later, USE_WITHIN, later) == Full(T0 + 511 * SECOND, 500 * SECOND)


def test_earliest_is_now_where_there_is_room(windows: Windows) -> None:
    assert windows.earliest(3, T0 + 1, USE_WITHIN, T0) == Full(T0 + 1, 0)


def test_earliest_names_the_window_that_frees_last(windows: Windows) -> None:
    windows.take("w1", 1, T0)
    windows.take("w1", 2, T0 + SECOND)
    at = T0 + 110 * SECOND + WIDTH
    assert windows.earliest(1, T0 + SECOND, USE_WITHIN, T0 + SECOND) == Full(at, 100 * SECOND)
    assert windows.earliest(2, T0 + SECOND, USE_WITHIN, T0 + SECOND) == Full(at + SECOND, 100 * SECOND)


def test_more_than_ever_fits_is_taken_in_rounds(windows: Windows) -> None:
    full = windows.earliest(7, T0, USE_WITHIN, T0)
    assert full == Full(T0 + 500 * SECOND, 500 * SECOND)


def test_report_moves_the_charge_to_now_and_takes_back_what_was_not_sent(windows: Windows) -> None:
    use_by = windows.take("w1", 3, T0)
    windows.settle("w1", 2, 1, use_by, T0 + SECOND)
    assert [window.used for window in windows.of] == [2, 2]
    assert not windows.is_room(2, T0 + 101 * SECOND)
    assert windows.is_room(2, T0 + 101 * SECOND + WIDTH)


def test_report_of_nothing_sent_charges_nothing(windows: Windows, changed: dict[Cell, None]) -> None:
    use_by = windows.take("w1", 3, T0)
    windows.settle("w1", 0, 3, use_by, T0)
    assert [window.used for window in windows.of] == [0, 0]
    assert [cell.count for cell in changed] == [0, 0]
    assert windows.of[0].resets_at(T0) == T0


def test_what_has_left_the_window_is_not_refunded(windows: Windows) -> None:
    windows.take("w1", 1, T0)
    windows.roll(T0 + 200 * SECOND)
    windows.of[0].refund("w1", 1, T0 + USE_WITHIN)
    assert [window.used for window in windows.of] == [0, 1]


def test_cell_that_has_left_is_written_as_gone(windows: Windows, changed: dict[Cell, None]) -> None:
    windows.take("w1", 1, T0)
    changed.clear()
    windows.roll(T0 + 200 * SECOND)
    assert [(cell.window_ns, cell.count) for cell in changed] == [(100 * SECOND, 0)]


def test_workers_are_counted_apart_and_together(windows: Windows) -> None:
    windows.take("w1", 1, T0)
    windows.take("w2", 2, T0)
    short = windows.of[0]
    assert (short.used_by("w1"), short.used_by("w2"), short.used_by("w3")) == (1, 2, 0)
    assert short.workers() == {"w1", "w2"}
    assert not windows.is_room(1, T0)


def test_loaded_cell_counts_as_it_did(windows: Windows) -> None:
    windows.of[0].load(Cell("limit/e", windows.of[0].length_ns, (T0 + USE_WITHIN) // WIDTH, "w1", 2))
    windows.of[0].load(Cell("limit/e", windows.of[0].length_ns, (T0 + USE_WITHIN) // WIDTH, "w2", 1))
    assert not windows.is_room(1, T0 + 110 * SECOND)
    assert windows.is_room(3, T0 + 110 * SECOND + WIDTH)


def test_whoever_takes_before_a_booking_leaves_room_for_it(windows: Windows) -> None:
    windows.book(booking(3, T0 + 50 * SECOND))
    assert not windows.is_room(1, T0)
    windows.unbook(windows.bookings[1])
    assert windows.is_room(1, T0)


def test_booking_far_enough_ahead_is_in_nobody_s_way(windows: Windows) -> None:
    windows.book(booking(2, T0 + 400 * SECOND))
    assert windows.is_room(3, T0)
    windows.take("w1", 3, T0)
    # In the long window there is room for 5: none is left beside the booking.
    assert not windows.is_room(1, T0 + 200 * SECOND)


def test_earliest_is_past_a_booking_that_would_be_in_the_way(windows: Windows) -> None:
    windows.book(booking(3, T0 + 50 * SECOND))
    full = windows.earliest(3, T0, USE_WITHIN, T0)
    assert full.at == T0 + (50 + 20 + 10 + 500 + 1) * SECOND
    assert full.window_ns == 500 * SECOND


def test_resets_when_all_that_is_charged_or_booked_has_left(windows: Windows) -> None:
    windows.take("w1", 1, T0)
    short = windows.of[0]
    assert short.resets_at(T0) == T0 + 110 * SECOND + WIDTH
    windows.book(booking(1, T0 + 50 * SECOND))
    assert short.resets_at(T0) == T0 + 180 * SECOND + WIDTH


def test_what_others_use_counts_until_its_instant(windows: Windows) -> None:
    (window, _) = windows.of
    windows.take("w1", 1, T0)
    window.hold(2, T0 + 50 * SECOND, T0)
    assert not windows.is_room(1, T0)
    assert windows.earliest(1, T0, USE_WITHIN, T0) == Full(T0 + 50 * SECOND, 100 * SECOND)
    assert (window.room(USE_WITHIN, T0), window.leaves_at()) == (0, T0 + 50 * SECOND)
    # What is told anew takes its place.
    window.hold(1, T0 + 200 * SECOND, T0)
    assert window.used == 2
    assert window.resets_at(T0) == T0 + 200 * SECOND
    assert window.leaves_at() == T0 + 110 * SECOND + WIDTH
    windows.roll(T0 + 200 * SECOND - 1)
    assert window.used == 1
    assert window.leaves_at() == T0 + 200 * SECOND
    windows.roll(T0 + 200 * SECOND)
    assert (window.used, window.foreign, window.leaves_at()) == (0, 0, 0)


def test_what_has_left_is_known_for_about_a_length(windows: Windows) -> None:
    (window, _) = windows.of
    for second in range(3):
        window.charge("w1", 1, T0 + second * SECOND)
    windows.roll(T0 + 102 * SECOND)
    assert window.left_since(T0) == 2
    assert window.left_since(T0 + 100 * SECOND + WIDTH) == 1
    assert window.left_since(T0 + 101 * SECOND + WIDTH) == 0


def test_windows_that_keep_no_classes_keep_all_that_is_to_be_left(windows: Windows) -> None:
    windows.take("w1", 2, T0)
    kept = Kept(LOW, (2, 2))
    assert windows.is_room(1, T0)
    assert not windows.is_room(1, T0, kept)
    left_at = T0 + USE_WITHIN + 100 * SECOND + SECOND // 5
    assert windows.earliest(1, T0, USE_WITHIN, T0, kept) == Full(left_at, 100 * SECOND)


def test_levels_beside_what_is_kept_step_once_where_two_leave_at_one_instant(windows: Windows) -> None:
    windows.take("w1", 1, T0)
    [window, _] = windows.of
    windows.book(booking(1, T0 + 100 * SECOND))
    windows.book(booking(1, T0 + 100 * SECOND, id=2))
    levels = list(window._levels(T0, LOW, 2))
    assert [level for _, _, level in levels] == [3, 5, 4, 2]
    assert all(ends > begins for begins, ends, _ in levels)
