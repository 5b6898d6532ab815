"""The rule of admission, with its own time; and what refused calls are told."""

import itertools

import pytest
from google.protobuf import descriptor
from google.rpc import error_details_pb2

from coordd.core.limits import (
    CALLS_IN_PROGRESS_MIN,
    DELAY_INTERVAL_NS,
    DELAY_TARGET_NS,
    MILLISECOND,
    REFUSALS_AT_ONCE_MAX,
    REFUSALS_PER_SECOND_MIN,
    SECOND,
)
from coordd.rpc.admission import Admission, Place, away_ns
from coordd.rpc.admission_methods import CRITICAL, SHEDDABLE, VITAL
from coordd.rpc.admission_refusals import refusals
from coordd.v1 import admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2

START = 1_000 * SECOND
SLOW = DELAY_TARGET_NS + 1


def admitted(admission: Admission, count: int, *, is_critical: bool = False) -> list[Place]:
    """Admit so many calls."""
    places = [admission.admit(is_critical=is_critical) for _ in range(count)]
    assert None not in places
    return [place for place in places if place is not None]


def intervals(admission: Admission, delays_ns: list[list[int]], at: int = START) -> int:
    """Let calls be delayed so, interval by interval; return the time after them."""
    if at == START:
        admission.delayed(0, at)  # begins the first interval
    for delays in delays_ns:
        for delay_ns in delays[:-1]:
            admission.delayed(delay_ns, at + 1)
        at += DELAY_INTERVAL_NS
        admission.delayed(delays[-1], at)
    return at


class TestPlaces:
    def test_as_many_are_in_progress_as_the_limit_says(self) -> None:
        admission = Admission(2)
        first, _ = admitted(admission, 2)
        assert admission.admit() is None
        first.leave()
        assert admission.admit() is not None

    def test_a_place_is_left_once(self) -> None:
        admission = Admission(2)
        first, _ = admitted(admission, 2)
        first.leave()
        first.leave()
        assert admission.in_progress == 1

    def test_critical_ones_have_a_reserve_half_as_large_again(self) -> None:
        admission = Admission(4)
        admitted(admission, 4)
        reserved = admitted(admission, 2, is_critical=True)
        assert all(place.is_reserved for place in reserved)
        assert admission.admit(is_critical=True) is None
        reserved[0].leave()
        assert admission.admit() is None
        admitted(admission, 1, is_critical=True)

    def test_a_critical_one_leaves_the_reserve_alone_while_there_is_room(self) -> None:
        admission = Admission(1)
        [place] = admitted(admission, 1, is_critical=True)
        assert not place.is_reserved

    def test_even_a_limit_of_one_has_a_reserve(self) -> None:
        admission = Admission(1)
        admitted(admission, 1)
        admitted(admission, 1, is_critical=True)

    def test_refused_ones_are_counted(self) -> None:
        admission = Admission(1)
        for _ in range(3):
            admission.refuse(START)
        assert admission.refused == 3

    def test_whoever_waits_is_told_when_a_place_is_free(self) -> None:
        admission, told = Admission(1), []
        [place] = admitted(admission, 1)
        admission.on_room = lambda: told.append(admission.in_progress)
        place.leave()
        place.leave()
        assert told == [0]
        assert place.is_left


class TestLimit:
    def test_it_falls_while_calls_are_late_in_the_mean(self) -> None:
        admission = Admission(100)
        at = intervals(admission, [[SLOW, SLOW]])
        assert admission.limit == 80
        intervals(admission, [[SLOW]], at)
        assert admission.limit == 64

    def test_a_few_that_are_late_do_not_make_it_fall(self) -> None:
        admission = Admission(100)
        intervals(admission, [[4 * DELAY_TARGET_NS, 0, 0, 0]])
        assert admission.limit == 100

    def test_it_never_falls_below_what_fills_a_batch(self) -> None:
        admission = Admission(100)
        intervals(admission, [[SLOW]] * 50)
        assert admission.limit == CALLS_IN_PROGRESS_MIN

    def test_nor_does_it_rise_to_that_where_less_is_configured(self) -> None:
        admission = Admission(3)
        intervals(admission, [[SLOW]] * 50)
        assert admission.limit == 3

    def test_it_rises_again_when_it_stands_in_the_way_and_nobody_waits(self) -> None:
        admission = Admission(100)
        at = intervals(admission, [[SLOW]] * 50)
        admitted(admission, CALLS_IN_PROGRESS_MIN)
        assert admission.admit() is None
        intervals(admission, [[0]], at)
        assert admission.limit == CALLS_IN_PROGRESS_MIN + 5

    def test_it_stays_where_it_is_while_nobody_is_refused(self) -> None:
        admission = Admission(100)
        at = intervals(admission, [[SLOW]])
        intervals(admission, [[0]] * 10, at)
        assert admission.limit == 80

    def test_it_never_rises_above_what_is_configured(self) -> None:
        admission = Admission(1)
        admitted(admission, 1)
        assert admission.admit() is None
        intervals(admission, [[0]])
        assert admission.limit == 1


