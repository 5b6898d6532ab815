"""One process of the fleet: sees every tweet at its time, in order, and races the others to answer it.

bundle of lock and permit -> POST -> release of both, with outcome and upstream's headers. Both come in one
decision, so nobody holds a tweet while it waits for a permit, nor a permit that it has no tweet for. Whoever
finds a tweet held goes on to the next and looks again later, since the holder may fail; whoever finds it
engaged leaves it for good. A session says that the worker is there and renews what it holds.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import httpx

from coordd_client import Client, CoorddError, OnConflict, Priority, Queued, RefusalReason, Refused, claims
from examples.demo.journal import Event, Journal
from examples.demo.settings import ENDPOINT, KIND, POST_PATH
from examples.demo.turns import Turns
from examples.demo.tweets import Tweet, load_tweets

BUNDLE_WAIT_S: Final = 60.0
# A permit that has less time than this left is given back unused: the call might arrive upstream too late.
USE_MARGIN_S: Final = 0.25


class _Waited:
    """How long one wait was blocked by the endpoint, and how long by anything else, the calls included."""

    def __init__(self) -> None:
        self._began_s = self._since_s = time.monotonic()
        self._is_for_permit = False
        self._permit_s = 0.0

    def note(self, queued: Queued) -> None:
        """Take in what blocks it from now on."""
        self._close()
        blocked_by = queued.blocked_by
        self._is_for_permit = blocked_by is not None and blocked_by.subject == ENDPOINT

    def end(self) -> tuple[float, float]:
        """Return the seconds until it had the lock and those for the permit, at the grant."""
        self._close()
        return self._since_s - self._began_s - self._permit_s, self._permit_s

    def _close(self) -> None:
        now_s = time.monotonic()
        if self._is_for_permit:
            self._permit_s += now_s - self._since_s
        self._since_s = now_s


class Worker:
    """Answers tweets. Its dependencies are opened and closed by the caller."""

    def __init__(
        self, name: str, client: Client, upstream: httpx.AsyncClient, journal: Journal, *, is_by_class: bool
    ) -> None:
        self._name = name
        self._client = client
        self._upstream = upstream
        self._journal = journal
        self._is_by_class = is_by_class

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
        waited = _Waited()
        async with self._client.bundle(
            claims.lock(tweet.item, kind=KIND),
            claims.permit(ENDPOINT),
            wait=BUNDLE_WAIT_S,
            priority=self._priority(tweet),
            on_conflict=OnConflict.DENY,
            on_queued=waited.note,
        ) as bundle:
            lock_s, permit_s = waited.end()
            if bundle.permit.use_within_s < USE_MARGIN_S:
                bundle.permit.not_sent()
                bundle.failed()
                return False
            self._journal.write(
                Event.POSTING,
                tweet.tweet_id,
                lock_wait_s=lock_s,
                permit_wait_s=permit_s,
                is_urgent=tweet.is_urgent,
            )
            # From here on it may have arrived, whatever ends this block.
            bundle.unknown()
            response = await self._post(tweet, timeout_s=bundle.permit.use_within_s)
            said = bundle.succeeded if response.is_success else bundle.failed
            said()
            bundle.permit.response(response.status_code, response.headers.multi_items())
        event = Event.ANSWERED if response.is_success else Event.FAILED
        self._journal.write(event, tweet.tweet_id, detail=str(response.status_code))
        return response.is_success

    def _priority(self, tweet: Tweet) -> Priority:
        if not self._is_by_class:
            return Priority.MEDIUM
        return Priority.CRITICAL if tweet.is_urgent else Priority.LOW

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
        async with client, upstream, client.session(labels={"role": "answers"}):
            print("ready", flush=True)
            # All workers are told the same instant, once all are ready.
            start_s = float(await asyncio.to_thread(sys.stdin.readline))
            turns = Turns(tweets, start_s=start_s, is_by_class=arguments.classes)
            worker = Worker(arguments.name, client, upstream, journal, is_by_class=arguments.classes)
            async with asyncio.TaskGroup() as hands:
                for _ in range(arguments.hands):
                    hands.create_task(worker.run(turns))


def main() -> None:
    """Run one worker; its start time comes on stdin once it has said `ready`."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo.worker", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--daemon", required=True, help="address of the daemon, HOST:PORT")
    parser.add_argument("--upstream", required=True, help="address of the upstream, HOST:PORT")
    parser.add_argument("--journal", required=True, type=Path, help="file to write what happened to")
    parser.add_argument("--tweets", required=True, type=int, help="how many tweets to replay")
    parser.add_argument("--hands", type=int, default=1, help="how many tweets it works on at once")
    parser.add_argument("--classes", action="store_true", help="urgent tweets are critical, others low")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
