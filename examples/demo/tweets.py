"""The input: customers' tweets in order, and when each arrives once time is compressed."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

TWEETS_PATH: Final = Path(__file__).parents[1] / "support_tweets.csv"

# An hour of the data passes in a second ...
SPEED: Final = 3600.0
# ... but no gap lasts longer than this: the sample has silent years, and few of its hours exceed the limits
# by themselves. So tweets arrive for half a minute and the limits need a minute: a backlog, which is the
# point.
GAP_S_MAX: Final = 0.03
# A customer who writes so often insists: with two classes of urgency, from that tweet on all are urgent. That
# is a quarter of the data.
INSISTS_FROM: Final = 3


@dataclass(frozen=True, slots=True)
class Tweet:
    """A customer's tweet. `arrives_s`: seconds from the start of the replay.

    `is_urgent`: the customer insists.
    """

    tweet_id: str
    arrives_s: float
    is_urgent: bool = False

    @property
    def item(self) -> str:
        """Return the name under which the fleet locks it."""
        return f"tweet:{self.tweet_id}"


def load_tweets(count: int | None = None) -> list[Tweet]:
    """Return customers' tweets with their arrival times, in order.

    Args: count: only so many, the last ones, which come in dense; None: all.
    """
    with TWEETS_PATH.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == "customer"]
    urgent = _insisting(row["author"] for row in rows)
    first = 0 if count is None else max(0, len(rows) - count)
    created_s = [datetime.fromisoformat(row["created_at"]).timestamp() for row in rows[first:]]
    return [
        Tweet(row["tweet_id"], arrives_s, is_urgent)
        for row, arrives_s, is_urgent in zip(rows[first:], compressed(created_s), urgent[first:], strict=True)
    ]


def _insisting(authors: Iterable[str]) -> list[bool]:
    """Say of each tweet whether its author insists by then."""
    seen: Counter[str] = Counter()
    insisting = []
    for author in authors:
        seen[author] += 1
        insisting.append(seen[author] >= INSISTS_FROM)
    return insisting


def compressed(created_s: Sequence[float]) -> list[float]:
    """Return the times at compressed speed, from 0, with idle gaps cut to `GAP_S_MAX`.

    Args: created_s: seconds, ascending.
    """
    arrivals = [0.0]
    for earlier, later in pairwise(created_s):
        arrivals.append(arrivals[-1] + min((later - earlier) / SPEED, GAP_S_MAX))
    return arrivals[: len(created_s)]
