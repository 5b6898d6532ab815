"""What a bundle asks for: small values, made where `client.bundle(...)` is called.

    async with client.bundle(
        lock("tweet:1", kind="reply"),
        permit("post_tweet"),
        units("content", 2),
        not_engaged("tweet:1", within=3600),
        wait=30,
    ) as bundle: ...

Rules: of a claim this judges only its types, as the client does everywhere; what is good is the daemon's to
say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coordd.v1 import bundle_pb2 as pb
from coordd_client import arguments
from coordd_client.messages import duration, optional_duration

__all__ = [
    "Claim",
    "LockClaim",
    "NotEngaged",
    "PermitClaim",
    "ReservationClaim",
    "lock",
    "not_engaged",
    "permit",
    "reservation",
    "units",
]


@dataclass(frozen=True, slots=True)
class LockClaim:
    """The lock on an item. `ttl`: seconds to hold it unless renewed, None: the kind's default."""

    item: str
    kind: str
    ttl: float | None = None

    def message(self) -> pb.Claim:
        """Returns it for the wire. Raises: TypeError, InvalidRequest."""
        return pb.Claim(
            lock=pb.LockClaim(
                item=arguments.text("item", self.item),
                kind=arguments.text("kind", self.kind),
                ttl=optional_duration("ttl", self.ttl),
            )
        )


@dataclass(frozen=True, slots=True)
class ReservationClaim:
    """A resource, units of its type's pool, or both. `units` 0 means 1 where the type has a pool."""

    type: str
    resource_id: str | None = None
    units: int = 0
    ttl: float | None = None

    def message(self) -> pb.Claim:
        """Returns it for the wire. Raises: TypeError, InvalidRequest."""
        resource_id = "" if self.resource_id is None else arguments.text("resource_id", self.resource_id)
        return pb.Claim(
            reservation=pb.ReservationClaim(
                type=arguments.text("type", self.type),
                resource_id=resource_id,
                units=arguments.count("units", self.units),
                ttl=optional_duration("ttl", self.ttl),
            )
        )


@dataclass(frozen=True, slots=True)
class PermitClaim:
    """The right to make `permits` calls of an endpoint."""

    endpoint: str
    permits: int = 1

    def message(self) -> pb.Claim:
        """Returns it for the wire. Raises: TypeError, InvalidRequest."""
        return pb.Claim(
            permit=pb.PermitClaim(
                endpoint=arguments.text("endpoint", self.endpoint),
                permits=arguments.count("permits", self.permits),
            )
        )


@dataclass(frozen=True, slots=True)
class NotEngaged:
    """A condition: nobody has acted on the item for `within` seconds, in any of `kinds` (none: any)."""

    item: str
    within: float
    kinds: Sequence[str] = ()

    def message(self) -> pb.NotEngaged:
        """Returns it for the wire. Raises: TypeError, InvalidRequest."""
        return pb.NotEngaged(
            item=arguments.text("item", self.item),
            kinds=arguments.texts("kinds", self.kinds),
            within=duration(arguments.seconds("within", self.within)),
        )


Claim = LockClaim | ReservationClaim | PermitClaim | NotEngaged


def lock(item: str, *, kind: str, ttl: float | None = None) -> LockClaim:
    """Returns the claim of a lock; see `Client.lock`."""
    return LockClaim(item, kind, ttl)


def reservation(
    type: str, resource_id: str | None = None, *, units: int = 0, ttl: float | None = None
) -> ReservationClaim:
    """Returns the claim of a resource, of units, or of both; see `Client.reservation`."""
    return ReservationClaim(type, resource_id, units, ttl)


def units(type: str, units: int = 1, *, ttl: float | None = None) -> ReservationClaim:
    """Returns the claim of units of the pool of a type."""
    return ReservationClaim(type, None, units, ttl)


def permit(endpoint: str, permits: int = 1) -> PermitClaim:
    """Returns the claim of permits; see `Client.permit`."""
    return PermitClaim(endpoint, permits)


def not_engaged(item: str, *, within: float, kinds: Sequence[str] = ()) -> NotEngaged:
    """Returns the condition that nobody has acted on `item` for `within` seconds, in any of `kinds`.

    No `kinds`: in any. A failure is no act; an UNKNOWN is.
    """
    return NotEngaged(item, within, kinds)
