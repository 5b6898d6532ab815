"""What a caller gets wrong is said where it was said, and by its name."""

import datetime
import decimal
import http
from collections.abc import Callable
from typing import Any

import pytest

from coordd_client import Booking, Client, InvalidRequest, blocking
from coordd_client.testing import InMemoryDaemon


@pytest.fixture(params=[Client, blocking.Client])
def offline(request: pytest.FixtureRequest) -> Any:
    """Each client, with nobody to talk to."""
    return request.param("127.0.0.1:1", worker="w1")


_FIVE_MIN = datetime.timedelta(minutes=5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda client: client.lock("i", kind="k", ttl="5m"), "ttl is in seconds: a number, not '5m'"),
        (
            lambda client: client.lock("i", kind="k", ttl=_FIVE_MIN),
            "ttl is in seconds: a number, not datetime.timedelta(seconds=300)",
        ),
        (lambda client: client.lock("i", kind="k", wait=True), "wait is in seconds: a number, not True"),
        (lambda client: client.reservation("t", wait="1"), "wait is in seconds: a number, not '1'"),
        (lambda client: client.permit("post", wait=[]), "wait is in seconds: a number, not []"),
        (lambda client: client.lock(123, kind="k"), "item is a text, not 123"),
        (lambda client: client.lock("i", kind=b"k"), "kind is a text, not b'k'"),
        (
            lambda client: client.lock("i", kind="k", priority="high"),
            "priority is a Priority, such as Priority.MEDIUM, not 'high'",
        ),
        (
            lambda client: client.permit("post", priority=True),
            "priority is a Priority, such as Priority.MEDIUM, not True",
        ),
        (
            lambda client: client.lock("i", kind="k", quality="good"),
            "quality is a number from 0 to 1, not 'good'",
        ),
        (
            lambda client: client.lock("i", kind="k", on_queued=5),
            "on_queued is called with each Queued, but 5 cannot be",
        ),
        (lambda client: client.reservation(1), "type is a text, not 1"),
        (lambda client: client.reservation("t", 7), "resource_id is a text, not 7"),
        (lambda client: client.reservation("t", units="2"), "units is a whole number, not '2'"),
        (lambda client: client.reservation("t", units=1.5), "units is a whole number, not 1.5"),
        (lambda client: client.permit(None), "endpoint is a text, not None"),
        (lambda client: client.permit("post", True), "permits is a whole number, not True"),  # noqa: FBT003
        (lambda client: client.permit("post", booking_id="8"), "booking_id is a whole number, not '8'"),
    ],
)
def test_a_wrong_type_is_named_at_once(offline: Any, ask: Callable[[Any], Any], message: str):
    with pytest.raises(TypeError) as caught:
        ask(offline)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda client: client.get_lock(1), "item is a text, not 1"),
        (lambda client: client.get_lock("i", kind=1), "kind is a text, not 1"),
        (
            lambda client: client.has_recent_engagement("i", kinds="reply"),
            "kinds is a list of texts, not 'reply'",
        ),
        (lambda client: client.has_recent_engagement("i", kinds=[1]), "kinds is a text, not 1"),
        (
            lambda client: client.has_recent_engagement("i", within="1d"),
            "within is in seconds: a number, not '1d'",
        ),
        (lambda client: client.engagement_stats(worker=1), "worker is a text, not 1"),
        (lambda client: client.check_availability("t", units="1"), "units is a whole number, not '1'"),
        (lambda client: client.reserve_api_quota(1), "operation is a text, not 1"),
        (lambda client: client.remaining_capacity(1), "endpoint is a text, not 1"),
        (lambda client: client.worker_allocation(1), "endpoint is a text, not 1"),
        (
            lambda client: client.schedule("post", not_before="1h"),
            "not_before is in seconds: a number, not '1h'",
        ),
        (lambda client: client.cancel_schedule("8"), "booking_id is a whole number, not '8'"),
    ],
)
async def test_so_it_is_in_plain_calls(daemon: InMemoryDaemon, ask: Callable[[Client], Any], message: str):
    async with daemon.client("w1") as client:
        with pytest.raises(TypeError) as caught:
            await ask(client)
    assert str(caught.value) == message


