"""The course of the demo: start all, kill a worker at the worst moment, kill the daemon, audit what happened.

The last line on stdout is one JSON object, see `report`; the progress bar goes to stderr. Exit code 1 if any
tweet is neither answered exactly once nor unknown, if upstream refused a call, or if the logs disagree.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from coordd_client import Client
from examples.demo import audit
from examples.demo.journal import Entry, read_journal
from examples.demo.processes import Child, DemoFailed, Processes, processes
from examples.demo.report import Evidence, report, show_report
from examples.demo.settings import HANDS_BY_CLASS, daemon_config
from examples.demo.tweets import Tweet, load_tweets

_DAEMON: Final = str(Path(sys.executable).parent / "coordd")
_POLL_S: Final = 0.1
# How far the replay is, as a share of the tweets, when a worker and when the daemon is killed.
_WORKER_DIES_AT: Final = 0.3
_DAEMON_DIES_AT: Final = 0.6
# Twice of what it should take; then something hangs.
_REPLAY_S_MAX: Final = 180.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says."""

    tweets: int | None
    workers: int
    classes: bool
    keep: Path | None


class Upstream:
    """Upstream's own account of the run, over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=60)

    async def counts(self) -> dict[str, int]:
        """Return accepted, duplicates and refused_429."""
        return dict((await self._http.get("/counts")).json())

    async def log(self) -> list[audit.Arrival]:
        """Return every call it saw."""
        return [audit.Arrival(*arrival) for arrival in (await self._http.get("/log")).json()]

    async def withhold(self, worker: str) -> bool:
        """Return once a reply of `worker` is accepted but not yet answered; False if none came for 30 s."""
        return bool((await self._http.post(f"/withhold/{worker}")).json()["caught"])

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class Daemon:
    """The daemon under test: the same data and the same port over its deaths."""

    def __init__(self, started: Processes, config_path: Path, child: Child, address: str) -> None:
        self._started = started
        self._config_path = config_path
        self._child = child
        self.address = address

    @classmethod
    async def start(
        cls, started: Processes, directory: Path, config: Callable[[str], str] = daemon_config
    ) -> "Daemon":
        """Start it on a free port, with its data in `directory`, and wait until it serves.

        Args: config: makes the configuration, given the path of the data.
        """
        config_path = directory / "coordd.toml"
        config_path.write_text(config(str(directory / "coordd.db")), encoding="utf-8")
        child, address = await cls._serve(started, config_path)
        # From now on it has this address.
        text = config_path.read_text(encoding="utf-8")
        config_path.write_text(text.replace("127.0.0.1:0", address), encoding="utf-8")
        return cls(started, config_path, child, address)

    async def die_and_return(self) -> tuple[float, float]:
        """SIGKILL it and start it again; return the unix times of both."""
        killed_s = time.time()
        await self._child.kill()
        self._child, _ = await self._serve(self._started, self._config_path)
        return killed_s, time.time()

    @staticmethod
    async def _serve(started: Processes, config_path: Path) -> tuple[Child, str]:
        child = await started.start("daemon", [_DAEMON, "serve", "--config", str(config_path)])
        words = (await child.line_with("coordd serving on ")).split()
        return child, words[words.index("on") + 1]


class Fleet:
    """The workers, and where each keeps its journal."""

    def __init__(
        self,
        started: Processes,
        directory: Path,
        daemon: str,
        upstream: str,
        tweets: int,
        *,
        is_by_class: bool,
    ) -> None:
        self._started = started
        self._directory = directory
        self._shared = ["--daemon", daemon, "--upstream", upstream, "--tweets", str(tweets)]
        if is_by_class:
            self._shared += ["--classes", "--hands", str(HANDS_BY_CLASS)]
        self._workers: dict[str, Child] = {}
        self._journals: list[Path] = []

    async def hire(self, names: Sequence[str]) -> None:
        """Start workers, and wait until all are ready."""
        for name in names:
            journal = self._directory / f"{name}.jsonl"
            self._journals.append(journal)
            arguments = ["--name", name, "--journal", str(journal), *self._shared]
            self._workers[name] = await self._started.start_module(name, "worker", *arguments)
        await asyncio.gather(*(self._workers[name].line_with("ready") for name in names))

    def send_off(self, names: Sequence[str], start_s: float) -> None:
        """Tell workers the unix time at which the replay starts."""
        for name in names:
            self._workers[name].tell(repr(start_s))

    async def kill(self, name: str) -> None:
        """SIGKILL a worker."""
        await self._workers.pop(name).kill()

    async def finish(self) -> None:
        """Wait until all workers have ended. Raises: DemoFailed if one did not end well."""
        for name, child in self._workers.items():
            if await child.wait():
                raise DemoFailed(f"{name} ended badly\n{child.last_words()}")

    def journal(self) -> list[Entry]:
        """Return what all journals say, those of the dead included."""
        return [entry for path in self._journals for entry in read_journal(path)]


class Show:
    """What the user sees on the way."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("replies", total=total)

    def at(self, accepted: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=accepted)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, soft_wrap=True)


