"""ReservationService: messages to commands and back."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from coordd.core import commands, outcomes
from coordd.rpc import fields, messages, waits
from coordd.rpc.backend import Backend
from coordd.v1 import reservation_pb2 as pb
from coordd.v1 import reservation_pb2_grpc

_RESERVATIONS: Final = "reservations"
_API_QUOTA: Final = "api_quota"


class ReservationServicer(reservation_pb2_grpc.ReservationServiceServicer):
    """Leased holdings: resources that are exclusive by id, and units of pools."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine

    async def ReserveResource(
        self, request: pb.ReserveResourceRequest, context: Any
    ) -> pb.ReserveResourceResponse:
        """See the proto."""
        outcome = await self._engine.submit(_reserve_resource(request))
        return pb.ReserveResourceResponse(**messages.answer(outcome, self._engine.now()))

    def AwaitReservation(
        self, request: pb.AwaitReservationRequest, context: Any
    ) -> AsyncGenerator[pb.AwaitReservationResponse, None]:
        """See the proto."""
        wait_ns = fields.wait_ns(request, self._backend.wait_ns_default)
        on_conflict = fields.on_conflict(request.on_conflict)
        return waits.stream(
            self._engine, _reserve_resource(request, wait_ns, on_conflict), pb.AwaitReservationResponse
        )

    async def RenewReservation(
        self, request: pb.RenewReservationRequest, context: Any
    ) -> pb.RenewReservationResponse:
        """See the proto."""
        command = commands.RenewReservation(
            id=request.reservation_id, worker=fields.worker(request.worker), ttl_ns=fields.ttl_ns(request)
        )
        renewed = await self._backend.ask(command, outcomes.Renewed)
        return pb.RenewReservationResponse(reservation=messages.held(renewed.grant, self._engine.now()))

    async def ReleaseResource(
        self, request: pb.ReleaseResourceRequest, context: Any
    ) -> pb.ReleaseResourceResponse:
        """See the proto."""
        command = commands.ReleaseResource(
            id=request.reservation_id,
            worker=fields.worker(request.worker),
            unused_units=request.unused_units,
            result=fields.work_result(request.work_result),
            latency_ns=fields.latency_ns(request),
        )
        released = await self._backend.ask(command, outcomes.ResourceReleased)
        return pb.ReleaseResourceResponse(already_released=released.reservation is None)

    async def CheckAvailability(
        self, request: pb.CheckAvailabilityRequest, context: Any
    ) -> pb.CheckAvailabilityResponse:
        """See the proto."""
        command = commands.ReserveResource(
            type=fields.name("type", request.type),
            worker="",
            resource_id=fields.resource_id(request.resource_id),
            units=request.units,
            priority=fields.priority(request.priority),
        )
        view = await self._engine.read(lambda machine, now: machine.availability(command, now))
        return messages.availability(view, self._engine.now())

    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: Any
    ) -> pb.ListReservationsResponse:
        """See the proto."""
        size = fields.page_size(request.page_size)
        after = fields.after_id(_RESERVATIONS, request.page_token)
        worker = fields.worker_filter(request.worker)
        type_name = fields.name_filter("type", request.type)
        # One more than asked for tells whether this page is the last.
        reservations = await self._engine.store.reservations_page(after, size + 1, worker, type_name)
        page = reservations[:size]
        # As with locks: the order is the store's, how they stand is the machine's to say.
        live = await self._engine.read(lambda machine, _: machine.reservations(held.id for held in page))
        now = self._engine.now()
        return pb.ListReservationsResponse(
            reservations=[messages.reservation(reservation, now) for reservation in live],
            next_page_token=fields.page_token(_RESERVATIONS, page[-1].id) if len(reservations) > size else "",
        )

    async def ReserveApiQuota(
        self, request: pb.ReserveApiQuotaRequest, context: Any
    ) -> pb.ReserveApiQuotaResponse:
        """See the proto."""
        command = commands.ReserveResource(
            type=_API_QUOTA,
            worker=fields.worker(request.worker),
            resource_id=fields.name("operation", request.operation),
            units=request.units,
            priority=fields.priority(request.priority),
            request_id=fields.request_id(request.request_id),
        )
        outcome = await self._engine.submit(command)
        return pb.ReserveApiQuotaResponse(**messages.answer(outcome, self._engine.now()))


def _reserve_resource(
    request: pb.ReserveResourceRequest | pb.AwaitReservationRequest, wait_ns: int = 0, on_conflict: int = 0
) -> commands.ReserveResource:
    return commands.ReserveResource(
        type=fields.name("type", request.type),
        worker=fields.worker(request.worker),
        resource_id=fields.resource_id(request.resource_id),
        units=request.units,
        ttl_ns=fields.ttl_ns(request),
        priority=fields.priority(request.priority),
        request_id=fields.request_id(request.request_id),
        wait_ns=wait_ns,
        on_conflict=on_conflict,
    )
