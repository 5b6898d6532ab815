"""Checks of form: each bound from both sides, with its documented reason, none echoing what it refuses."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from coordd.core import limits
from coordd.core.errors import InvalidArgument
from coordd.core.rules import CRITICAL, LOW, MEDIUM
from coordd.rpc import fields
from coordd.v1 import admin_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2

DAY_S = 86_400


def refused(reason: str, check: Callable[..., Any], *arguments: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        check(*arguments)
    assert caught.value.reason == reason
    assert caught.value.metadata["field"]
    return caught.value


@pytest.mark.parametrize(
    "value", ["a", "x" * 512, "ü" * 256, "tweet:1 2", "https://example.org/ä?b=c", "推文"]
)
def test_an_item_is_printable_and_at_most_512_bytes(value: str) -> None:
    assert fields.item(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 513,
        "ü" * 257,
        "a\nb",
        "a\tb",
        "\x00",
        "a\x7f",
        "\u202eabc",
        "a\u2028b",
        "a\u00a0b",
        "\ue000",
    ],
)
def test_an_item_that_is_not_is_refused(value: str) -> None:
    refused("INVALID_ID", fields.item, value)


def test_a_refusal_does_not_echo_the_text() -> None:
    error = refused("INVALID_ID", fields.item, "secret" * 1000)
    assert "secret" not in error.message
    assert "secret" not in str(error.metadata)
    assert error.metadata == {"field": "item", "bytes": "6000", "bytes_max": "512"}


@pytest.mark.parametrize(
    ("check", "bytes_max"),
    [
        (fields.worker, limits.WORKER_BYTES_MAX),
        (fields.worker_filter, limits.WORKER_BYTES_MAX),
        (fields.request_id, limits.REQUEST_ID_BYTES_MAX),
        (fields.resource_id, limits.ITEM_BYTES_MAX),
        (lambda value: fields.name("kind", value), limits.NAME_BYTES_MAX),
        (lambda value: fields.name_filter("type", value), limits.NAME_BYTES_MAX),
    ],
)
def test_every_name_has_its_length(check: Callable[[str], str], bytes_max: int) -> None:
    assert check("x" * bytes_max) == "x" * bytes_max
    refused("INVALID_ID", check, "x" * (bytes_max + 1))


def test_what_is_required_and_what_is_not() -> None:
    refused("INVALID_ID", fields.worker, "")
    refused("INVALID_ID", fields.name, "kind", "")
    assert fields.worker_filter("") == fields.request_id("") == fields.resource_id("") == ""
    assert fields.name_filter("type", "") == ""


@pytest.mark.parametrize(
    ("seconds", "nanos", "ns"),
    [(0, 100_000_000, limits.TTL_NS_MIN), (900, 0, 900 * limits.SECOND), (DAY_S, 0, limits.DAY)],
)
def test_a_ttl_within_its_bounds(seconds: int, nanos: int, ns: int) -> None:
    request = engagement_pb2.RequestLockRequest(ttl=Duration(seconds=seconds, nanos=nanos))
    assert fields.ttl_ns(request) == ns


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(),
        Duration(nanos=99_999_999),
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=DAY_S, nanos=1),
        Duration(seconds=2**63 - 1),
        Duration(seconds=-(2**63)),
        Duration(seconds=1, nanos=1_000_000_000),
        Duration(seconds=1, nanos=2**31 - 1),
        Duration(seconds=1, nanos=-1),
        Duration(seconds=-1, nanos=2_000_000_000 - 1),
    ],
    ids=str,
)
def test_a_ttl_that_is_negative_absurd_or_malformed_is_refused(ttl: Duration) -> None:
    refused("INVALID_DURATION", fields.ttl_ns, engagement_pb2.RequestLockRequest(ttl=ttl))


def test_a_latency_is_anything_from_nothing_up() -> None:
    release = reservation_pb2.ReleaseResourceRequest
    assert fields.latency_ns(release()) == 0
    assert fields.latency_ns(release(latency=Duration())) == 0
    assert fields.latency_ns(release(latency=Duration(seconds=30 * DAY_S))) == 30 * limits.DAY
    refused("INVALID_DURATION", fields.latency_ns, release(latency=Duration(nanos=-1)))


def test_how_work_went_need_not_be_said() -> None:
    assert [fields.work_result(value) for value in (0, 1, 2)] == [0, 1, 2]
    refused("INVALID_ENUM", fields.work_result, 3)


def test_an_absent_duration_means_the_default() -> None:
    request = engagement_pb2.AwaitLockRequest()
    assert fields.ttl_ns(request) == 0
    assert fields.wait_ns(request, 17) == 17
    assert fields.within_ns(engagement_pb2.GetEngagementStatsRequest()) == limits.DAY


@pytest.mark.parametrize("value", [0.0, -0.0, 0.5, 1.0])
def test_a_quality_within_0_and_1(value: float) -> None:
    assert fields.quality(value) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, 1.0000001])
def test_any_other_quality_is_refused(value: float) -> None:
    refused("INVALID_QUALITY", fields.quality, value)


def test_an_unspecified_priority_means_medium() -> None:
    assert fields.priority(0) == MEDIUM
    assert [fields.priority(LOW), fields.priority(CRITICAL)] == [LOW, CRITICAL]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (fields.priority, 5),
        (fields.priority, -1),
        (fields.outcome, 0),
        (fields.outcome, 4),
        (fields.usage_result, 0),
        (fields.usage_result, 2**31 - 1),
    ],
)
def test_an_enum_number_nobody_knows_is_refused(check: Callable[[int], int], value: int) -> None:
    refused("INVALID_ENUM", check, value)


@pytest.mark.parametrize("value", [0, 100, 429, 599])
def test_a_status_code(value: int) -> None:
    assert fields.status_code(value) == value


@pytest.mark.parametrize("value", [1, 99, 600, 2**32 - 1])
def test_a_status_code_that_is_none(value: int) -> None:
    refused("INVALID_COUNT", fields.status_code, value)


def header(name: str, value: str = "") -> rate_limit_pb2.Header:
    return rate_limit_pb2.Header(name=name, value=value)


def test_headers_come_through_as_they_are() -> None:
    given = [header("X-RateLimit-Reset", "1\r\n2"), header("x" * 256, "y" * 4096)] + [header("a")] * 98
    assert fields.headers(given)[:2] == (("X-RateLimit-Reset", "1\r\n2"), ("x" * 256, "y" * 4096))


@pytest.mark.parametrize(
    "given", [[header("")], [header("x" * 257)], [header("x", "ü" * 2049)], [header("x")] * 101]
)
def test_headers_beyond_their_bounds_are_refused(given: list[rate_limit_pb2.Header]) -> None:
    refused("INVALID_HEADERS", fields.headers, given)


def window(seconds: int, limit: int) -> admin_pb2.WindowLimit:
    return admin_pb2.WindowLimit(window=Duration(seconds=seconds), limit=limit)


def test_windows_by_length() -> None:
    assert fields.windows([window(900, 180), window(3600, 720)]) == {
        15 * limits.MINUTE: 180,
        limits.HOUR: 720,
    }


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("INVALID_DURATION", [window(0, 1)]),
        ("INVALID_DURATION", [window(-900, 1)]),
        ("INVALID_DURATION", [window(32 * DAY_S, 1)]),
        ("INVALID_COUNT", [window(900, 0)]),
        ("INVALID_COUNT", [window(900, 10**9 + 1)]),
        ("INVALID_COUNT", [window(seconds, 1) for seconds in range(1, 10)]),
        ("CONTRADICTING_WINDOWS", [window(900, 1), window(900, 2)]),
    ],
)
def test_windows_beyond_their_bounds_are_refused(reason: str, given: list[admin_pb2.WindowLimit]) -> None:
    refused(reason, fields.windows, given)


def test_a_page_has_100_entries_unless_said() -> None:
    assert [fields.page_size(value) for value in (0, 1, 1000)] == [100, 1, 1000]
    refused("INVALID_PAGE", fields.page_size, 1001)


def test_a_page_token_leads_back_to_where_it_came_from() -> None:
    assert fields.after_id("locks", "") == 0
    assert fields.after_id("locks", fields.page_token("locks", 42)) == 42
    assert fields.after_name("pools", "") == ""
    assert fields.after_name("pools", fields.page_token("pools", "a:b ü")) == "a:b ü"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "!!!!",
        "ü",
        "AAAA",
        fields.page_token("pools", 42),
        fields.page_token("locks", ""),
        fields.page_token("locks", "-1"),
        fields.page_token("locks", "1_0"),
        fields.page_token("locks", "٣"),
        fields.page_token("locks", 2**63),
        fields.page_token("locks", "9" * 5000),
        fields.page_token("locks", 42)[:-1],
    ],
)
def test_a_page_token_that_is_not_this_lists_is_refused(token: str) -> None:
    refused("INVALID_PAGE", fields.after_id, "locks", token)


def test_names_are_listed_once() -> None:
    assert fields.names("kinds", ["reply", "like", "reply"]) == ("reply", "like")
    refused("INVALID_ID", fields.names, "kinds", ["reply", ""])


@pytest.mark.parametrize(
    ("check", "bounds"),
    [
        (lambda: fields.ttl_ns(engagement_pb2.RequestLockRequest(ttl=Duration(nanos=1))), "100ms..24h"),
        (lambda: fields.duration_ns("x", Duration(seconds=-1), 0, 1), "0s..1ns"),
        (lambda: fields.duration_ns("x", Duration(), 1_500, 31 * limits.DAY), "1500ns..31d"),
        (lambda: fields.duration_ns("x", Duration(), 90 * limits.SECOND, 3 * limits.HOUR), "90s..3h"),
    ],
)
def test_bounds_of_a_duration_are_for_people(check: Callable[[], object], bounds: str) -> None:
    with pytest.raises(InvalidArgument, match=rf" is not within {re.escape(bounds)}$") as caught:
        check()
    assert caught.value.metadata["ns_max"].isdecimal()


@pytest.mark.parametrize(
    ("weight", "milli"), [(0, 0), (0.001, 1), (0.0015, 2), (1, 1_000), (1_000, 1_000_000)]
)
def test_weights_are_kept_in_thousandths(weight: float, milli: int) -> None:
    assert fields.weight_milli(weight) == milli


@pytest.mark.parametrize("weight", [0.000_9, -1, 1_000.1, math.nan, math.inf])
def test_weights_beyond_their_bounds_are_refused(weight: float) -> None:
    refused("INVALID_COUNT", fields.weight_milli, weight)


def test_labels_are_the_same_in_any_order() -> None:
    assert (
        fields.labels({"b": "\u00e9", "a": ""})
        == fields.labels({"a": "", "b": "\u00e9"})
        == '{"a":"","b":"\u00e9"}'
    )
    assert fields.labels({}) == "{}"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"": "x"}, "INVALID_ID"),
        ({"x" * 65: ""}, "INVALID_ID"),
        ({"a": "x" * 65}, "INVALID_ID"),
        ({"a": "\t"}, "INVALID_ID"),
        ({str(number): "" for number in range(17)}, "INVALID_COUNT"),
    ],
)
def test_labels_beyond_their_bounds_are_refused(labels: dict[str, str], reason: str) -> None:
    refused(reason, fields.labels, labels)
