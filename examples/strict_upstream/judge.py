"""What a run proved. Pure functions: upstream's log and the daemon's events in, findings out.

Upstream's log says which calls were refused and accepted, and when; the daemon's events say when each permit
was given and when the gate was closed and opened. Both tell the time of the same machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from examples.demo.audit import Arrival

_CREATED = 201
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True)
class GateEvent:
    """The gate of the endpoint was closed, or opened, at `at_ns`."""

    at_ns: int
    is_closed: bool


def refused_after_closing(
    arrivals: Iterable[Arrival], granted_ns: Mapping[str, int], gate: Sequence[GateEvent]
) -> list[int]:
    """Return, for each time the gate was closed, how many calls were refused that it should have held back.

    Those are the calls whose permits were given after it was closed and before it was opened, or closed
    again: one, the probe, may be refused, and closes it again. What was in flight when it was closed can't
    be helped, and is not counted.
    Args: granted_ns: permit -> when it was given. gate: in order of time.
    """
    refused_ns = [granted_ns[a.tweet_id] for a in arrivals if a.status == _TOO_MANY_REQUESTS]
    ends_ns = [*(event.at_ns for event in gate[1:]), 1 << 63][: len(gate)]
    return [
        sum(event.at_ns < at_ns <= end_ns for at_ns in refused_ns)
        for event, end_ns in zip(gate, ends_ns, strict=True)
        if event.is_closed
    ]


def mean_fill(
    accepted_s: Iterable[float], window: tuple[float, int], since_s: float, until_s: float
) -> float:
    """Return the mean over an interval of `calls accepted within the last window / limit`.

    That is the share of what upstream would have accepted that the fleet made use of. Each call counts for
    the part of the interval in which it is within the window that ends then.
    Args: window: length in s, limit.
    """
    length_s, limit = window
    inside_s = sum(max(0.0, min(at_s + length_s, until_s) - max(at_s, since_s)) for at_s in accepted_s)
    return inside_s / (limit * (until_s - since_s))


def accepted_s(arrivals: Iterable[Arrival]) -> list[float]:
    """Return when upstream accepted calls."""
    return [arrival.at_s for arrival in arrivals if arrival.status == _CREATED]


def refused(arrivals: Iterable[Arrival], *, by_limiter: bool, random_layer: str) -> int:
    """Return how many calls the limiter, or the random layer before it, refused."""
    return sum(
        arrival.status == _TOO_MANY_REQUESTS and (arrival.worker != random_layer) == by_limiter
        for arrival in arrivals
    )
