"""Records, outcomes and views as messages."""

import msgspec
import pytest

from coordd.core import views
from coordd.core.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from coordd.core.outcomes import Granted, Place, Reason, Refused
from coordd.core.records import Booking, Engagement, Lock, Outcome, Permit, Reservation
from coordd.core.views import AvailabilityView, LimitView, PoolView, WindowView
from coordd.rpc import messages
from coordd.store.protocol import EngagementCount
from coordd.v1 import common_pb2, engagement_pb2, rate_limit_pb2

NOW = 1_800_000_000 * SECOND + 5
LOCK = Lock(
    token=7,
    item="tweet:1",
    kind="reply",
    worker="w1",
    granted_at=NOW - SECOND,
    expires_at=NOW + MINUTE,
    ttl_ns=0,
)
PERMIT = Permit(id=9, endpoint="post", worker="w1", count=2, granted_at=NOW, use_by=NOW + 30 * SECOND)


def test_a_lock() -> None:
    message = messages.lock(LOCK, NOW)
    assert (message.item, message.kind, message.worker, message.fencing_token) == (
        "tweet:1",
        "reply",
        "w1",
        7,
    )
    assert message.granted_at.ToNanoseconds() == NOW - SECOND
    assert message.expires_at.ToNanoseconds() == NOW + MINUTE
    assert message.expires_in.ToNanoseconds() == MINUTE


def test_what_is_over_has_no_time_left() -> None:
    assert messages.lock(LOCK, NOW + HOUR).expires_in.ToNanoseconds() == 0


def test_a_reservation() -> None:
    held = Reservation(
        id=8,
        type="api_quota",
        resource_id="tweet",
        pool="api_tweets",
        units=3,
        worker="w1",
        granted_at=NOW,
        expires_at=NOW + 1,
        ttl_ns=1,
    )
    message = messages.reservation(held, NOW)
    assert (message.reservation_id, message.type, message.resource_id) == (8, "api_quota", "tweet")
    assert (message.pool, message.units, message.worker) == ("api_tweets", 3, "w1")
    assert message.expires_in.ToNanoseconds() == 1


def test_a_permit() -> None:
    message = messages.permit(PERMIT, NOW + SECOND)
    assert (message.permit_id, message.endpoint, message.worker, message.permits) == (9, "post", "w1", 2)
    assert message.use_by.ToNanoseconds() == NOW + 30 * SECOND
    assert message.use_within.ToNanoseconds() == 29 * SECOND


def test_a_booking() -> None:
    booked = Booking(
        id=5,
        endpoint="post",
        worker="w",
        count=2,
        booked_at=NOW,
        execute_at=NOW + SECOND,
        claim_until=NOW + MINUTE,
        use_by=0,
    )
    message = messages.booking(booked, NOW)
    assert (message.booking_id, message.permits) == (5, 2)
    assert message.execute_at.ToNanoseconds() == NOW + SECOND
    assert message.estimated_delay.ToNanoseconds() == SECOND
    assert message.claim_until.ToNanoseconds() == NOW + MINUTE


def test_an_engagement() -> None:
    entry = Engagement(
        token=7, item="i", kind="k", worker="w", outcome=Outcome.UNKNOWN, at=NOW, granted_at=1, ended_by=1
    )
    message = messages.engagement(entry)
    assert message.outcome == engagement_pb2.OUTCOME_UNKNOWN
    assert (message.fencing_token, message.at.ToNanoseconds()) == (7, NOW)


def test_a_refusal_is_rounded_up_to_a_whole_millisecond() -> None:
    message = messages.refusal(Refused(reason=Reason.HELD, subject="i", retry_at=NOW + 1, holder="w"), NOW)
    assert message.reason == common_pb2.REFUSAL_REASON_HELD
    assert (message.subject, message.holder) == ("i", "w")
    assert message.retry_after.ToNanoseconds() == MILLISECOND
    assert message.retry_at.ToNanoseconds() == NOW + 1
    assert not message.HasField("window")


def test_a_refusal_that_knows_no_time_says_none() -> None:
    message = messages.refusal(Refused(reason=Reason.UNITS_TAKEN, subject="pool", position=3), NOW)
    assert not message.HasField("retry_after")
    assert not message.HasField("retry_at")
    assert message.queue_position == 3


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_number(reason: Reason) -> None:
    assert messages.refusal(Refused(reason=reason, subject=""), NOW).reason == reason


def test_a_place_in_the_queue() -> None:
    blocked = Refused(reason=Reason.WINDOW_FULL, subject="post", window_ns=HOUR)
    message = messages.queued(
        Place(position=2, wait_ns=None, blocked_by=blocked, times_out_at=NOW + SECOND), NOW
    )
    assert message.position == 2
    assert not message.HasField("estimated_wait")
    assert message.blocked_by.window.ToNanoseconds() == HOUR
    assert message.times_out_in.ToNanoseconds() == SECOND


def test_an_answer_names_the_field_it_belongs_in() -> None:
    assert set(messages.answer(Granted(grant=LOCK), NOW)) == {"granted"}
    assert messages.answer(Granted(grant=PERMIT), NOW)["granted"].permit_id == 9
    assert set(messages.answer(Refused(reason=Reason.HELD, subject=""), NOW)) == {"refused"}


