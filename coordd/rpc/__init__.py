"""The wire: messages in, commands down, outcomes up, messages out. It decides nothing itself."""

from typing import Final

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coordd.rpc.admin import AdminServicer
from coordd.rpc.admission import Admission
from coordd.rpc.admission_door import Door, new_server
from coordd.rpc.admission_shares import Shares
from coordd.rpc.audit import AuditTrail
from coordd.rpc.backend import Backend
from coordd.rpc.bundle import BundleServicer
from coordd.rpc.call import Call, CallObserver, add_call_id
from coordd.rpc.calls import Calls
from coordd.rpc.engagement import EngagementServicer
from coordd.rpc.guard import Guard
from coordd.rpc.health import Health, health_name
from coordd.rpc.namespaces import Namespaces
from coordd.rpc.quotas import CallQuota
from coordd.rpc.rate_limit import RateLimitServicer
from coordd.rpc.reservation import ReservationServicer
from coordd.rpc.routed import Routed
from coordd.rpc.session import SessionServicer
from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)
from coordd.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from coordd.v1.bundle_pb2_grpc import add_BundleServiceServicer_to_server
from coordd.v1.engagement_pb2_grpc import add_EngagementServiceServicer_to_server
from coordd.v1.rate_limit_pb2_grpc import add_RateLimitServiceServicer_to_server
from coordd.v1.reservation_pb2_grpc import add_ReservationServiceServicer_to_server
from coordd.v1.session_pb2_grpc import add_SessionServiceServicer_to_server

__all__ = [
    "METHODS",
    "SERVICERS",
    "SERVICES",
    "Admission",
    "AuditTrail",
    "Backend",
    "Call",
    "CallObserver",
    "CallQuota",
    "Calls",
    "Door",
    "Guard",
    "Health",
    "Namespaces",
    "Routed",
    "Shares",
    "add_call_id",
    "health_name",
    "new_server",
]

# Every service: what serves it, and the generated function that says which of its methods are what.
SERVICERS: Final = (
    (EngagementServicer, add_EngagementServiceServicer_to_server),
    (ReservationServicer, add_ReservationServiceServicer_to_server),
    (RateLimitServicer, add_RateLimitServiceServicer_to_server),
    (BundleServicer, add_BundleServiceServicer_to_server),
    (SessionServicer, add_SessionServiceServicer_to_server),
    (AdminServicer, add_AdminServiceServicer_to_server),
)
_DESCRIPTORS: Final = tuple(
    service
    for file in (engagement_pb2, reservation_pb2, rate_limit_pb2, bundle_pb2, session_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
# Their full names, for health and reflection.
SERVICES: Final = tuple(service.full_name for service in _DESCRIPTORS)
# Every method that is served, others' protocols included, by its path, and whether it is unary.
METHODS: Final = {
    f"/{service.full_name}/{method.name}": not (method.server_streaming or method.client_streaming)
    for service in (
        *_DESCRIPTORS,
        *health_pb2.DESCRIPTOR.services_by_name.values(),
        *reflection_pb2.DESCRIPTOR.services_by_name.values(),
    )
    for method in service.methods
}
