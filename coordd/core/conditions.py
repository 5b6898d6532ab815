"""Who waits under the condition that nobody acts on an item: so that a wait in vain ends at once.

Owns: the waiters by the items of their conditions, and the items that somebody has acted on since they were
looked at. Why not wait until it is their turn: that may be long, and meanwhile they hold others up.
Must not know: whether a condition holds.
"""

from coordd.core.commands import AcquireBundle
from coordd.core.records import Engagement, Outcome
from coordd.core.waiters import Waiter


class Conditions:
    """Waiters by item. `of` is mostly empty; one that is away is not in it. `broken`: items acted on."""

    __slots__ = ("broken", "of")

    def __init__(self) -> None:
        self.of: dict[str, dict[int, None]] = {}
        self.broken: list[str] = []

    def begin(self, waiter: Waiter, command: AcquireBundle) -> None:
        """Take a waiter in."""
        for condition in command.not_engaged:
            self.of.setdefault(condition.item, {})[waiter.id] = None

    def end(self, waiter: Waiter) -> None:
        """Let it go, if it was here."""
        if isinstance(waiter.command, AcquireBundle):
            for condition in waiter.command.not_engaged:
                waiters = self.of.get(condition.item, {})
                waiters.pop(waiter.id, None)
                if not waiters:
                    self.of.pop(condition.item, None)

    def note(self, engagement: Engagement) -> None:
        """Take in that somebody has acted on an item. Call only where there are conditions."""
        if engagement.item in self.of and engagement.outcome != Outcome.FAILURE:
            self.broken.append(engagement.item)
