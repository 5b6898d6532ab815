"""`grpc.health.v1`, whole: the package's servicer leaves out the list."""

from typing import Any

from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health import aio


class Health(aio.HealthServicer):
    """Whether we serve: in all, and each service."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, None] = {}

    async def set(self, service: str, status: Any) -> None:
        """Say how a service is from now on."""
        self._known[service] = None
        await super().set(service, status)

    async def List(self, request: Any, context: Any) -> Any:
        """Return how every service is."""
        statuses = {
            service: await self.Check(pb.HealthCheckRequest(service=service), context)
            for service in self._known
        }
        return pb.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined] # older stubs
