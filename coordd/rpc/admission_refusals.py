"""What a call is told that is refused for overload: made once, told thousands of times.

Rules: each says when to come back, and no two in a row say the same, so that those refused together do not
come back together. Why they are kept: to build one takes as long as to decide a call.
"""

from collections.abc import Iterator
from functools import cache
from itertools import cycle
from typing import Final

import grpc

from coordd.core.limits import MILLISECOND
from coordd.rpc.admission import away_ns
from coordd.rpc.errors import Failure

# So many different times to come back, evenly spread.
_SPREAD: Final = 16

Trailers = tuple[tuple[str, str | bytes], ...]


class Refusal:
    """One answer: the failure, and its trailers ready to be sent."""

    __slots__ = ("failure", "trailers")

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.trailers: Trailers = failure.trailers()


class Overloaded(Exception):
    """The call is refused because the daemon has too much to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.failure.message)
        self.refusal = refusal


@cache
def refusals(level: int, calls_max: int) -> Iterator[Refusal]:
    """Return the endless row of refusals for a level of overload. Take each from it with `next`."""
    # Every fifth in turn, which comes to each of the 16: neighbours are far apart.
    parts = [index * 5 % _SPREAD / _SPREAD for index in range(_SPREAD)]
    return cycle([_refusal(away_ns(level, part), calls_max) for part in parts])


def _refusal(retry_ns: int, calls_max: int) -> Refusal:
    return Refusal(
        Failure(
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason="OVERLOADED",
            message=f"The daemon has too much to do; try again in {retry_ns // MILLISECOND} ms.",
            metadata={"bound": "server.max_calls", "value": str(calls_max)},
            retry_ns=retry_ns,
        )
    )
