"""Which tweet a worker looks at next: urgent ones first, second looks when due, else as they arrive."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from examples.demo.tweets import Tweet

# How long until a tweet that somebody else holds is looked at again.
LOOK_AGAIN_S: Final = 1.0
# A worker takes any of so many that are due: if all took the oldest, one would get it and the others nothing.
SPREAD: Final = 16


@dataclass(frozen=True, slots=True)
class _Turn:
    due_s: float
    tweet: Tweet


class Turns:
    """The turns of one worker, shared by its hands. Each of its four rows is in the order of its times."""

    def __init__(self, tweets: Iterable[Tweet], *, start_s: float, is_by_class: bool) -> None:
        self._is_by_class = is_by_class
        # In the order in which they are looked at where several are due.
        self._rows: tuple[deque[_Turn], ...] = (deque(), deque(), deque(), deque())
        for tweet in tweets:
            self._row(tweet, is_again=False).append(_Turn(start_s + tweet.arrives_s, tweet))

    async def next(self) -> Tweet | None:
        """Wait for the next turn and return its tweet, or None after the last."""
        rows = [row for row in self._rows if row]
        if not rows:
            return None
        now_s = time.time()
        due = [row for row in rows if row[0].due_s <= now_s]
        if due:
            return _any_due(due[0], now_s).tweet
        turn = min(rows, key=lambda row: row[0].due_s).popleft()
        await asyncio.sleep(turn.due_s - now_s)
        return turn.tweet

    def look_again(self, tweet: Tweet) -> None:
        """Give `tweet` another turn in a while."""
        self._row(tweet, is_again=True).append(_Turn(time.time() + LOOK_AGAIN_S, tweet))

    def _row(self, tweet: Tweet, *, is_again: bool) -> deque[_Turn]:
        is_urgent = tweet.is_urgent and self._is_by_class
        return self._rows[(0 if is_urgent else 2) + (not is_again)]


def _any_due(row: deque[_Turn], now_s: float) -> _Turn:
    """Take one of the first of a row that are due out of it."""
    due = sum(turn.due_s <= now_s for turn in islice(row, SPREAD))
    index = random.randrange(due)
    turn = row[index]
    del row[index]
    return turn
