import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordd.core.headers import NOT_TOLD, Headers, Told, parse
from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND, UNITS_MAX
from coordd.core.rules import AUTO, DELTA, EPOCH

# 2026-09-21 14:13:20 UTC.
NOW = 1_790_000_000 * SECOND


def told(*headers: tuple[str, str], form: str = AUTO) -> tuple[Told, ...]:
    read = parse(headers, NOW, form)
    assert read.malformed == 0
    return read.told


# -- IETF ----------------------------------------------------------------------------------------------------


def test_rate_limit_and_its_policies_are_matched_by_name() -> None:
    assert told(
        ("RateLimit-Policy", '"burst";q=100;w=60,"daily";q=1000;w=86400'),
        ("RateLimit", '"daily";r=900;t=3600, "burst";r=50;t=30'),
    ) == (
        Told(limit=1000, remaining=900, reset_ns=HOUR, window_ns=DAY),
        Told(limit=100, remaining=50, reset_ns=30 * SECOND, window_ns=MINUTE),
    )


def test_a_policy_of_which_nothing_is_said_now_is_told_as_well() -> None:
    assert told(("ratelimit-policy", '"burst";q=100;w=60,"daily";q=1000;w=86400, "odd";q=5')) == (
        Told(limit=100, window_ns=MINUTE),
        Told(limit=1000, window_ns=DAY),
    )


def test_several_fields_of_one_name_are_one_list() -> None:
    assert told(
        ("RateLimit-Policy", '"a";q=1;w=1'), ("RateLimit-Policy", '"b";q=2;w=2'), ("RateLimit", '"b";r=0')
    ) == (Told(limit=2, remaining=0, window_ns=2 * SECOND), Told(limit=1, window_ns=SECOND))


def test_a_partition_has_its_own_policy_where_there_is_one() -> None:
    policies = '"p";q=10;w=60, "p";q=99;w=60;pk=:QQ==:, "p";q=50;w=60;pk=other'
    for key, limit in ((":QQ==:", 99), ("other", 50), (":Qg==:", 10)):
        (entry,) = told(("RateLimit-Policy", policies), ("RateLimit", f'"p";r=3;pk={key}'))
        assert (entry.limit, entry.remaining) == (limit, 3)


def test_a_limit_without_a_policy_tells_what_is_left() -> None:
    assert told(("RateLimit", '"default";r=50;t=30')) == (Told(remaining=50, reset_ns=30 * SECOND),)
    assert told(("RateLimit", "default;r=50")) == (Told(remaining=50),)


def test_policies_of_bytes_or_of_concurrency_are_not_ours() -> None:
    assert told(("RateLimit-Policy", '"a";q=9;w=1;qu="content-bytes", "b";q=7;w=1;qu="requests"')) == (
        Told(limit=7, window_ns=SECOND),
    )


def test_the_form_of_draft_7() -> None:
    assert told(("RateLimit-Policy", "100;w=60"), ("RateLimit", "limit=100, remaining=50, reset=30")) == (
        Told(limit=100, remaining=50, reset_ns=30 * SECOND, window_ns=MINUTE),
    )
    assert told(("RateLimit", "remaining=50")) == (Told(remaining=50),)


# -- in threes -----------------------------------------------------------------------------------------------


def test_the_older_fields_have_seconds_from_now_and_may_have_policies() -> None:
    assert told(
        ("RateLimit-Limit", "100, 100;w=60, 1000;w=3600, 7"),
        ("RateLimit-Remaining", "50"),
        ("RateLimit-Reset", "1790000030"),
    ) == (
        Told(limit=100, remaining=50, reset_ns=1_790_000_030 * SECOND, window_ns=MINUTE),
        Told(limit=1000, window_ns=HOUR),
    )


def test_a_quota_may_have_its_window_itself_or_from_the_policy_field() -> None:
    assert told(("RateLimit-Limit", "100;w=60")) == (Told(limit=100, window_ns=MINUTE),)
    assert told(("RateLimit-Limit", "100"), ("RateLimit-Policy", "100;w=60")) == (
        Told(limit=100, window_ns=MINUTE),
    )


