"""The double's permits: exact rolling windows, charged until one window after the latest possible use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordd.v1 import common_pb2
from coordd.v1 import rate_limit_pb2 as pb
from coordd_client import arguments, permits
from coordd_client.errors import BookingLapsed, InvalidRequest, OutOfRange
from coordd_client.messages import duration, seconds
from coordd_client.testing._grants import Book, Shared
from coordd_client.testing._waits import Claim

_WINDOW_NAMES = {900.0: "per_15min", 3600.0: "per_hour", 86_400.0: "per_day"}
_WARNING, _CRITICAL = 0.8, 0.95
_HTTP_TOO_MANY_REQUESTS = 429


@dataclass
class _Charge:
    """Calls that count from `starts_s` until one window after `at_s`, when they may be made at last."""

    endpoint: str
    worker: str
    permits: int
    starts_s: float
    at_s: float
    lapses_s: float | None = None  # of a booking
    is_open: bool = True

    @property
    def is_booking(self) -> bool:
        return self.lapses_s is not None


class Permits(Book):
    """Windows of every endpoint, given as (length in seconds, limit)."""

    def __init__(
        self,
        shared: Shared,
        limits: Mapping[str, Sequence[tuple[float, int]]],
        use_within_s: float,
        claim_window_s: float,
    ) -> None:
        super().__init__(shared)
        self._limits = {
            endpoint: _windows(f"limits[{endpoint!r}]", windows) for endpoint, windows in limits.items()
        }
        self._use_within_s = use_within_s
        self._claim_window_s = claim_window_s
        self._violations: dict[str, int] = {}
        self.claims = {permits.AWAIT.path: self.claim}
        self.calls = {
            permits.CAN_MAKE.path: self._can_make,
            permits.RECORD.path: self.record,
            permits.GET_REMAINING.path: self._remaining,
            permits.SCHEDULE.path: self._schedule,
            permits.CANCEL.path: self._cancel,
            permits.GET_ALLOCATION.path: self._allocation,
            permits.LIST_ALLOCATIONS.path: self._allocations,
            permits.GET_STATUS.path: self._status,
        }

    def view(self, grant_id: int) -> Any:
        """See Book."""
        charge: _Charge = self.live[grant_id]
        return self._view_booking(grant_id) if charge.is_booking else self._view_permit(grant_id)

    def expire(self) -> None:
        """Bookings that were not claimed lapse; permits past their time cannot be settled any more."""
        for each, charge in list(self.live.items()):
            if charge.lapses_s is not None and charge.lapses_s <= self.now_s:
                del self.live[each]
            charge.is_open = charge.is_open and charge.at_s > self.now_s

    def _view_permit(self, permit_id: int) -> pb.Permit:
        charge: _Charge = self.live[permit_id]
        timeline = self.shared.timeline
        return pb.Permit(
            permit_id=permit_id,
            endpoint=charge.endpoint,
            worker=charge.worker,
            permits=charge.permits,
            granted_at=timeline.instant(charge.starts_s),
            use_by=timeline.instant(charge.at_s),
            use_within=duration(charge.at_s - self.now_s),
        )

    def _view_booking(self, booking_id: int) -> pb.ScheduleRequestResponse:
        charge: _Charge = self.live[booking_id]
        return pb.ScheduleRequestResponse(
            booking_id=booking_id,
            execute_at=self.shared.timeline.instant(charge.starts_s),
            estimated_delay=duration(max(0.0, charge.starts_s - self.now_s)),
            claim_until=self.shared.timeline.instant(charge.lapses_s or 0.0),
            permits=charge.permits,
        )

    def is_open(self, permit_id: int) -> bool:
        """Whether a permit is neither settled nor past its time."""
        charge = self.live.get(permit_id)
        return charge is not None and not charge.is_booking and charge.is_open

    def claim(self, request: Any) -> Claim:
        """Returns what a request asks for."""
        wanted = self._wanted(request)
        return Claim(
            lines=(f"endpoint {request.endpoint}",),
            obstacle=lambda: self._obstacle(request.endpoint, wanted),
            grant=lambda: self.begin(request, self._charge(request, wanted)),
        )

    def _charge(self, request: Any, wanted: int) -> _Charge:
        use_by_s = self.now_s + self._use_within_s
        self.shared.timeline.wake_at(use_by_s)
        return _Charge(request.endpoint, request.worker, wanted, self.now_s, use_by_s)

    def _wanted(self, request: Any) -> int:
        wanted: int = request.permits or 1
        if wanted > min(limit for _, limit in self._windows(request.endpoint)):
            raise OutOfRange("more permits than a window has", reason="PERMITS_ABOVE_LIMIT")
        return wanted

    def _windows(self, endpoint: str) -> list[tuple[float, int]]:
        if endpoint not in self._limits:
            raise InvalidRequest(f"unknown endpoint {endpoint}", reason="UNKNOWN_ENDPOINT")
        return self._limits[endpoint]

    def _charges(self, endpoint: str) -> list[_Charge]:
        return [charge for charge in self.live.values() if charge.endpoint == endpoint]

    def _used(self, endpoint: str, window_s: float, worker: str = "") -> int:
        return sum(
            charge.permits
            for charge in self._charges(endpoint)
            if charge.at_s > self.now_s - window_s and worker in {"", charge.worker}
        )

    def _has_room(
        self, endpoint: str, window: tuple[float, int], wanted: int, from_s: float, until_s: float
    ) -> bool:
        """Whether `wanted` more fit at every instant; they can cease to only where a charge starts."""
        window_s, limit = window
        charges = self._charges(endpoint)
        starts = [from_s, *(each.starts_s for each in charges if from_s < each.starts_s < until_s)]
        levels = (
            sum(each.permits for each in charges if each.starts_s <= at_s < each.at_s + window_s)
            for at_s in starts
        )
        return max(levels) + wanted <= limit

    def _frees_s(
        self, endpoint: str, window: tuple[float, int], wanted: int, start_s: float, hold_s: float
    ) -> float:
        window_s, _ = window
        leaves = sorted(each.at_s + window_s for each in self._charges(endpoint))
        for at_s in (start_s, *(each for each in leaves if each > start_s)):
            if self._has_room(endpoint, window, wanted, at_s, at_s + hold_s + window_s):
                return at_s
        raise AssertionError("once all have left, there is room")

    def _earliest(self, endpoint: str, wanted: int, start_s: float, hold_s: float) -> tuple[float, float]:
        """Returns from when on all windows have room, and the length of the one that has it last."""
        last_s = 0.0
        while True:
            at_s, window_s = max(
                (self._frees_s(endpoint, window, wanted, start_s, hold_s), window[0])
                for window in self._windows(endpoint)
            )
            if at_s <= start_s:
                return start_s, last_s
            start_s, last_s = at_s, window_s

    def _obstacle(self, endpoint: str, wanted: int) -> common_pb2.Refusal | None:
        frees_s, window_s = self._earliest(endpoint, wanted, self.now_s, self._use_within_s)
        if frees_s <= self.now_s:
            return None
        self.shared.timeline.wake_at(frees_s)
        reason = common_pb2.REFUSAL_REASON_WINDOW_FULL
        return self.shared.refusal(reason, endpoint, frees_s, window_s=window_s)

    def _can_make(self, request: pb.CanMakeRequestRequest) -> pb.CanMakeRequestResponse:
        if not request.booking_id or self.granted(request) is not None:
            reply: pb.CanMakeRequestResponse = self.ask(permits.CAN_MAKE, self.claim(request), request)
            return reply
        booking = self.held_by(request.booking_id, request.worker)
        if booking is None or not booking.is_booking:
            raise BookingLapsed("the booking is over", reason="BOOKING_LAPSED")
        if booking.starts_s > self.now_s:
            reason = common_pb2.REFUSAL_REASON_BOOKING_EARLY
            return pb.CanMakeRequestResponse(
                refused=self.shared.refusal(reason, booking.endpoint, booking.starts_s)
            )
        del self.live[request.booking_id]
        return pb.CanMakeRequestResponse(granted=self.begin(request, self._charge(request, booking.permits)))

    def record(self, request: pb.RecordUsageRequest) -> pb.RecordUsageResponse:
        """Settles a permit."""
        charge = self.held_by(request.permit_id, request.worker)
        if charge is None or not charge.is_open:
            return pb.RecordUsageResponse(already_settled=True)
        is_violation = request.status_code == _HTTP_TOO_MANY_REQUESTS
        self._violations[charge.endpoint] = self._violations.get(charge.endpoint, 0) + is_violation
        if request.result == pb.USAGE_RESULT_NOT_SENT:
            del self.live[request.permit_id]
            return pb.RecordUsageResponse(refunded=charge.permits)
        charge.is_open, charge.at_s = False, self.now_s
        return pb.RecordUsageResponse()

    def _schedule(self, request: pb.ScheduleRequestRequest) -> pb.ScheduleRequestResponse:
        if (before := self.granted(request)) is not None:
            booked: pb.ScheduleRequestResponse = before
            return booked
        wanted = self._wanted(request)
        hold_s = self._claim_window_s + self._use_within_s
        not_before_s = self.now_s + seconds(request.not_before)
        execute_s, _ = self._earliest(request.endpoint, wanted, not_before_s, hold_s)
        lapses_s = execute_s + self._claim_window_s
        self.shared.timeline.wake_at(lapses_s)
        charge = _Charge(request.endpoint, request.worker, wanted, execute_s, execute_s + hold_s, lapses_s)
        reply: pb.ScheduleRequestResponse = self.begin(request, charge)
        return reply

    def _cancel(self, request: pb.CancelScheduleRequest) -> pb.CancelScheduleResponse:
        booking = self.held_by(request.booking_id, request.worker)
        if booking is None or not booking.is_booking:
            return pb.CancelScheduleResponse(already_ended=True)
        del self.live[request.booking_id]
        return pb.CancelScheduleResponse()

    def _capacities(self, endpoint: str) -> list[pb.WindowCapacity]:
        return [self._capacity(endpoint, *window) for window in self._windows(endpoint)]

    def _capacity(self, endpoint: str, window_s: float, limit: int) -> pb.WindowCapacity:
        used = self._used(endpoint, window_s)
        leaves = (each.at_s + window_s for each in self._charges(endpoint))
        resets_s = max(self.now_s, *leaves) if used else self.now_s
        return pb.WindowCapacity(
            name=_name(window_s),
            window=duration(window_s),
            limit=limit,
            used=used,
            remaining=max(0, limit - used),
            resets_at=self.shared.timeline.instant(resets_s),
            resets_in=duration(resets_s - self.now_s),
        )

    def _remaining(self, request: pb.GetRemainingCapacityRequest) -> pb.GetRemainingCapacityResponse:
        windows = self._capacities(request.endpoint)
        return pb.GetRemainingCapacityResponse(
            windows=windows, remaining=min(window.remaining for window in windows)
        )

    def _allocation(self, request: pb.GetWorkerAllocationRequest) -> pb.GetWorkerAllocationResponse:
        windows = [
            pb.WindowAllocation(
                name=window.name,
                window=window.window,
                allocated=window.limit,
                used=self._used(request.endpoint, seconds(window.window), request.worker),
                remaining=window.remaining,
            )
            for window in self._capacities(request.endpoint)
        ]
        return pb.GetWorkerAllocationResponse(
            windows=windows, active_workers=len(self._active(request.endpoint) | {request.worker})
        )

    def _allocations(self, request: pb.ListWorkerAllocationsRequest) -> pb.ListWorkerAllocationsResponse:
        # Whoever comes first is served: nobody has a part of its own here.
        self._windows(request.endpoint)
        return pb.ListWorkerAllocationsResponse()

    def _active(self, endpoint: str) -> set[str]:
        since_s = self.now_s - self._windows(endpoint)[0][0]
        return {each.worker for each in self._charges(endpoint) if each.at_s > since_s}

    def _status(self, _: pb.GetSystemStatusRequest) -> pb.GetSystemStatusResponse:
        endpoints = [self._endpoint_status(endpoint) for endpoint in sorted(self._limits)]
        worst = max((each.health for each in endpoints), default=pb.HEALTH_HEALTHY)
        return pb.GetSystemStatusResponse(health=worst, endpoints=endpoints)

    def _endpoint_status(self, endpoint: str) -> pb.EndpointStatus:
        windows = self._capacities(endpoint)
        utilisation = max(window.used / window.limit for window in windows)
        return pb.EndpointStatus(
            endpoint=endpoint,
            health=_health(utilisation),
            utilisation=utilisation,
            active_workers=len(self._active(endpoint)),
            queued=self.shared.waits.count(f"endpoint {endpoint}"),
            windows=windows,
            violations=self._violations.get(endpoint, 0),
            gate=pb.Gate(state=pb.GATE_STATE_OPEN),
        )


def _windows(name: str, windows: Any) -> list[tuple[float, int]]:
    is_list = isinstance(windows, Sequence) and not isinstance(windows, str)
    if not is_list or not all(isinstance(each, (tuple, list)) and len(each) == 2 for each in windows):
        raise TypeError(f"{name} takes pairs of (window in seconds, limit), not {windows!r}")
    if not windows:
        raise ValueError(f"{name} has no window")
    return sorted(_window(name, *pair) for pair in windows)


def _window(name: str, window_s: Any, limit: Any) -> tuple[float, int]:
    try:
        window = (arguments.seconds(name, window_s), arguments.count(name, limit))
    except TypeError:
        pair = (window_s, limit)
        raise TypeError(f"{name} takes pairs of (window in seconds, limit), not {pair!r}") from None
    if min(window) <= 0:
        raise ValueError(f"{name} takes a window and a limit above 0, not {window!r}")
    return window


def _name(window_s: float) -> str:
    return _WINDOW_NAMES.get(window_s, f"per_{window_s:g}s")


def _health(utilisation: float) -> pb.Health.ValueType:
    if utilisation > _CRITICAL:
        return pb.HEALTH_CRITICAL
    return pb.HEALTH_WARNING if utilisation >= _WARNING else pb.HEALTH_HEALTHY
