"""`grpc.health.v1`, whole: the package's servicer leaves out the list."""

from typing import Any, Final

from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health import aio

_NAMESPACE: Final = "namespace/"


def health_name(namespace: str) -> str:
    """Return the name under which the health of one namespace can be asked for."""
    return f"{_NAMESPACE}{namespace}"


class Health(aio.HealthServicer):
    """Whether we serve: in all, each service, and each namespace, by a name of its own.

    Namespaces are in no list: who has one need not know of others.
    """

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
            if not service.startswith(_NAMESPACE)
        }
        return pb.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined] # older stubs
