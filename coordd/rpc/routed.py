"""One handler for each method, however many namespaces there are: it picks the servicer of the call's.

Must not know: any service, and what a namespace is made of.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from coordd.rpc.admission_methods import VITAL
from coordd.rpc.namespaces import Namespaces
from coordd.rpc.quotas import CallQuota, limited

# What gives back or keeps something: no quota stands in its way.
_VITAL: Final = frozenset(path.rpartition("/")[2] for path in VITAL)

Context = Any
Behaviour = Callable[[Any, Context], Any]


class Routed:
    """A service's servicers by namespace as one: generated code finds its methods here.

    Args: quotas: of calls, by namespace.

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