@pytest.mark.parametrize("cls", [Client, blocking.Client])
def test_a_client_is_made_of_texts(cls: Any):
    with pytest.raises(TypeError, match="worker is a text, not 1"):
        cls(worker=1)
    with pytest.raises(TypeError, match="address is a text, not 7651"):
        cls(7651, worker="w1")


def test_what_the_wire_cannot_say_is_an_invalid_request(offline: Any):
    for booking_id in (-1, 2**64):
        with pytest.raises(InvalidRequest) as caught:
            offline.permit("post", booking_id=booking_id)
        assert caught.value.reason == "INVALID_ID"
    with pytest.raises(InvalidRequest, match="not a duration") as caught:
        offline.lock("i", kind="k", wait=float("nan"))
    assert caught.value.reason == "INVALID_DURATION"
    with pytest.raises(InvalidRequest) as caught:
        offline.lock("\udcff", kind="k")
    assert caught.value.reason == "INVALID_ID"


def test_a_long_value_is_not_repeated_whole(offline: Any):
    with pytest.raises(TypeError) as caught:
        offline.lock("i", kind="k", ttl="5" * 100_000)
    assert len(str(caught.value)) < 200


async def test_any_number_of_seconds_will_do(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        ttl: Any = decimal.Decimal("2.5")
        async with client.lock("i", kind="k", ttl=ttl, wait=ttl, quality=1) as held:
            assert held.left_s == 2.5


async def _status(client: Client, status_code: Any, headers: Any = ()) -> None:
    async with client.permit("post") as held:
        held.response(status_code, headers)


@pytest.mark.parametrize("status_code", ["200", 200.0, None, True])
async def test_a_status_of_another_type_is_refused_at_once_and_the_permit_is_settled(
    daemon: InMemoryDaemon, status_code: Any
):
    async with daemon.client("w1") as client:
        with pytest.raises(TypeError, match="status_code is a whole number, not"):
            await _status(client, status_code)
        await daemon.advance(901)
        assert (await client.remaining_capacity("post")).remaining == 3, "it counts from when it was settled"


@pytest.mark.parametrize("status_code", [0, -1, 99, 600, 2**40])
async def test_so_is_one_out_of_range(daemon: InMemoryDaemon, status_code: int):
    async with daemon.client("w1") as client:
        with pytest.raises(ValueError, match=r"not within 100\.\.599") as caught:
            await _status(client, status_code)
        await daemon.advance(901)
        assert (await client.remaining_capacity("post")).remaining == 3
    assert isinstance(caught.value, InvalidRequest)
    assert caught.value.reason == "INVALID_COUNT"


async def test_a_status_may_be_of_an_enum(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        await _status(client, http.HTTPStatus.TOO_MANY_REQUESTS)
        assert (await client.system_status()).endpoints[0].violations == 1


@pytest.mark.parametrize("headers", [None, 5, ["a"], [("a", 1)], [(b"a", b"b")], {"a": None}, "ab"])
async def test_headers_of_another_type_do_not_cost_the_status(daemon: InMemoryDaemon, headers: Any):
    async with daemon.client("w1") as client:
        with pytest.raises(TypeError, match="headers takes a mapping or pairs of texts, not"):
            await _status(client, 429, headers)
        assert (await client.system_status()).endpoints[0].violations == 1


async def test_units_that_are_not_used_are_a_count(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        with pytest.raises(TypeError, match="units is a whole number, not '1'"):
            async with client.reservation("memory") as held:
                held.unused("1")  # type: ignore[arg-type]
        assert daemon.reservations == ()


def test_a_booking_is_named_by_its_id(offline: Any):
    booking = Booking(8, None, 0.0, None, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="booking_id is a whole number, not Booking"):
        offline.permit("post", booking_id=booking)
