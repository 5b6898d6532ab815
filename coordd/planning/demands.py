"""What a trace demands: claims, taken in steps, by a worker, at a time.

Owns: the shape of a demand, its short form in text, and whether a configuration can ever grant it. Must not
know: files, or what becomes of a demand.

The short form, `what`:

    lock:KIND:ITEM           the lock on an item; an item may contain ':'
    permit:ENDPOINT[:N]      N permits (1)
    units:TYPE[:ID][:N]      N units of the type's pool (1), or the resource ID, or both: units:cpu::4

    A + B                    both at once, as a bundle: all or none
    A > B                    A first, and B once A is held

Blanks around '+' and '>' do not matter. '+', '>', '%' and, but for an item's, ':' within a name are written
as %2B, %3E, %25 and %3A.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from coordd.core.limits import CLAIMS_PER_BUNDLE_MAX, ITEM_BYTES_MAX, NAME_BYTES_MAX, UNITS_MAX
from coordd.core.rules import CRITICAL, HIGH, LOW, MEDIUM, PoolRule, Rules, TypeRule

__all__ = [
    "ANY_WORKER",
    "CLASSES",
    "EVERY_WORKER",
    "Claim",
    "Demand",
    "LockClaim",
    "PermitClaim",
    "Steps",
    "UnitsClaim",
    "impossibility",
    "read_steps",
    "read_text",
]

# In place of a worker's name: each worker in turn, or every one of them.
ANY_WORKER: Final = ""
EVERY_WORKER: Final = "*"
CLASSES: Final[Mapping[str, int]] = {"low": LOW, "medium": MEDIUM, "high": HIGH, "critical": CRITICAL}


class LockClaim(Struct, frozen=True, gc=False):
    """The lock on an item."""

    kind: str
    item: str

    @property
    def what(self) -> str:
        """What it is about, in reports: `lock:KIND`."""
        return f"lock:{self.kind}"


class PermitClaim(Struct, frozen=True, gc=False):
    """Permits of an endpoint."""

    endpoint: str
    count: int = 1

    @property
    def what(self) -> str:
        """What it is about, in reports: `permit:ENDPOINT`."""
        return f"permit:{self.endpoint}"


class UnitsClaim(Struct, frozen=True, gc=False):
    """A resource, or units of its type's pool. `units` 0: 1 where there is a pool."""

    type: str
    id: str = ""
    units: int = 0

    @property
    def what(self) -> str:
        """What it is about, in reports: `units:TYPE`."""
        return f"units:{self.type}"


Claim: TypeAlias = LockClaim | PermitClaim | UnitsClaim
# One step after the other; the claims of a step all at once.
Steps: TypeAlias = tuple[tuple[Claim, ...], ...]


class Demand(Struct, frozen=True, kw_only=True, gc=False):
    """One line of a trace. `at_ns`: since the epoch. `hold_ns` None: as long as the run says.

    `worker`: a name, ANY_WORKER or EVERY_WORKER. `worker_class`: that the worker belongs to, "": none.
    """

    line: int
    at_ns: int
    worker: str
    steps: Steps
    priority: int = MEDIUM
    hold_ns: int | None = None
    worker_class: str = ""


# -- the short form ------------------------------------------------------------------------------------------


def read_steps(text: str, *, count: int = 1, units: int = 0) -> Steps:
    """Read `what`.

    Args:   count, units: of claims that don't say.
    Raises: ValueError, saying what is wrong.
    """
    return tuple(
        tuple(_read_claim(part.strip(), count, units) for part in step.split("+")) for step in text.split(">")
    )


def read_text(text: str, what: str, bytes_max: int) -> str:
    """Check a name from a trace for form, and return it. Raises: ValueError."""
    if not 1 <= len(text.encode()) <= bytes_max or not text.isprintable():
        raise ValueError(f"{what} has to be 1..{bytes_max} bytes of printable text")
    return text


def _read_claim(text: str, count: int, units: int) -> Claim:
    sort, _, rest = text.partition(":")
    match sort:
        case "lock":
            return _read_lock(rest)
        case "permit":
            endpoint, number = _fields(rest, 2, text)
            return PermitClaim(read_text(endpoint, "an endpoint", NAME_BYTES_MAX), _number(number, count))
        case "units":
            type_, id_, number = _fields(rest, 3, text)
            read_text(type_, "a type", NAME_BYTES_MAX)
            return UnitsClaim(
                type_, id_ and read_text(id_, "a resource id", ITEM_BYTES_MAX), _number(number, units)
            )
    raise ValueError(
        f"{text!r} is no claim; write lock:KIND:ITEM, permit:ENDPOINT[:N] or units:TYPE[:ID][:N], "
        "joined by '+' (at once) or '>' (one after the other)"
    )


