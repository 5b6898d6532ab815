"""The input: customers' tweets in order, and when each arrives once time is compressed."""

import csv
from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class Tweet:
    """A customer's tweet. `arrives_s`: seconds from the start of the replay."""

    tweet_id: str
    arrives_s: float

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
    rows = rows if count is None else rows[-count:]
    created_s = [datetime.fromisoformat(row["created_at"]).timestamp() for row in rows]
    arrivals = compressed(created_s)
    return [Tweet(row["tweet_id"], arrives_s) for row, arrives_s in zip(rows, arrivals, strict=True)]


def compressed(created_s: Sequence[float]) -> list[float]:
    """Return the times at compressed speed, from 0, with idle gaps cut to `GAP_S_MAX`.

    Args: created_s: seconds, ascending.
    """
    arrivals = [0.0]
    for earlier, later in pairwise(created_s):
        arrivals.append(arrivals[-1] + min((later - earlier) / SPEED, GAP_S_MAX))
    return arrivals[: len(created_s)]