@pytest.mark.parametrize(
    ("form", "value", "reset_ns"),
    [
        (AUTO, "1790000300", 300 * SECOND),
        (AUTO, "1790000300.25", 300_250 * MILLISECOND),
        (AUTO, "1790000300250", 300_250 * MILLISECOND),
        (AUTO, "1789999999", 0),
        (AUTO, "300", 300 * SECOND),
        (AUTO, "99999999", 99_999_999 * SECOND),
        (EPOCH, "1790000300", 300 * SECOND),
        (EPOCH, "300", 0),
        (DELTA, "1790000300", 1_790_000_300 * SECOND),
        (DELTA, "0.5", SECOND // 2),
    ],
)
def test_a_reset_is_read_as_configured_or_by_its_size(form: str, value: str, reset_ns: int) -> None:
    for prefix in ("X-RateLimit", "x-rate-limit"):
        headers = ((f"{prefix}-Limit", "60"), (f"{prefix}-Remaining", "5"), (f"{prefix}-Reset", value))
        assert told(*headers, form=form) == (Told(limit=60, remaining=5, reset_ns=reset_ns),)


def test_seconds_until_the_reset_win_over_its_instant() -> None:
    (entry,) = told(
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", "1790000300"),
        ("X-RateLimit-Reset-After", "64.57"),
    )
    assert entry == Told(remaining=0, reset_ns=64_570 * MILLISECOND)


def test_the_first_dialect_that_says_something_is_believed() -> None:
    both = (("X-RateLimit-Limit", "5"), ("RateLimit-Limit", "6"))
    assert told(*both) == (Told(limit=6),)
    assert told(*both, ("RateLimit", '"a";r=7')) == (Told(remaining=7),)
    read = parse([*both, ("RateLimit", '"a"')], NOW, AUTO)
    assert read == Headers(told=(Told(limit=6),), malformed=1)


# -- as sent by ----------------------------------------------------------------------------------------------


def test_github() -> None:
    assert told(
        ("X-RateLimit-Limit", "5000"),
        ("X-RateLimit-Remaining", "4987"),
        ("X-RateLimit-Reset", "1790001350"),
        ("X-RateLimit-Used", "13"),
        ("X-RateLimit-Resource", "core"),
    ) == (Told(limit=5000, remaining=4987, reset_ns=1350 * SECOND),)


def test_twitter() -> None:
    assert told(
        ("x-rate-limit-limit", "200"),
        ("x-rate-limit-remaining", "199"),
        ("x-rate-limit-reset", "1790000900"),
        ("x-user-limit-24hour-limit", "100"),
        ("x-user-limit-24hour-remaining", "42"),
        ("x-user-limit-24hour-reset", "1790050000"),
    ) == (
        Told(limit=200, remaining=199, reset_ns=900 * SECOND),
        Told(limit=100, remaining=42, reset_ns=50_000 * SECOND, window_ns=DAY),
    )


# -- Retry-After ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "retry_after_ns"),
    [
        ("120", 120 * SECOND),
        ("0", 0),
        ("1.5", 1500 * MILLISECOND),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30 * SECOND),
        ("Monday, 21-Sep-26 14:13:50 GMT", 30 * SECOND),
        ("Mon Sep 21 14:13:50 2026", 30 * SECOND),
        ("Mon, 21 Sep 2026 14:13:19 GMT", 0),
    ],
)
def test_retry_after_in_its_forms(value: str, retry_after_ns: int) -> None:
    assert parse([("Retry-After", value)], NOW, AUTO) == Headers(retry_after_ns=retry_after_ns)


# -- malformed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Retry-After", "soon"),
        ("Retry-After", "-1"),
        ("Retry-After", "Mon, 99 Sep 2026 14:13:50 GMT"),
        ("RateLimit", ""),
        ("RateLimit", '"a"'),
        ("RateLimit", '"a";r=-1'),
        ("RateLimit", '"a";r=1.0'),
        ("RateLimit", '"a";r=?1'),
        ("RateLimit", '"a";r=1;t="x"'),
        ("RateLimit", '("a" "b");r=1'),
        ("RateLimit", "limit=5"),
        ("RateLimit", "\u00e9"),
        ("RateLimit-Policy", '"a"'),
        ("RateLimit-Policy", '"a";q=1;w=-1'),
        ("RateLimit-Policy", "?1;q=1"),
        ("RateLimit-Policy", '"a;q=1'),
        ("X-RateLimit-Limit", "many"),
        ("X-RateLimit-Remaining", "-1"),
        ("X-RateLimit-Remaining", "\u0663"),
        ("X-RateLimit-Remaining", "1, 2"),
        ("X-RateLimit-Reset", "1e9"),
        ("X-RateLimit-Reset", "2026-09-21T14:13:50Z"),
    ],
)
def test_a_malformed_field_is_ignored_and_counted(name: str, value: str) -> None:
    read = parse([(name, value), ("X-RateLimit-Used", "?")], NOW, AUTO)
    assert read == Headers(malformed=1) or (value == "" and read == Headers())


def test_a_malformed_field_does_not_spoil_its_neighbours() -> None:
    read = parse([("X-RateLimit-Limit", "60"), ("X-RateLimit-Remaining", "?")], NOW, AUTO)
    assert read == Headers(told=(Told(limit=60),), malformed=1)


def test_what_is_larger_than_anything_we_count_is_as_much_as_we_count() -> None:
    (entry,) = told(("X-RateLimit-Limit", "999999999999999"))
    assert entry.limit == UNITS_MAX


def test_other_fields_cost_nothing() -> None:
    assert parse([("Content-Type", "text/plain")], NOW, AUTO) is parse([], NOW, AUTO)


NAMES = st.sampled_from(
    ["RateLimit", "RateLimit-Policy", "Retry-After"]
    + [
        f"{prefix}-{part}"
        for prefix in ("RateLimit", "X-RateLimit", "x-rate-limit", "x-user-limit-24hour")
        for part in ("Limit", "Remaining", "Reset", "Reset-After")
    ]
)
# Nearly right is what finds most.
ALMOST = st.text(alphabet='"ab;=,rqtwpk:0123456789.-?() @\u00e9\ud800', max_size=30)
VALUES = st.one_of(
    st.text(max_size=40),
    ALMOST,
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.tuples(ALMOST, st.integers(), st.integers()).map(
        lambda t: f'"{t[0]}";q={t[1]};w={t[2]};r={t[1]};t={t[2]}'
    ),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.sampled_from([AUTO, EPOCH, DELTA]))
def test_nothing_that_comes_in_raises(headers: list[tuple[str, str]], form: str) -> None:
    read = parse(headers, NOW, form)
    assert 0 <= read.malformed <= len(headers)
    assert read.retry_after_ns >= NOT_TOLD
    for entry in read.told:
        assert -1 <= entry.limit <= UNITS_MAX
        assert min(entry.remaining, entry.reset_ns) >= NOT_TOLD
        assert entry.window_ns >= 0
