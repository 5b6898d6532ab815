"""The double's reservations: a type named in `pools` takes units of it, any other is exclusive by id."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordd.v1 import common_pb2
from coordd.v1 import reservation_pb2 as pb
from coordd_client import arguments, reservations
from coordd_client.errors import InvalidRequest, LeaseLost, OutOfRange
from coordd_client.messages import duration, seconds
from coordd_client.testing._grants import Book, Shared, page
from coordd_client.testing._waits import Claim

_TTL_S_DEFAULT = 1800.0


@dataclass
class _Held:
    type: str
    resource_id: str
    worker: str
    units: int
    granted_s: float
    ttl_s: float
    ends_s: float


class Reservations(Book):
    """Units of pools, and resources that are exclusive by id."""

    def __init__(self, shared: Shared, pools: Mapping[str, int]) -> None:
        super().__init__(shared)
        self._pools = {type_: arguments.count(f"pools[{type_!r}]", units) for type_, units in pools.items()}
        self._released: set[int] = set()
        self.claims = {reservations.AWAIT.path: self.claim}
        self.calls = {
            reservations.RESERVE.path: lambda request: self.ask(
                reservations.RESERVE, self.claim(request), request
            ),
            reservations.RESERVE_QUOTA.path: self._reserve_quota,
            reservations.RENEW.path: self._renew,
            reservations.RELEASE.path: self._release,
            reservations.CHECK.path: self._check,
            reservations.LIST.path: self._list,
        }

    def view(self, grant_id: int) -> pb.Reservation:
        """See Book."""
        held: _Held = self.live[grant_id]
        timeline = self.shared.timeline
        return pb.Reservation(
            reservation_id=grant_id,
            type=held.type,
            resource_id=held.resource_id,
            pool=held.type if held.type in self._pools else "",
            units=held.units,
            worker=held.worker,
            granted_at=timeline.instant(held.granted_s),
            expires_at=timeline.instant(held.ends_s),
            expires_in=duration(held.ends_s - self.now_s),
        )

    def expire(self) -> None:
        """See Book."""
        self.live = {each: held for each, held in self.live.items() if held.ends_s > self.now_s}

    def release(self, reservation_id: int) -> None:
        """Ends a reservation as its holder says, if it lives."""
        if self.live.pop(reservation_id, None) is not None:
            self._released.add(reservation_id)

    def was_released(self, reservation_id: int) -> bool:
        """Whether its holder has ended it."""
        return reservation_id in self._released

    def claim(self, request: Any) -> Claim:
        """Returns what a request asks for."""
        units = self._units(request)
        by_id = (f"resource {request.type}/{request.resource_id}",) if request.resource_id else ()
        return Claim(
            lines=(*by_id, f"resource {request.type}") if units else by_id,
            obstacle=lambda: self._obstacle(request, units),
            grant=lambda: self.begin(request, self._lease(request, units)),
        )

    def _lease(self, request: Any, units: int) -> _Held:
        ttl_s = seconds(request.ttl) if request.HasField("ttl") else _TTL_S_DEFAULT
        ends_s = self.now_s + ttl_s
        self.shared.timeline.wake_at(ends_s)
        return _Held(request.type, request.resource_id, request.worker, units, self.now_s, ttl_s, ends_s)

    def _units(self, request: Any) -> int:
        capacity = self._pools.get(request.type)
        if capacity is None:
            _check_without_pool(request)
            return 0
        if request.units > capacity:
            raise OutOfRange("more units than the pool has", reason="UNITS_ABOVE_CAPACITY")
        return int(request.units) or 1

    def _obstacle(self, request: Any, units: int) -> common_pb2.Refusal | None:
        wanted = (request.type, request.resource_id)
        for held in self.live.values():
            if request.resource_id and (held.type, held.resource_id) == wanted:
                subject = f"{held.type}/{held.resource_id}"
                reason = common_pb2.REFUSAL_REASON_HELD
                return self.shared.refusal(reason, subject, held.ends_s, held.worker)
        if units > self._free(request.type):
            return self.shared.refusal(common_pb2.REFUSAL_REASON_UNITS_TAKEN, request.type, None)
        return None

    def _free(self, type_: str) -> int:
        taken: int = sum(held.units for held in self.live.values() if held.type == type_)
        return self._pools.get(type_, 0) - taken

    def _reserve_quota(self, request: pb.ReserveApiQuotaRequest) -> pb.ReserveApiQuotaResponse:
        asked = pb.ReserveResourceRequest(
            type=request.operation,
            worker=request.worker,
            units=request.units or 1,
            request_id=request.request_id,
        )
        return pb.ReserveApiQuotaResponse(**_result(self.ask(reservations.RESERVE, self.claim(asked), asked)))

    def _renew(self, request: pb.RenewReservationRequest) -> pb.RenewReservationResponse:
        held = self.held_by(request.reservation_id, request.worker)
        if held is None:
            raise LeaseLost("the lease is over", reason="LEASE_LOST")
        held.ttl_s = seconds(request.ttl) if request.HasField("ttl") else held.ttl_s
        held.ends_s = self.now_s + held.ttl_s
        self.shared.timeline.wake_at(held.ends_s)
        return pb.RenewReservationResponse(reservation=self.view(request.reservation_id))

    def _release(self, request: pb.ReleaseResourceRequest) -> pb.ReleaseResourceResponse:
        held = self.held_by(request.reservation_id, request.worker)
        if held is not None and request.unused_units:
            message = f"{request.unused_units} unused units can't go back: only those of a refilling pool do."
            details = {"field": "unused_units", "units": "0"}
            raise InvalidRequest(message, reason="INVALID_COUNT", metadata=details)
        self.release(request.reservation_id)
        return pb.ReleaseResourceResponse(already_released=held is None)

    def _check(self, request: pb.CheckAvailabilityRequest) -> pb.CheckAvailabilityResponse:
        blocked_by = self.shared.waits.refusal(self.claim(request), request)
        return pb.CheckAvailabilityResponse(
            available=blocked_by is None,
            queue_position=0 if blocked_by is None else blocked_by.queue_position,
            estimated_wait=duration(0) if blocked_by is None else None,
            blocked_by=blocked_by,
            free_units=max(0, self._free(request.type)),
            capacity=self._pools.get(request.type, 0),
        )

    def _list(self, request: pb.ListReservationsRequest) -> pb.ListReservationsResponse:
        ids = [
            each
            for each, held in self.live.items()
            if request.worker in {"", held.worker} and request.type in {"", held.type}
        ]
        ids, next_page_token = page(ids, request)
        return pb.ListReservationsResponse(reservations=map(self.view, ids), next_page_token=next_page_token)


def _check_without_pool(request: Any) -> None:
    if request.units:
        message = f"The type {request.type} has no pool, hence no units."
        raise InvalidRequest(message, reason="NO_POOL", metadata={"type": request.type})
    if not request.resource_id:
        message = f"The type {request.type} has no pool, hence needs a resource_id."
        raise InvalidRequest(message, reason="INVALID_ID", metadata={"field": "resource_id"})


def _result(reply: pb.ReserveResourceResponse) -> dict[str, Any]:
    name = reply.WhichOneof("result") or "granted"
    return {name: getattr(reply, name)}
