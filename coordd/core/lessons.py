"""What one endpoint's upstream has taught. Must not know: how it is learnt, which is `upstream`'s."""

from collections import deque

from coordd.core.records import ForeignUsage, LearnedLimit


class Lessons:
    """By window length: the limits learnt, what others were seen to use, and the evidence for it.

    `ceilings`: of the latest reports, what others can have used at most.
    """

    __slots__ = ("ceilings", "foreign", "is_absurd", "limits", "malformed")

    def __init__(self) -> None:
        self.limits: dict[int, LearnedLimit] = {}
        self.foreign: dict[int, ForeignUsage] = {}
        self.ceilings: dict[int, deque[int]] = {}
        self.malformed = 0
        # Whether the last reset told was; so that each run of them is told once.
        self.is_absurd = False

    def evidence(self) -> tuple[object, ...]:
        """Return what decisions depend on and no record holds."""
        return (
            self.is_absurd,
            sorted((length_ns, list(seen)) for length_ns, seen in self.ceilings.items()),
        )