def _read_lock(rest: str) -> LockClaim:
    kind, _, item = rest.partition(":")
    return LockClaim(
        read_text(unquote(kind), "a kind", NAME_BYTES_MAX),
        read_text(unquote(item), "an item (lock:KIND:ITEM)", ITEM_BYTES_MAX),
    )


def _fields(rest: str, most: int, text: str) -> list[str]:
    fields = [unquote(field) for field in rest.split(":")]
    if len(fields) > most:
        raise ValueError(f"{text!r} has too many parts; a ':' within a name is written as %3A")
    return fields + [""] * (most - len(fields))


def _number(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= UNITS_MAX:
        raise ValueError(f"{text!r} is not a number from 1 to {UNITS_MAX}")
    return int(text)


# -- whether it can be granted -------------------------------------------------------------------------------


def impossibility(demand: Demand, rules: Rules) -> str | None:
    """Say why `rules` can never grant a demand, or None."""
    return next((why for why in _impossibilities(demand, rules) if why), None) or next(
        (why for step in demand.steps if (why := _too_much_at_once(step, rules))), None
    )


def _too_much_at_once(step: Sequence[Claim], rules: Rules) -> str | None:
    """Say why the claims of a step can't be one bundle, or None."""
    if len(step) > CLAIMS_PER_BUNDLE_MAX:
        return f"{len(step)} claims at once are more than {CLAIMS_PER_BUNDLE_MAX}"
    (thing, count), *_ = Counter(thing for claim in step for thing in _things(claim, rules)).most_common(1)
    return f"two claims at once are on {' '.join(thing)}; make them one" if count > 1 else None


def _things(claim: Claim, rules: Rules) -> Iterator[tuple[str, ...]]:
    match claim:
        case LockClaim():
            yield ("lock", claim.item, claim.kind) if rules.is_exclusive_by_kind else ("lock", claim.item)
        case PermitClaim():
            yield ("endpoint", claim.endpoint)
        case UnitsClaim():
            type_ = rules.types[claim.type]
            if claim.id and not type_.pools:
                yield ("resource", claim.type, claim.id)
            if pool := pool_of(type_, claim.id):
                yield ("pool", pool)


def _impossibilities(demand: Demand, rules: Rules) -> Iterator[str | None]:
    if demand.worker_class:
        yield _unknown("worker class", demand.worker_class, rules.worker_class_weights)
    for step in demand.steps:
        for claim in step:
            match claim:
                case LockClaim():
                    yield _unknown("kind", claim.kind, rules.kinds)
                case PermitClaim():
                    yield _unknown("endpoint", claim.endpoint, rules.limits) or _too_many(claim, rules)
                case UnitsClaim():
                    yield _unknown("type", claim.type, rules.types) or _no_units(claim, rules)


def _unknown(sort: str, name: str, known: Mapping[str, object]) -> str | None:
    if name in known:
        return None
    return f"the {sort} {name!r} is not configured; there are: {', '.join(known) or 'none'}"


def _too_many(claim: PermitClaim, rules: Rules) -> str | None:
    most = min(rules.limits[claim.endpoint].windows.values())
    if claim.count <= most:
        return None
    return f"{claim.count} permits are more than {claim.endpoint} ever allows at once: {most}"


def _no_units(claim: UnitsClaim, rules: Rules) -> str | None:
    type_ = rules.types[claim.type]
    if type_.pools and claim.id not in type_.pools:
        return f"{claim.id!r} is none of {claim.type}'s ids: {', '.join(sorted(type_.pools))}"
    pool = pool_of(type_, claim.id)
    if pool:
        return _too_many_units(claim, pool, rules.pools[pool])
    if claim.units:
        return f"the type {claim.type} has no pool, hence no units"
    return (
        None if claim.id else f"the type {claim.type} has no pool, hence needs an id: units:{claim.type}:ID"
    )


def pool_of(type_: TypeRule, id_: str) -> str:
    """Return the pool that a claim's units come from, or ""."""
    return type_.pools.get(id_, "") if type_.pools else type_.pool


def _too_many_units(claim: UnitsClaim, name: str, pool: PoolRule) -> str | None:
    most = min(pool.limit.windows.values()) if pool.limit else max(pool.capacity, pool.capacity_max)
    return None if claim.units <= most else f"{claim.units} units are more than {name} has: {most}"
