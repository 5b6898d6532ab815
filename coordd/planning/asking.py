"""What a virtual worker says to the core: the commands that take a step's claims and give them back.

Owns: the translation. Must not know: when it is said.
"""

from typing import Final

from coordd.core.commands import (
    RecordUsage,
    ReleaseLock,
    ReleaseResource,
    RequestLock,
    ReserveResource,
    TakePermit,
    WaitableCommand,
)
from coordd.core.machine import Command
from coordd.core.outcomes import Grant
from coordd.core.records import Lock, Outcome, Permit, Reservation
from coordd.planning.demands import Claim, LockClaim, PermitClaim, UnitsClaim

__all__ = ["give_back", "request"]

_OK: Final = 200


def request(claim: Claim, worker: str, *, priority: int, wait_ns: int, ttl_ns: int) -> WaitableCommand:
    """Return the command that asks for a claim. `ttl_ns` 0: as configured."""
    match claim:
        case LockClaim():
            return RequestLock(
                item=claim.item,
                kind=claim.kind,
                worker=worker,
                priority=priority,
                wait_ns=wait_ns,
                ttl_ns=ttl_ns,
            )
        case PermitClaim():
            return TakePermit(
                endpoint=claim.endpoint,
                worker=worker,
                count=claim.count,
                priority=priority,
                wait_ns=wait_ns,
            )
        case UnitsClaim():
            return ReserveResource(
                type=claim.type,
                resource_id=claim.id,
                units=claim.units,
                worker=worker,
                priority=priority,
                wait_ns=wait_ns,
                ttl_ns=ttl_ns,
            )


def give_back(grant: Grant, *, is_done: bool, latency_ns: int = 0) -> Command:
    """Return the command that gives a grant back.

    Args: is_done: the work was done, and calls were made; if not, nothing was sent.
    """
    match grant:
        case Lock():
            outcome = Outcome.SUCCESS if is_done else Outcome.FAILURE
            return ReleaseLock(item=grant.item, worker=grant.worker, token=grant.token, outcome=outcome)
        case Permit():
            return RecordUsage(
                endpoint=grant.endpoint,
                worker=grant.worker,
                id=grant.id,
                is_sent=is_done,
                is_success=is_done,
                status_code=_OK if is_done else 0,
            )
        case Reservation():
            unused = 0 if is_done or not grant.is_refilling else grant.units
            return ReleaseResource(
                id=grant.id,
                worker=grant.worker,
                unused_units=unused,
                result=int(is_done),
                latency_ns=latency_ns,
            )
    raise AssertionError(grant)
