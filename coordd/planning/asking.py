"""What a virtual worker says to the core: the command that takes a step's claims, and those that give back.

Owns: the translation. Must not know: when it is said.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from coordd.core.commands import (
    AcquireBundle,
    RecordUsage,
    ReleaseLock,
    ReleaseResource,
    RequestLock,
    ReserveResource,
    TakePermit,
    WaitableCommand,
)
from coordd.core.limits import SECOND, TTL_NS_MAX
from coordd.core.machine import Command
from coordd.core.outcomes import Grant
from coordd.core.records import Bundle, Lock, Outcome, Permit, Reservation
from coordd.core.rules import KindRule, Rules, TypeRule
from coordd.planning.demands import Claim, LockClaim, PermitClaim, UnitsClaim, pool_of

__all__ = ["Member", "Terms", "give_back", "members", "request", "what_of"]

Member: TypeAlias = Lock | Permit | Reservation

# A lease outlasts what it is needed for by this.
_MARGIN_NS: Final = SECOND
_OK: Final = 200


class Terms(Struct, frozen=True, kw_only=True):
    """How a step is asked for.

    `lease_ns`: how long what it holds will be needed.
    """

    worker: str
    priority: int
    wait_ns: int
    lease_ns: int


def request(step: Sequence[Claim], terms: Terms, rules: Rules) -> WaitableCommand:
    """Return the command that asks for the claims of a step: for several, a bundle."""
    commands = [_request(claim, terms, rules) for claim in step]
    if len(commands) == 1:
        return commands[0]
    return AcquireBundle(
        worker=terms.worker,
        locks=tuple(command for command in commands if isinstance(command, RequestLock)),
        reservations=tuple(command for command in commands if isinstance(command, ReserveResource)),
        permits=tuple(command for command in commands if isinstance(command, TakePermit)),
        priority=terms.priority,
        wait_ns=terms.wait_ns,
    )


def what_of(step: Sequence[Claim], subject: str, rules: Rules) -> str:
    """Return what in a step a refusal is about, by its subject; all of the step where that doesn't say."""
    named = [claim for claim in step if subject in _names(claim, rules)]
    return " + ".join(claim.what for claim in named or step)


def _names(claim: Claim, rules: Rules) -> tuple[str, ...]:
    match claim:
        case LockClaim():
            return (claim.item,)
        case PermitClaim():
            return (claim.endpoint,)
        case UnitsClaim():
            return (claim.id, f"{claim.type}/{claim.id}", pool_of(rules.types[claim.type], claim.id))


def _request(claim: Claim, terms: Terms, rules: Rules) -> WaitableCommand:
    match claim:
        case LockClaim():
            return RequestLock(
                item=claim.item,
                kind=claim.kind,
                worker=terms.worker,
                priority=terms.priority,
                wait_ns=terms.wait_ns,
                ttl_ns=_ttl_ns(rules.kinds.get(claim.kind), terms.lease_ns),
            )
        case PermitClaim():
            return TakePermit(
                endpoint=claim.endpoint,
                worker=terms.worker,
                count=claim.count,
                priority=terms.priority,
                wait_ns=terms.wait_ns,
            )
        case UnitsClaim():
            return ReserveResource(
                type=claim.type,
                resource_id=claim.id,
                units=claim.units,
                worker=terms.worker,
                priority=terms.priority,
                wait_ns=terms.wait_ns,
                ttl_ns=_ttl_ns(rules.types.get(claim.type), terms.lease_ns),
            )


def _ttl_ns(rule: KindRule | TypeRule | None, lease_ns: int) -> int:
    """Return a lease that does not run out, which stands for renewals; 0: as configured."""
    return 0 if rule is None or lease_ns < rule.ttl_ns else min(lease_ns + _MARGIN_NS, TTL_NS_MAX)


def members(grant: Grant) -> tuple[Member, ...]:
    """Return the single grants that a grant is, or is made of."""
    return grant.held if isinstance(grant, Bundle) else (grant,)


def give_back(grant: Member, *, is_done: bool, latency_ns: int = 0) -> Command:
    """Return the command that gives a single grant back; a bundle ends with the last of its members.

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
