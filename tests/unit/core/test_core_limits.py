from coordd.core import limits


def test_ranges_are_not_empty() -> None:
    assert 0 < limits.TTL_NS_MIN < limits.TTL_NS_MAX
    assert 0 < limits.WAIT_NS_MIN < limits.WAIT_NS_MAX
    assert 0 < limits.WINDOW_NS_MIN < limits.WINDOW_NS_MAX
    assert 0 < limits.PAGE_SIZE_DEFAULT <= limits.PAGE_SIZE_MAX
    assert limits.WAITERS_PER_QUEUE_MAX <= limits.WAITERS_MAX


def test_sums_of_counters_fit_into_an_sqlite_integer() -> None:
    cells_max = limits.BUCKETS_PER_WINDOW * limits.WAITERS_MAX
    assert limits.UNITS_MAX * cells_max < 1 << 63


def test_a_bucket_rounds_by_two_thousandths_at_most() -> None:
    for length_ns in (limits.WINDOW_NS_MIN, limits.WINDOW_NS_MIN + 1, limits.WINDOW_NS_MAX):
        width_ns = -(-length_ns // limits.BUCKETS_PER_WINDOW)
        assert width_ns <= length_ns * 0.002 + 1
