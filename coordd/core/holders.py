"""Who holds what is exclusive: one holder for each key.

Owns: the holders by key. Why there may be more than one after a restart: what was exclusive by more when it
was taken may be exclusive by less in the configuration now. Then all of them run on, and the key is free when
the last has gone.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Holders(Generic[T]):
    """Holders by key. `get` returns the first that is left, or None."""

    __slots__ = ("_first", "_others", "get")

    def __init__(self) -> None:
        self._first: dict[Hashable, T] = {}
        self._others: dict[Hashable, list[T]] = {}
        # The dictionary's own: every request for something exclusive begins here.
        self.get = self._first.get

    def __len__(self) -> int:
        """Holders in all."""
        return len(self._first) + sum(len(others) for others in self._others.values())

    def only(self, key: Hashable) -> T | None:
        """Return the one who holds `key`, or None where nobody does, or several do."""
        return self._first.get(key) if not self._others.get(key) else None

    def add(self, key: Hashable, holder: T) -> None:
        """Let `holder` hold `key`."""
        if key in self._first:
            self._others.setdefault(key, []).append(holder)
        else:
            self._first[key] = holder

    def remove(self, key: Hashable, holder: T) -> None:
        """Let it hold `key` no longer, if it did."""
        if not self._others and self._first.get(key) is holder:
            del self._first[key]
            return
        others = self._others.get(key, [])
        if self._first.get(key) is not holder:
            others[:] = [other for other in others if other is not holder]
        elif others:
            self._first[key] = others.pop(0)
        else:
            del self._first[key]
