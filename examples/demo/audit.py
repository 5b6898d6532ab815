"""What the run proved. Pure functions: logs in, findings and figures out.

Upstream's log is what happened; the daemon's history and the workers' journals must agree with it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple

from examples.demo.journal import Entry, Event
from examples.demo.tweets import Tweet

_CREATED: Final = 201


class Arrival(NamedTuple):
    """One call as upstream saw it. `at_s`: unix time."""

    at_s: float
    tweet_id: str
    worker: str
    status: int


@dataclass(frozen=True, kw_only=True)
class History:
    """What the daemon's history says: totals, and the outcome of each tweet no journal says is answered."""

    successful: int
    unknown: int
    leftover: Mapping[str, str]  # tweet -> the item's state, as the daemon names it


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which tweets ended how, and everything that should not be so."""

    answered: frozenset[str]
    unknown: frozenset[str]
    problems: tuple[str, ...]


def judge(
    tweets: Sequence[Tweet], arrivals: Sequence[Arrival], journal: Sequence[Entry], history: History
) -> Verdict:
    """Check that every tweet is answered exactly once, or unknown and answered at most once.

    The daemon's history decides which of the two it is; upstream's own log decides how often it was answered.
    """
    accepted = Counter(arrival.tweet_id for arrival in arrivals if arrival.status == _CREATED)
    answered = said_answered(journal) | {t for t, state in history.leftover.items() if state == "DONE"}
    unknown = frozenset(t for t, state in history.leftover.items() if state == "UNKNOWN")
    posted = {entry.tweet_id for entry in journal if entry.event is Event.POSTING}
    known = {tweet.tweet_id for tweet in tweets}
    problems = [
        *(f"tweet {t}: answered {n} times" for t, n in accepted.items() if n > 1),
        *(f"tweet {t}: neither answered nor unknown" for t in sorted(known - answered - unknown)),
        *(
            f"tweet {t}: said to be answered, but upstream has no reply"
            for t in sorted(answered - accepted.keys())
        ),
        *(
            f"tweet {t}: upstream has a reply that no worker's journal has"
            for t in sorted(accepted.keys() - posted)
        ),
        *(
            f"tweet {t}: upstream has a reply to what is no customer's tweet"
            for t in sorted(accepted.keys() - known)
        ),
        *_disagreements(answered, unknown, history),
        *(f"tweet {a.tweet_id}: upstream answered {a.status}" for a in arrivals if a.status != _CREATED),
    ]
    return Verdict(answered=frozenset(answered), unknown=unknown, problems=tuple(problems))


def said_answered(journal: Sequence[Entry]) -> frozenset[str]:
    """Return the tweets that the workers' journals say are answered."""
    return frozenset(entry.tweet_id for entry in journal if entry.event is Event.ANSWERED)


def _disagreements(answered: frozenset[str], unknown: frozenset[str], history: History) -> list[str]:
    pairs = (
        ("answered", len(answered), history.successful),
        ("unknown", len(unknown), history.unknown),
    )
    return [
        f"{name}: {counted} counted, {told} in GetEngagementStats"
        for name, counted, told in pairs
        if counted != told
    ]


class Utilisation(NamedTuple):
    """How full a window was while there was demand, 0..1, and for how long there was.

    See `utilisation`. `fill_up` leaves out the time in which the daemon was down; `fill`, the headline,
    doesn't. `peak`: most calls in any one window.
    """

    window_s: int
    fill: float
    fill_up: float
    demand_s: float
    peak: int


def utilisation(
    arrived_s: Sequence[float],
    accepted_s: Sequence[float],
    window: tuple[int, int],
    *,
    backlog_min: int,
    down: tuple[float, float],
) -> Utilisation:
    """Return the mean of `calls in the last window / limit` over the time in which there was demand.

    Why this: upstream accepts at most `limit` calls in any `window_s`. At an instant, the share of them that
    its log shows in the window that ends there is what the fleet made of it; the rest is lost for good. The
    mean is the ratio of the calls made to those the window would have permitted, with nothing given away: the
    first window, which starts empty, counts as lost until the fleet has filled it, and so does the daemon's
    downtime. There is demand while at least `backlog_min` tweets have arrived and are not answered: one for
    each worker, so that nobody lacks work. Tweets that were never accepted (their holder was killed) are no
    demand.

    Args:    arrived_s, accepted_s: unix times by upstream's log, of the same tweets, in any order.
             window: length in s, limit.  backlog_min: workers.  down: when the daemon was dead.
    Returns: 0 for both fills if there was no demand.
    """
    window_s, limit = window
    changes = sorted(
        [(t, (1, 0, 0)) for t in arrived_s]
        + [(t, (-1, 1, 0)) for t in accepted_s]
        + [(t + window_s, (0, -1, 0)) for t in accepted_s]
        + [(down[0], (0, 0, 1)), (down[1], (0, 0, -1))]
    )
    backlog = inside = is_down = peak = 0
    full_s = demand_s = full_up_s = up_s = 0.0
    before_s = changes[0][0]
    for now_s, (backlog_change, inside_change, down_change) in changes:
        if backlog >= backlog_min:
            span_s = now_s - before_s
            demand_s += span_s
            full_s += span_s * inside / limit
            up_s += span_s * (not is_down)
            full_up_s += span_s * (not is_down) * inside / limit
        backlog, inside, is_down = backlog + backlog_change, inside + inside_change, is_down + down_change
        peak, before_s = max(peak, inside), now_s
    return Utilisation(
        window_s, full_s / demand_s if demand_s else 0.0, full_up_s / up_s if up_s else 0.0, demand_s, peak
    )


def ideal_finish_s(arrived_s: Sequence[float], windows: Mapping[int, int]) -> float:
    """Return when a perfect caller would have had its last call accepted: no latency, no crash.

    Args: arrived_s: ascending, in s.  windows: length in s -> limit.
    """
    called_s: list[float] = []
    for index, arrives_s in enumerate(arrived_s):
        frees_s = [
            called_s[index - limit] + window_s for window_s, limit in windows.items() if index >= limit
        ]
        called_s.append(max([arrives_s, *frees_s]))
    return called_s[-1]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 (nearest rank), rounded to 0.01; 0 if there is nothing."""
    ordered = sorted(values)
    return {
        f"p{percent}": round(ordered[ceil(len(ordered) * percent / 100) - 1], 2) if ordered else 0.0
        for percent in (50, 99)
    }
