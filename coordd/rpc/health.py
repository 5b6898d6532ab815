"""`grpc.health.v1`, whole: the package's servicer leaves out the list."""

from typing import Any

from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health import aio


class Health(aio.HealthServicer):
    """Whether we serve. Args: services: those that are listed, besides the whole."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__()
        self._services = ("", *services)

    async def List(self, request: Any, context: Any) -> Any:
        """Return how every service is."""
        statuses = {
            service: await self.Check(pb.HealthCheckRequest(service=service), context)
            for service in self._services
        }
        return pb.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined] # stubs are of an older one
