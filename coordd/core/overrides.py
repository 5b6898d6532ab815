"""What operators change at run time: the capacity of a pool, the limits of windows.

Owns: the changes that are in force, kept until the configuration file says something new for the same thing.
"""

from collections.abc import Mapping

from coordd.core.commands import UpdateLimit, UpdatePool
from coordd.core.errors import InvalidArgument, NotFound
from coordd.core.ledger import Ledger
from coordd.core.lengths import spell_length
from coordd.core.outcomes import Updated
from coordd.core.pools import Pool
from coordd.core.rate_limits import RateLimits
from coordd.core.records import Override, Table
from coordd.core.reservations import Reservations
from coordd.core.rules import contradiction
from coordd.core.windows import Windows

_CAPACITY = 0


class Overrides:
    """The changes in force, by what they change: (`limit/NAME` or `pool/NAME`, window length in ns or 0)."""

    __slots__ = ("_changed", "_ledger", "_rate_limits", "_reservations", "overrides")

    def __init__(self, rate_limits: RateLimits, reservations: Reservations, ledger: Ledger) -> None:
        self._rate_limits = rate_limits
        self._reservations = reservations
        self._ledger = ledger
        self._changed = ledger.changes.of[Table.OVERRIDES]
        self.overrides: dict[tuple[str, int], Override] = {}

    def update_limit(self, command: UpdateLimit, now: int) -> Updated:
        """Change an endpoint's windows."""
        if command.endpoint not in self._rate_limits:
            raise NotFound(
                "UNKNOWN_ENDPOINT",
                f"The endpoint {command.endpoint!r} is not configured.",
                endpoint=command.endpoint,
            )
        limit = self._rate_limits.limit(command.endpoint)
        self._update_windows(limit.windows, limit.rule.windows, command.windows)
        self._rate_limits.heed_operator(limit, command.windows, now)
        self._ledger.freed.append(limit.key)
        return Updated(subject=limit.windows.name)

    def update_pool(self, command: UpdatePool, now: int) -> Updated:
        """Change a pool's capacity, or its windows, or let it adapt again."""
        pool = self.pool(command.name)
        if command.is_unpinned:
            return self._unpin(pool, command, now)
        if (pool.windows is None) != bool(command.capacity) or (pool.windows is None) == bool(
            command.windows
        ):
            field = "capacity" if pool.windows is None else "windows"
            raise InvalidArgument(
                "INVALID_COUNT", f"Of the pool {pool.name} only {field} can change.", field=field
            )
        self._update_pool(pool, command)
        self._ledger.freed.extend((pool.larger_key, pool.key))
        return Updated(subject=f"pool/{pool.name}")

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises: NotFound (UNKNOWN_POOL)."""
        pool = self._reservations.pool(name)
        if pool is None:
            raise NotFound("UNKNOWN_POOL", f"The pool {name!r} is not configured.", pool=name)
        return pool

    def load(self, override: Override) -> None:
        """Put a stored change in force again, unless the file says something new for the same thing."""
        key = (override.subject, override.window_ns)
        if self._configured(override) == override.configured:
            self.overrides[key] = override
            self._set(override)
        else:
            self._changed[key] = None

    def _unpin(self, pool: Pool, command: UpdatePool, now: int) -> Updated:
        if command.capacity or command.windows:
            raise InvalidArgument(
                "INVALID_COUNT", "A pool is unpinned or changed, not both at once.", field="unpin"
            )
        if pool.adaptive is None:
            raise InvalidArgument(
                "NOT_ADAPTIVE", f"The pool {pool.name} does not adapt: it has no bounds.", pool=pool.name
            )
        if self.overrides.pop((f"pool/{pool.name}", _CAPACITY), None) is not None:
            self._changed[f"pool/{pool.name}", _CAPACITY] = None
            self._reservations.capacities.unpin(pool.adaptive, now)
        return Updated(subject=f"pool/{pool.name}")

    def _update_pool(self, pool: Pool, command: UpdatePool) -> None:
        limit = pool.rule.limit
        if pool.windows is not None and limit is not None:
            self._update_windows(pool.windows, limit.windows, command.windows)
        else:
            self._put(f"pool/{pool.name}", _CAPACITY, command.capacity, pool.rule.capacity)

    def _update_windows(
        self, windows: Windows, configured: Mapping[int, int], changed: Mapping[int, int]
    ) -> None:
        limits = {window.length_ns: window.configured for window in windows.of}
        unknown = sorted(set(changed) - set(limits))
        if unknown or not changed:
            raise InvalidArgument(
                "UNKNOWN_WINDOW",
                f"There is no window of {spell_length(unknown[0])}." if unknown else "No window is named.",
                name=windows.name,
                window_ns=unknown[0] if unknown else "",
            )
        problem = contradiction({**limits, **changed})
        if problem is not None:
            raise InvalidArgument("CONTRADICTING_WINDOWS", f"{windows.name}: {problem}.", name=windows.name)
        for length_ns, value in changed.items():
            self._put(windows.name, length_ns, value, configured[length_ns])

    def _put(self, subject: str, window_ns: int, value: int, configured: int) -> None:
        override = Override(subject=subject, window_ns=window_ns, value=value, configured=configured)
        key = (subject, window_ns)
        if value == configured and not self._is_adaptive(override):
            self.overrides.pop(key, None)
            self._changed[key] = None
        else:
            self.overrides[key] = override
            self._changed[key] = override
        self._set(override)

    def _is_adaptive(self, override: Override) -> bool:
        # There the capacity configured is a value like any other: it is pinned.
        is_capacity = override.window_ns == _CAPACITY
        return is_capacity and self.pool(override.subject.partition("/")[2]).adaptive is not None

    def windows(self, subject: str) -> Windows | None:
        """Return the windows of `limit/NAME` or `pool/NAME`, or None if there are none."""
        sort, _, name = subject.partition("/")
        if sort == "limit":
            return self._rate_limits.limit(name).windows if name in self._rate_limits else None
        pool = self._reservations.pool(name)
        return pool.windows if pool is not None else None

    def _configured(self, override: Override) -> int | None:
        """Return what the configuration says of what `override` changes, or None if it no longer knows it."""
        if override.window_ns == _CAPACITY:
            pool = self._reservations.pool(override.subject.partition("/")[2])
            return pool.rule.capacity if pool is not None else None
        windows = self.windows(override.subject)
        limits = {window.length_ns: window.configured for window in windows.of} if windows is not None else {}
        return limits.get(override.window_ns)

    def _set(self, override: Override) -> None:
        if override.window_ns == _CAPACITY:
            pool = self.pool(override.subject.partition("/")[2])
            pool.capacity = override.value
            if pool.adaptive is not None:
                self._reservations.capacities.pin(pool.adaptive)
            return
        windows = self.windows(override.subject)
        for window in windows.of if windows is not None else ():
            if window.length_ns == override.window_ns:
                window.limit = window.configured = override.value
