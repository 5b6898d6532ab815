"""Judges a whole history: every law, and each item's linearizability."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from audit import history as h
from audit import (
    items,
    laws_of_answers,
    laws_of_engagements,
    laws_of_gates,
    laws_of_ids,
    laws_of_leases,
    laws_of_waits,
    laws_of_windows,
)
from audit.grants import Grants
from audit.linear import Verdict
from audit.timeline import Timeline
from audit.violation import Violation

Law: TypeAlias = Callable[[Grants], Iterator[Violation]]

_MODULES: Final = (
    laws_of_ids,
    laws_of_leases,
    laws_of_windows,
    laws_of_gates,
    laws_of_engagements,
    laws_of_waits,
    laws_of_answers,
    items,
)
LAWS: Final[Mapping[str, Law]] = {
    name: law
    for module in _MODULES
    for name, law in vars(module).items()
    if getattr(law, "__module__", None) == module.__name__
    and not name.startswith("_")
    and getattr(law, "__annotations__", {}).get("return") == Iterator[Violation]
}


def audit(history: h.History) -> list[Violation]:
    """Return what was broken, in order of time."""
    grants = Grants(history, Timeline(history))
    return sorted(violation for law in LAWS.values() for violation in law(grants))


def undecided(history: h.History) -> int:
    """Return of how many items the search for an order was given up."""
    found = items.verdicts(Grants(history, Timeline(history)))
    return sum(verdict is Verdict.UNDECIDED for verdict in found.values())
