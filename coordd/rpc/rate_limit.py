"""RateLimitService: messages to commands and back."""

from collections.abc import AsyncGenerator
from typing import Any

from coordd.core import commands, limits, outcomes
from coordd.rpc import fields, messages, waits
from coordd.rpc.backend import Backend
from coordd.v1 import rate_limit_pb2 as pb
from coordd.v1 import rate_limit_pb2_grpc

# Names the list in page tokens.
_WORKERS = "workers"


class RateLimitServicer(rate_limit_pb2_grpc.RateLimitServiceServicer):
    """Permits to call third-party endpoints."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine

    async def CanMakeRequest(
        self, request: pb.CanMakeRequestRequest, context: Any
    ) -> pb.CanMakeRequestResponse:
        """See the proto."""
        outcome = await self._engine.submit(_take_permit(request, booking_id=request.booking_id))
        return pb.CanMakeRequestResponse(**messages.answer(outcome, self._engine.now()))

    def AwaitPermit(
        self, request: pb.AwaitPermitRequest, context: Any
    ) -> AsyncGenerator[pb.AwaitPermitResponse, None]:
        """See the proto."""
        wait_ns = fields.wait_ns(request, self._backend.wait_ns_default)
        return waits.stream(self._engine, _take_permit(request, wait_ns=wait_ns), pb.AwaitPermitResponse)

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: Any) -> pb.RecordUsageResponse:
        """See the proto."""
        result = fields.usage_result(request.result)
        command = commands.RecordUsage(
            endpoint=fields.name("endpoint", request.endpoint),
            worker=fields.worker(request.worker),
            id=request.permit_id,
            is_sent=result != pb.USAGE_RESULT_NOT_SENT,
            is_success=result == pb.USAGE_RESULT_SUCCESS,
            status_code=fields.status_code(request.status_code),
            headers=fields.headers(request.headers),
        )
        recorded = await self._backend.ask(command, outcomes.UsageRecorded)
        return pb.RecordUsageResponse(already_settled=recorded.permit is None, refunded=recorded.refunded)

    async def GetRemainingCapacity(
        self, request: pb.GetRemainingCapacityRequest, context: Any
    ) -> pb.GetRemainingCapacityResponse:
        """See the proto."""
        endpoint = fields.name("endpoint", request.endpoint)
        limit = await self._engine.read(lambda machine, now: machine.limit(endpoint, now))
        return messages.remaining_capacity(limit, self._engine.now())

    async def ScheduleRequest(
        self, request: pb.ScheduleRequestRequest, context: Any
    ) -> pb.ScheduleRequestResponse:
        """See the proto."""
        command = commands.ScheduleRequest(
            endpoint=fields.name("endpoint", request.endpoint),
            worker=fields.worker(request.worker),
            count=request.permits or 1,
            priority=fields.priority(request.priority),
            request_id=fields.request_id(request.request_id),
            not_before_ns=fields.optional_ns(request, "not_before", 0, limits.DAY, 0),
        )
        booked = await self._backend.ask(command, outcomes.Booked)
        return messages.booking(booked.booking, self._engine.now())

    async def CancelSchedule(
        self, request: pb.CancelScheduleRequest, context: Any
    ) -> pb.CancelScheduleResponse:
        """See the proto."""
        command = commands.CancelSchedule(id=request.booking_id, worker=fields.worker(request.worker))
        cancelled = await self._backend.ask(command, outcomes.BookingCancelled)
        return pb.CancelScheduleResponse(already_ended=cancelled.booking is None)

    async def GetWorkerAllocation(
        self, request: pb.GetWorkerAllocationRequest, context: Any
    ) -> pb.GetWorkerAllocationResponse:
        """See the proto."""
        endpoint = fields.name("endpoint", request.endpoint)
        worker = fields.worker(request.worker)
        share = await self._engine.read(lambda machine, now: machine.allocation(endpoint, worker, now))
        return messages.allocation(share)

    async def ListWorkerAllocations(
        self, request: pb.ListWorkerAllocationsRequest, context: Any
    ) -> pb.ListWorkerAllocationsResponse:
        """See the proto."""
        endpoint = fields.name("endpoint", request.endpoint)
        size = fields.page_size(request.page_size)
        after = fields.after_name(_WORKERS, request.page_token)
        # One more than asked for tells whether this page is the last.
        found = await self._engine.read(
            lambda machine, now: machine.allocations(endpoint, now, after=after, count=size + 1)
        )
        page = found[:size]
        return pb.ListWorkerAllocationsResponse(
            workers=map(messages.worker_allocation, page),
            next_page_token=fields.page_token(_WORKERS, page[-1].name) if len(found) > size else "",
        )

    async def GetSystemStatus(
        self, request: pb.GetSystemStatusRequest, context: Any
    ) -> pb.GetSystemStatusResponse:
        """See the proto."""
        limits_now = await self._engine.read(lambda machine, now: machine.limits(now))
        now = self._engine.now()
        endpoints = [messages.endpoint_status(limit, now) for limit in limits_now]
        worst = max((endpoint.health for endpoint in endpoints), default=pb.HEALTH_HEALTHY)
        return pb.GetSystemStatusResponse(health=worst, endpoints=endpoints)


def _take_permit(
    request: pb.CanMakeRequestRequest | pb.AwaitPermitRequest, *, booking_id: int = 0, wait_ns: int = 0
) -> commands.TakePermit:
    return commands.TakePermit(
        endpoint=fields.name("endpoint", request.endpoint),
        worker=fields.worker(request.worker),
        count=request.permits or 1,
        priority=fields.priority(request.priority),
        request_id=fields.request_id(request.request_id),
        booking_id=booking_id,
        wait_ns=wait_ns,
    )
