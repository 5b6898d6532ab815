"""One process of the fleet: sees every tweet at its time, in order, and races the others to answer it.

lock -> permit -> POST -> RecordUsage -> release. The lock comes first: a permit is only worth asking for what
one may act upon, and the lock is renewed while the permit is waited for. Whoever finds a tweet held goes on
to the next and looks again later, since the holder may fail; whoever finds it engaged leaves it for good.
"""

import argparse
import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from coordd_client import Client, CoorddError, RefusalReason, Refused
from examples.demo.journal import Event, Journal
from examples.demo.settings import ENDPOINT, KIND, POST_PATH
from examples.demo.tweets import Tweet, load_tweets

# How long until a tweet that somebody else holds is looked at again.
LOOK_AGAIN_S: Final = 1.0
PERMIT_WAIT_S: Final = 60.0
# A permit that has less time than this left is given back unused: the call might arrive upstream too late.
USE_MARGIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Turn:
    due_s: float
    tweet: Tweet


class Turns:
    """Which tweet a worker looks at next: its second looks when they are due, else the next one to arrive."""

    def __init__(self, tweets: Iterable[Tweet], *, start_s: float) -> None:
        self._fresh = deque(_Turn(start_s + tweet.arrives_s, tweet) for tweet in tweets)
        self._again: deque[_Turn] = deque()

    async def next(self) -> Tweet | None:
        """Wait for the next turn and return its tweet, or None after the last."""
        heads = [turns for turns in (self._again, self._fresh) if turns]
        if not heads:
            return None
        now_s = time.time()
        due = [turns for turns in heads if turns[0].due_s <= now_s]
        chosen = due[0] if due else min(heads, key=lambda turns: turns[0].due_s)
        turn = chosen.popleft()
        await asyncio.sleep(max(0.0, turn.due_s - now_s))
        return turn.tweet

    def look_again(self, tweet: Tweet) -> None:
        """Give `tweet` another turn in a while."""
        self._again.append(_Turn(time.time() + LOOK_AGAIN_S, tweet))


class Worker:
    """Answers tweets. Its dependencies are opened and closed by the caller."""

    def __init__(self, name: str, client: Client, upstream: httpx.AsyncClient, journal: Journal) -> None:
        self._name = name
        self._client = client
        self._upstream = upstream
        self._journal = journal

    async def run(self, turns: Turns) -> None:
        """Go on until every tweet is answered or given up by somebody."""
        while tweet := await turns.next():
            if not await self._is_settled(tweet):
                turns.look_again(tweet)

    async def _is_settled(self, tweet: Tweet) -> bool:
        """Try to answer `tweet`; return whether nobody has to look at it again."""
        try:
            return await self._answer(tweet)
        except Refused as refused:
            return refused.refusal.reason is RefusalReason.RECENTLY_ENGAGED
        except (CoorddError, httpx.HTTPError) as error:
            self._journal.write(Event.UNSURE, tweet.tweet_id, detail=repr(error))
            return False

    async def _answer(self, tweet: Tweet) -> bool:
        asked_s = time.monotonic()
        async with self._client.lock(tweet.item, kind=KIND) as lock:
            locked_s = time.monotonic()
            async with self._client.permit(ENDPOINT, wait=PERMIT_WAIT_S) as permit:
                permitted_s = time.monotonic()
                if permit.use_within_s < USE_MARGIN_S:
                    permit.not_sent()
                    lock.failed()
                    return False
                self._journal.write(
                    Event.POSTING,
                    tweet.tweet_id,
                    lock_wait_s=locked_s - asked_s,
                    permit_wait_s=permitted_s - locked_s,
                )
                # From here on it may have arrived, whatever ends this block.
                lock.unknown()
                response = await self._post(tweet, timeout_s=permit.use_within_s)
                said = lock.succeeded if response.is_success else lock.failed
                said()
                permit.response(response.status_code, response.headers.multi_items())
        event = Event.ANSWERED if response.is_success else Event.FAILED
        self._journal.write(event, tweet.tweet_id, detail=str(response.status_code))
        return response.is_success

    async def _post(self, tweet: Tweet, *, timeout_s: float) -> httpx.Response:
        body = {"in_reply_to": tweet.tweet_id, "worker": self._name}
        return await self._upstream.post(POST_PATH, json=body, timeout=timeout_s)


async def _run(arguments: argparse.Namespace) -> None:
    tweets = load_tweets(arguments.tweets)
    upstream = httpx.AsyncClient(
        base_url=f"http://{arguments.upstream}",
        headers={"Authorization": "Bearer the-fleet"},
        trust_env=False,
    )
    client = Client(arguments.daemon, worker=arguments.name)
    with Journal(arguments.journal) as journal:
        async with client, upstream:
            print("ready", flush=True)
            # All workers are told the same instant, once all are ready.
            start_s = float(await asyncio.to_thread(sys.stdin.readline))
            await Worker(arguments.name, client, upstream, journal).run(Turns(tweets, start_s=start_s))


def main() -> None:
    """Run one worker; its start time comes on stdin once it has said `ready`."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo.worker", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--daemon", required=True, help="address of the daemon, HOST:PORT")
    parser.add_argument("--upstream", required=True, help="address of the upstream, HOST:PORT")
    parser.add_argument("--journal", required=True, type=Path, help="file to write what happened to")
    parser.add_argument("--tweets", required=True, type=int, help="how many tweets to replay")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