@pytest.mark.parametrize(
    ("length_ns", "name"),
    [
        (15 * MINUTE, "per_15min"),
        (HOUR, "per_hour"),
        (DAY, "per_day"),
        (10 * SECOND, "per_10s"),
        (MINUTE, "per_1min"),
        (90 * SECOND, "per_90s"),
        (36 * HOUR, "per_36h"),
        (7 * DAY, "per_7d"),
        (1500 * MILLISECOND, "per_1500ms"),
        (SECOND + 1, "per_1000000001ns"),
    ],
)
def test_a_windows_name(length_ns: int, name: str) -> None:
    assert messages.window_name(length_ns) == name


@pytest.mark.parametrize(
    ("used", "health"),
    [
        (0, rate_limit_pb2.HEALTH_HEALTHY),
        (799, rate_limit_pb2.HEALTH_HEALTHY),
        (800, rate_limit_pb2.HEALTH_WARNING),
        (950, rate_limit_pb2.HEALTH_WARNING),
        (951, rate_limit_pb2.HEALTH_CRITICAL),
        (1200, rate_limit_pb2.HEALTH_CRITICAL),
    ],
)
def test_an_endpoints_health(used: int, health: rate_limit_pb2.Health.ValueType) -> None:
    status = messages.endpoint_status(limit_view(used), NOW)
    assert status.health == health
    assert status.utilisation == used / 1000
    assert status.windows[0].remaining == max(0, 1000 - used)


@pytest.mark.parametrize(
    ("state", "health", "remaining"),
    [
        (views.GateState.OPEN, rate_limit_pb2.HEALTH_HEALTHY, 900),
        (views.GateState.PROBING, rate_limit_pb2.HEALTH_WARNING, 900),
        (views.GateState.CLOSED, rate_limit_pb2.HEALTH_CRITICAL, 0),
    ],
)
def test_what_is_left_behind_a_closed_gate_is_nothing(
    state: views.GateState, health: rate_limit_pb2.Health.ValueType, remaining: int
) -> None:
    seen = msgspec.structs.replace(limit_view(100), gate=views.GateView(state=state, opens_at=NOW + SECOND))
    assert messages.endpoint_status(seen, NOW).health == health
    left = messages.remaining_capacity(seen, NOW)
    assert (left.remaining, left.windows[0].remaining) == (remaining, 900)
    assert left.gate.opens_in.seconds == (state is not views.GateState.OPEN)


def limit_view(used: int) -> LimitView:
    windows = tuple(
        WindowView(length_ns=length_ns, limit=1000 * factor, used=used, resets_at=NOW + 1)
        for length_ns, factor in ((HOUR, 1), (DAY, 10))
    )
    return LimitView(
        name="post",
        windows=windows,
        is_fair=True,
        use_within_ns=SECOND,
        claim_window_ns=MINUTE,
        queued=4,
        bookings=5,
        active_workers=6,
        violations=7,
        is_overridden=True,
    )


def test_a_limit() -> None:
    message = messages.limit(limit_view(1), NOW)
    assert (message.endpoint, message.allocation, message.queued, message.bookings) == ("post", "fair", 4, 5)
    assert [window.name for window in message.windows] == ["per_hour", "per_day"]
    assert message.windows[0].resets_in.ToNanoseconds() == MILLISECOND
    assert message.is_overridden


def test_a_pool() -> None:
    view = PoolView(
        name="p",
        capacity=10,
        used=4,
        free=6,
        queued=1,
        windows=limit_view(0).windows,
        is_overridden=False,
        capacity_min=5,
        capacity_max=20,
        overflow="deny",
        is_fair=True,
    )
    message = messages.pool(view, NOW)
    assert (message.name, message.capacity, message.used, message.free, message.queued) == ("p", 10, 4, 6, 1)
    assert len(message.windows) == 2
    assert (message.capacity_min, message.capacity_max) == (5, 20)
    assert (message.overflow, message.allocation) == ("deny", "fair")
    assert messages.pool(msgspec.structs.replace(view, is_fair=False), NOW).allocation == "priority"


def test_availability() -> None:
    free = AvailabilityView(blocked_by=None, position=0, wait_ns=0, free_units=3, capacity=5)
    message = messages.availability(free, NOW)
    assert message.available
    assert not message.HasField("blocked_by")
    assert message.HasField("estimated_wait")
    assert (message.free_units, message.capacity) == (3, 5)
    held = AvailabilityView(
        blocked_by=Refused(reason=Reason.HELD, subject="s"),
        position=2,
        wait_ns=None,
        free_units=0,
        capacity=0,
    )
    message = messages.availability(held, NOW)
    assert not message.available
    assert message.queue_position == 2
    assert not message.HasField("estimated_wait")


def test_stats_have_every_configured_kind_and_add_up() -> None:
    counts = [
        EngagementCount(kind="reply", outcome=Outcome.SUCCESS, count=3),
        EngagementCount(kind="reply", outcome=Outcome.FAILURE, count=2),
        EngagementCount(kind="gone", outcome=Outcome.UNKNOWN, count=1),
    ]
    stats = messages.engagement_stats(counts, ["reply", "like"])
    assert (stats.total, stats.successful, stats.failed, stats.unknown) == (6, 3, 2, 1)
    assert stats.success_rate == 0.5
    assert {kind: stats.by_kind[kind].total for kind in stats.by_kind} == {"reply": 5, "like": 0, "gone": 1}


def test_no_engagements_have_no_rate() -> None:
    assert messages.engagement_stats([], []).success_rate == 0
