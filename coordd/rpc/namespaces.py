"""Which namespace a call is for: each has servicers of its own, and one handler picks among them.

Rules: a call names its namespace in its metadata, once for all methods; one that names none is for `default`.
Who asks for one that is not there learns nothing of those that are. A namespace that has failed answers
nothing, and the others go on.
Must not know: any service, and what a namespace is made of.
"""

from collections.abc import Mapping
from typing import Any, Final

from coordd.core.errors import NotFound
from coordd.engine import StoreFailed

KEY: Final = "coordd-namespace"
DEFAULT: Final = "default"

Context = Any


class Namespaces:
    """The names there are, and which of them have failed."""

    def __init__(self, names: Mapping[str, object] | tuple[str, ...]) -> None:
        self._names = frozenset(names)
        self._failed: set[str] = set()

    def fail(self, name: str) -> None:
        """Answer nothing in a namespace any more: its store can't be used."""
        self._failed.add(name)

    def of(self, context: Context) -> str:
        """Return the namespace a call is for. Raises: NotFound, StoreFailed."""
        name = named(context)
        if name not in self._names:
            raise NotFound("UNKNOWN_NAMESPACE", f"There is no namespace {name!r}.", namespace=name)
        if self._failed and name in self._failed:
            raise StoreFailed(f"the store of namespace {name!r} has failed")
        return name


def named(context: Context) -> str:
    """Return the namespace that a call names in its metadata."""
    for key, value in context.invocation_metadata() or ():
        if key == KEY:
            return str(value)
    return DEFAULT