async def replay(options: Options, directory: Path, show_on: Progress) -> Evidence:
    """Run the fleet over the tweets, with both crashes, and return what is left."""
    tweets = load_tweets(options.tweets)
    async with processes(directory) as started:
        upstream_child, daemon = await asyncio.gather(
            started.start_module("upstream", "upstream"),
            Daemon.start(started, directory, partial(daemon_config, is_by_class=options.classes)),
        )
        upstream = Upstream((await upstream_child.line_with("upstream serving on ")).split()[-1])
        fleet = Fleet(
            started,
            directory,
            daemon.address,
            upstream.address,
            len(tweets),
            is_by_class=options.classes,
        )
        show = Show(show_on, len(tweets))
        show.say(f"daemon on {daemon.address}, upstream on {upstream.address}, {options.workers} workers")
        names = [f"w{number}" for number in range(1, options.workers + 1)]
        await fleet.hire(names)
        start_s = time.time()
        fleet.send_off(names, start_s)
        await _worker_dies(upstream, fleet, show, tweets=len(tweets), start_s=start_s)
        # With two classes it is waits that count, and those of a daemon that is dead say nothing of classes.
        down_s = (start_s, start_s)
        if not options.classes:
            down_s = await _daemon_dies(daemon, upstream, show, tweets=len(tweets))
        await _until_finished(fleet, upstream, show)
        evidence = await _gather(daemon, upstream, fleet, tweets, start_s=start_s, down_s=down_s)
        await upstream.close()
        return evidence


async def _worker_dies(upstream: Upstream, fleet: Fleet, show: Show, *, tweets: int, start_s: float) -> None:
    """Kill a worker on the way, and replace it."""
    await _until_accepted(upstream, round(tweets * _WORKER_DIES_AT), show)
    # The worst moment: upstream has accepted the reply, and the worker doesn't know yet.
    if not await upstream.withhold("w1"):
        raise DemoFailed("w1 answered nothing for 30 s")
    await fleet.kill("w1")
    show.say(
        "w1: SIGKILL after upstream accepted its reply, before it knew; w1b, with no memory, replaces it"
    )
    await fleet.hire(["w1b"])
    fleet.send_off(["w1b"], start_s)


async def _daemon_dies(daemon: Daemon, upstream: Upstream, show: Show, *, tweets: int) -> tuple[float, float]:
    """Kill the daemon on the way and start it again; return when it was dead."""
    await _until_accepted(upstream, round(tweets * _DAEMON_DIES_AT), show)
    down_s = await daemon.die_and_return()
    show.say(f"daemon: SIGKILL; serves again after {down_s[1] - down_s[0]:.2f} s")
    return down_s


async def _until_accepted(upstream: Upstream, wanted: int, show: Show) -> None:
    while (accepted := (await upstream.counts())["accepted"]) < wanted:
        show.at(accepted)
        await asyncio.sleep(_POLL_S)


async def _until_finished(fleet: Fleet, upstream: Upstream, show: Show) -> None:
    finished = asyncio.ensure_future(fleet.finish())
    try:
        while not (await asyncio.wait([finished], timeout=_POLL_S))[0]:
            show.at((await upstream.counts())["accepted"])
        await finished
    finally:
        finished.cancel()
    show.at((await upstream.counts())["accepted"])


async def _gather(
    daemon: Daemon,
    upstream: Upstream,
    fleet: Fleet,
    tweets: Sequence[Tweet],
    *,
    start_s: float,
    down_s: tuple[float, float],
) -> Evidence:
    journal = fleet.journal()
    answered = audit.said_answered(journal)
    return Evidence(
        tweets=tweets,
        start_s=start_s,
        down_s=down_s,
        counts=await upstream.counts(),
        arrivals=await upstream.log(),
        journal=journal,
        history=await _history(daemon.address, [tweet for tweet in tweets if tweet.tweet_id not in answered]),
    )


async def _history(address: str, leftover: Sequence[Tweet]) -> audit.History:
    """Ask the daemon for its totals and for the state of each tweet that no journal says is answered."""
    async with Client(address, worker="auditor") as client:
        stats = await client.engagement_stats()
        states = {tweet.tweet_id: (await client.get_lock(tweet.item)).state.name for tweet in leftover}
    return audit.History(successful=stats.successful, unknown=stats.unknown, leftover=states)


async def _demo(options: Options) -> int:
    began_s = time.monotonic()
    _cancel_on_sigterm()
    directory = Path(tempfile.mkdtemp(prefix="coordd-demo-"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            async with asyncio.timeout(_REPLAY_S_MAX):
                evidence = await replay(options, directory, progress)
        result = report(
            evidence,
            workers=options.workers,
            is_by_class=options.classes,
            seconds=time.monotonic() - began_s,
        )
        show_report(result)
    finally:
        _clear(directory, options.keep)
    return 1 if result.problems else 0


def _cancel_on_sigterm() -> None:
    # As Ctrl-C does: the children are ended, the directory is removed.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _clear(directory: Path, keep: Path | None) -> None:
    if keep is not None:
        shutil.copytree(directory, keep, dirs_exist_ok=True)
    shutil.rmtree(directory)


def _options() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Replay real tweets through a fleet of workers, with crashes.",
    )
    parser.add_argument("--tweets", type=int, metavar="N", help="replay only the last N of the 2,778 tweets")
    parser.add_argument(
        "--workers", type=int, default=6, metavar="N", help="worker processes (default: %(default)s)"
    )
    parser.add_argument(
        "--classes",
        action="store_true",
        help="two classes of urgency: customers who insist are answered first",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="copy data, journals and errors there afterwards"
    )
    given = parser.parse_args()
    if given.workers < 2 or (given.tweets is not None and given.tweets < 20):
        parser.error("the demo needs at least 2 workers and 20 tweets: one worker is killed on the way")
    return Options(tweets=given.tweets, workers=given.workers, classes=given.classes, keep=given.keep)


def main() -> int:
    """Run the demo; return its exit code."""
    try:
        return asyncio.run(_demo(_options()))
    except TimeoutError:
        print(f"demo: not finished after {_REPLAY_S_MAX:.0f} s", file=sys.stderr)
        return 1
    except DemoFailed as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("demo: stopped; all its processes are ended", file=sys.stderr)
        return 130
