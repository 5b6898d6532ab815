"""A namespace's share of the calls in progress: when the daemon is full, whose one more may come.

Owns: how many each has in progress. Rule: while several have calls in progress, each may have an even part of
what there may be at once, whatever the others have; so who fills the daemon is refused, and not who comes
after. It gives back what it has over within one call's time.
Must not know: how many there may be at once, and why.
"""

from collections.abc import Collection

# Of a call that names none that there is: it is refused soon enough, and is no neighbour.
NOBODY = ""


class Shares:
    """The calls in progress by namespace. Args: names: of those that there are.

    `is_one`: nobody shares, and none need be named.
    """

    __slots__ = ("_in_progress", "_names", "is_one")

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = frozenset(names)
        self.is_one = len(self._names) <= 1
        # Of those that have some.
        self._in_progress: dict[str, int] = {}

    def known(self, name: str) -> str:
        """Return the name if there is such a namespace, else NOBODY."""
        return name if name in self._names else NOBODY

    def has_room(self, name: str, calls: int) -> bool:
        """Whether a namespace may have one more, though there are as many calls as there may be."""
        if self.is_one or name == NOBODY:
            return False
        own = self._in_progress.get(name, 0)
        sharing = len(self._in_progress) + (own == 0)
        return sharing > 1 and own < max(1, calls // sharing)

    def add(self, name: str) -> None:
        """Count one more."""
        self._in_progress[name] = self._in_progress.get(name, 0) + 1

    def remove(self, name: str) -> None:
        """Count one less."""
        left = self._in_progress[name] - 1
        if left:
            self._in_progress[name] = left
        else:
            del self._in_progress[name]