class TestTimeToStayAway:
    def test_it_doubles_with_each_second_in_which_somebody_was_refused(self) -> None:
        admission = Admission(1)
        levels = []
        for second in range(10):
            for _ in range(3):
                admission.refuse(START + second * SECOND)
            levels.append(admission.level)
        assert levels == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6]

    def test_it_falls_with_each_second_in_which_nobody_was(self) -> None:
        admission = Admission(1)
        for second in range(6):
            admission.refuse(START + second * SECOND)
        admission.refuse(START + 8 * SECOND)
        assert admission.level == 5 + 1 - 2
        admission.refuse(START + 100 * SECOND)
        assert admission.level == 0

    def test_it_begins_at_a_tenth_of_a_second_and_spreads_to_twice_that(self) -> None:
        assert away_ns(0, 0) == 100 * MILLISECOND
        assert away_ns(0, 1) == 200 * MILLISECOND
        assert away_ns(6, 0) == 6_400 * MILLISECOND


class TestTimeToRefuse:
    def test_while_nothing_is_late_there_is_time_for_all(self) -> None:
        admission = Admission(1)
        assert all(admission.may_refuse(START) for _ in range(10_000))

    def test_while_calls_are_late_one_is_refused_for_every_two_that_are_answered(self) -> None:
        admission = Admission(100)
        at = intervals(admission, [[SLOW]])
        assert admission.may_refuse(at)  # the few besides
        assert not admission.may_refuse(at)
        for place in admitted(admission, 5):
            place.leave()
        assert [admission.may_refuse(at) for _ in range(3)] == [True, True, False]

    def test_a_quiet_hour_is_not_time_for_thousands(self) -> None:
        admission = Admission(1)
        for _ in range(10_000):
            admitted(admission, 1)[0].leave()
        at = intervals(admission, [[SLOW]])
        assert sum(admission.may_refuse(at) for _ in range(10_000)) == REFUSALS_AT_ONCE_MAX + 1

    def test_where_nothing_is_answered_some_are_refused_all_the_same(self) -> None:
        admission = Admission(1)
        at = intervals(admission, [[SLOW]])
        in_a_second = [admission.may_refuse(at + ms * MILLISECOND) for ms in range(1_000)]
        assert sum(in_a_second) == REFUSALS_PER_SECOND_MIN

    def test_once_calls_are_in_time_again_there_is_time_for_all(self) -> None:
        admission = Admission(1)
        at = intervals(admission, [[SLOW]])
        at = intervals(admission, [[0]], at)
        assert all(admission.may_refuse(at) for _ in range(10_000))


class TestRefusals:
    def test_those_refused_together_come_back_apart(self) -> None:
        row = itertools.islice(refusals(2, 7), 32)
        times = [refusal.failure.retry_ns for refusal in row]
        assert times[:16] == times[16:]
        assert len(set(times)) == 16
        assert min(times) == 400 * MILLISECOND
        assert max(times) < 800 * MILLISECOND
        assert all(abs(one - other) >= 100 * MILLISECOND for one, other in itertools.pairwise(times))

    def test_each_says_which_bound_and_when_to_come_back(self) -> None:
        refusal = next(refusals(0, 7))
        info, retry = refusal.failure.details()
        assert isinstance(info, error_details_pb2.ErrorInfo)
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert (info.reason, dict(info.metadata)) == (
            "OVERLOADED",
            {"bound": "server.max_calls", "value": "7"},
        )
        assert retry.retry_delay.ToNanoseconds() == refusal.failure.retry_ns
        assert ("grpc-retry-pushback-ms", "100") in refusal.trailers


@pytest.mark.parametrize(
    "file", [admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2]
)
def test_of_every_method_it_is_said_whether_it_may_be_refused(file: descriptor.FileDescriptor) -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods <= VITAL | SHEDDABLE
    assert not VITAL & SHEDDABLE


def test_every_request_with_a_priority_has_a_lane() -> None:
    files = (bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2)
    with_priority = {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if "priority" in method.input_type.fields_by_name
    }
    assert set(CRITICAL.values()) == with_priority
    assert with_priority <= SHEDDABLE
