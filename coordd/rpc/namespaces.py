"""Which namespace a call is for: each has servicers of its own, and one handler picks among them.

Rules: a call names its namespace in its metadata, once for all methods; one that names none is for `default`.
Who asks for one that is not there learns nothing of those that are. A namespace that has failed answers
nothing, and the others go on.
Must not know: any service, and what a namespace is made of.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from coordd.core.errors import NotFound
from coordd.engine import StoreFailed
from coordd.rpc.admission_methods import VITAL
from coordd.rpc.quotas import CallQuota, limited

KEY: Final = "coordd-namespace"
DEFAULT: Final = "default"

# What gives back or keeps something: no quota stands in its way.
_VITAL: Final = frozenset(path.rpartition("/")[2] for path in VITAL)

Context = Any
Behaviour = Callable[[Any, Context], Any]


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


class Routed:
    """A service's servicers by namespace as one: generated code finds its methods here.

    Args: quotas: of calls, of those namespaces that have one.

    Why a method that returns another's answer and not one that awaits it: a call in the only namespace there
    is then costs a look at its metadata, and no coroutine more.
    """

    def __init__(
        self, namespaces: Namespaces, servicers: Mapping[str, object], quotas: Mapping[str, CallQuota] = {}
    ) -> None:
        self._namespaces = namespaces
        self._servicers = servicers
        self._quotas = quotas

    def __getattr__(self, method: str) -> Behaviour:
        behaviours = {name: self._behaviour(name, method) for name in self._servicers}
        namespace_of = self._namespaces.of

        def routed(request: Any, context: Context) -> Any:
            return behaviours[namespace_of(context)](request, context)

        return routed

    def _behaviour(self, name: str, method: str) -> Behaviour:
        """Return one namespace's behaviour, within its quota."""
        behaviour: Behaviour = getattr(self._servicers[name], method)
        if name in self._quotas and method not in _VITAL:
            behaviour = limited(behaviour, self._quotas[name])
        return behaviour
