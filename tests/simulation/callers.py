"""Workers that call upstream under permits, at once, waiting for one, or at a time they have booked.

Rules: a call arrives before its permit's time is over, or is not made; whoever does not know whether a permit
was granted does not use it. What is reported is true; not everything is reported.
"""

import asyncio
from typing import Any, Final

from coordd.v1 import rate_limit_pb2 as pb
from simulation.fleet import Worker, granted, length
from simulation.loop import SECOND

_ENDPOINTS: Final = ("post", "search")
_UNUSED_RATE: Final = 0.1
# Between when a permit is made and when its time is told, on a machine that takes its time.
_SLACK_NS: Final = SECOND // 1000


class Caller(Worker):
    """Makes one call after the other."""

    async def work(self) -> None:
        permit = granted(await self._permit())
        if permit is not None:
            await self.use(permit, self.made_ns)

    async def _permit(self) -> Any:
        values: dict[str, Any] = {
            "endpoint": self.random.choice(_ENDPOINTS),
            "worker": self.name,
            "priority": self.random.randrange(5),
            "permits": self.random.choice((0, 1, 1, 1, 2, 3)),
            "request_id": "" if self.chance(0.1) else self.request_id(),
        }
        if self.chance(0.5):
            return await self.ask("CanMakeRequest", pb.CanMakeRequestRequest(**values))
        wait_s = self.random.expovariate(1.0) * 30 + 0.01
        request = pb.AwaitPermitRequest(**values, wait_timeout=length(wait_s))
        return await self.ask("AwaitPermit", request, self.patience_s(wait_s))

    async def use(self, permit: Any, made_ns: int) -> None:
        """Make the calls that a permit is for, and report on them, mostly."""
        loop = self.world.loop
        use_by_ns = made_ns + permit.use_within.ToNanoseconds() - _SLACK_NS
        at_ns = loop.now_ns + round(self.random.expovariate(1.0) * self.work_mix.hold_s * SECOND)
        if self.chance(0.2):
            # As late as it may be.
            at_ns = max(loop.now_ns, use_by_ns - self.random.randrange(SECOND // 100))
        report = pb.RecordUsageRequest(endpoint=permit.endpoint, worker=self.name, permit_id=permit.permit_id)
        if self.chance(_UNUSED_RATE) or at_ns > use_by_ns:
            report.result = pb.USAGE_RESULT_NOT_SENT
        else:
            await asyncio.sleep((at_ns - loop.now_ns) / SECOND)
            if loop.now_ns > use_by_ns:
                return
            response = self.world.upstream.arrive(permit.endpoint, permit.permit_id, permit.permits)
            await asyncio.sleep(self.random.expovariate(1.0) * 0.2)
            report.result = pb.USAGE_RESULT_SUCCESS if response.status == 200 else pb.USAGE_RESULT_FAILURE
            report.status_code = response.status
            report.headers.extend(pb.Header(name=name, value=value) for name, value in response.headers)
        while not self.chance(self.work_mix.forget_rate):
            await self.ask("RecordUsage", report)
            if not self.chance(0.1):
                break


class Booker(Caller):
    """Books its calls, and makes them when their time has come, or calls it off."""

    async def work(self) -> None:
        request = pb.ScheduleRequestRequest(
            endpoint=self.random.choice(_ENDPOINTS),
            worker=self.name,
            priority=self.random.randrange(5),
            permits=self.random.choice((0, 1, 1, 2)),
            request_id=self.request_id(),
            not_before=length(self.random.expovariate(1.0) * 10),
        )
        booking = await self.ask("ScheduleRequest", request)
        if booking is None:
            return
        if self.chance(0.2):
            cancel = pb.CancelScheduleRequest(booking_id=booking.booking_id, worker=self.name)
            await self.ask("CancelSchedule", cancel)
            return
        delay_s = booking.estimated_delay.ToNanoseconds() / SECOND
        await self.pause_exactly(delay_s if self.chance(0.7) else delay_s * self.random.random() * 1.5)
        claim = pb.CanMakeRequestRequest(
            endpoint=request.endpoint,
            worker=self.name,
            permits=request.permits,
            booking_id=booking.booking_id,
            request_id=self.request_id(),
        )
        permit = granted(await self.ask("CanMakeRequest", claim))
        if permit is not None:
            await self.use(permit, self.made_ns)
