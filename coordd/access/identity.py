"""Who calls: a name, a role, and the workers in whose name it may act."""

from enum import IntEnum

from msgspec import Struct

from coordd.access.denials import NotPermitted


class Role(IntEnum):
    """What somebody may do; each may do all that those before it may."""

    ANYBODY = 0  # also who has not said who they are
    OBSERVER = 1
    WORKER = 2
    OPERATOR = 3


class Names(Struct, frozen=True):
    """A set of names. `exact`: these; `prefixes`: all that begin so."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, *patterns: str) -> "Names":
        """Return the set that patterns describe: a name, or with `*` at its end all that begin so."""
        return cls(
            frozenset(pattern for pattern in patterns if not pattern.endswith("*")),
            tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*")),
        )

    def __contains__(self, name: str) -> bool:
        """Whether `name` is in it."""
        return name in self.exact or name.startswith(self.prefixes)


ANYTHING = Names.of("*")


class Identity(Struct, frozen=True, kw_only=True):
    """Somebody who is known. `workers`: in whose name it may act; `namespaces`: where."""

    name: str
    role: Role
    workers: Names = Names()
    namespaces: Names = ANYTHING

    def require(self, role: Role, method: str) -> None:
        """Raise NotPermitted if it takes more than this one's role."""
        if self.role < role:
            least = role.name.lower()
            message = f"{self.name} is not permitted to call {method}: it takes the role {least}"
            raise NotPermitted("ROLE_REQUIRED", message, identity=self.name, method=method, role=least)

    def require_namespace(self, namespace: str, method: str) -> None:
        """Raise NotPermitted if it may not call there, whether there is such a namespace or not."""
        if namespace not in self.namespaces:
            # Not echoed, as a worker is not.
            message = f"{self.name} is not permitted to call {method} in the namespace that it names"
            raise NotPermitted("NAMESPACE_REQUIRED", message, identity=self.name, method=method)

    def require_worker(self, worker: str, method: str) -> None:
        """Raise NotPermitted if it may not act as `worker`. Operators may act as any."""
        if self.role < Role.OPERATOR and worker not in self.workers:
            # Not echoed: its form has not been checked.
            message = f"{self.name} is not permitted to call {method} as the worker that it names"
            raise NotPermitted("WORKER_REQUIRED", message, identity=self.name, method=method)
