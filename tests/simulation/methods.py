"""Every method of `coordd.v1`, by name: what it is called on the wire, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf import message_factory
from google.protobuf.message import Message

from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)

_FILES: Final = (admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2)


@dataclass(frozen=True)
class Method:
    """One method."""

    path: str
    reply: type[Message]


METHODS: Final[Mapping[str, Method]] = {
    method.name: Method(
        f"/{service.full_name}/{method.name}", message_factory.GetMessageClass(method.output_type)
    )
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
