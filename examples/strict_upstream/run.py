"""The course of the three scenarios, and their report.

The last line on stdout is one JSON object. Exit code 1 if after a refusal more than the one probe was refused
in any closure of the gate, or if less than 0.95 of upstream's true limit was used once things had settled.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from rich.console import Console
from rich.table import Table

from coordd.v1 import admin_pb2, admin_pb2_grpc
from examples.demo.audit import Arrival
from examples.demo.processes import DemoFailed, processes
from examples.demo.run import Daemon, Upstream
from examples.demo.settings import ENDPOINT, WINDOWS
from examples.strict_upstream import judge
from examples.strict_upstream.upstream import RANDOM

USED_MIN: Final = 0.95
_WORKERS: Final = 4
# The shortest window binds: the longer ones allow the same rate or more.
_WINDOW_S: Final = min(WINDOWS)
# Processes of Python start slowly on a busy machine.
_START_S_MAX: Final = 60.0
# Events follow what they tell at once.
_EVENTS_S_MAX: Final = 5.0

_CONFIG: Final = """\
[server]
address = "127.0.0.1:0"

[store]
path = "{data_path}"

[log]
level = "warning"

# Time runs 225 times faster than outside, as in the demo: 15 minutes of an API's limits last 4 seconds. So a
# pause that would be 20 seconds there is 100 ms.
[limits.{endpoint}]
windows = {{ {windows} }}
use_within = "2s"
backoff = "100ms"
backoff_max = "4s"
backoff_decay = "1s"
"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One upstream. `share`: of what is configured it allows; `then`: what it changes to half-way."""

    name: str
    share: float = 1.0
    then: float | None = None
    random: float = 0.0

    def limits(self, share: float) -> str:
        """Return its limits in Flask-Limiter's notation."""
        return ";".join(f"{round(n * share)} per {window_s} second" for window_s, n in WINDOWS.items())

    @property
    def true_limit(self) -> int:
        """What it allows in the shortest window in the end."""
        return round(WINDOWS[_WINDOW_S] * (self.share if self.then is None else self.then))


SCENARIOS: Final = (
    Scenario(name="half", share=0.5),
    Scenario(name="change", then=0.5),
    Scenario(name="random", random=0.01),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one scenario showed. `used`: of the true limit, once things had settled."""

    scenario: str
    used: float
    accepted: int
    refused_by_limiter: int
    refused_at_random: int
    closures: int
    refused_after_closing_max: int
    learned: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be."""
        return self.used >= USED_MIN and self.refused_after_closing_max <= 1


class Watcher:
    """The daemon's events of one run: when permits were given, and what became of the gate."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._task: asyncio.Task[None] | None = None
        self.granted_ns: dict[str, int] = {}
        self.gate: list[judge.GateEvent] = []
        self.learned: list[str] = []
        self.missed = 0
        self._is_more = asyncio.Event()

    async def know(self, permits: set[str]) -> None:
        """Wait until the events of all these permits have come. Raises: TimeoutError."""
        async with asyncio.timeout(_EVENTS_S_MAX):
            while not permits <= self.granted_ns.keys():
                self._is_more.clear()
                await self._is_more.wait()

    async def start(self) -> None:
        """Watch from now on."""
        request = admin_pb2.WatchEventsRequest(
            subjects=[admin_pb2.SUBJECT_PERMIT, admin_pb2.SUBJECT_GATE, admin_pb2.SUBJECT_SETTING]
        )
        stream = admin_pb2_grpc.AdminServiceStub(self._channel).WatchEvents(request)  # type: ignore[no-untyped-call]
        await stream.initial_metadata()
        self._task = asyncio.create_task(self._watch(stream))

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
        await self._channel.close()

    async def _watch(self, stream: Any) -> None:
        async for event in stream:
            self.missed += event.missed
            self._take(event)
            self._is_more.set()

    def _take(self, event: admin_pb2.WatchEventsResponse) -> None:
        at_ns = event.at.ToNanoseconds()
        if event.subject == admin_pb2.SUBJECT_PERMIT and event.type == admin_pb2.EVENT_TYPE_GRANTED:
            self.granted_ns[str(event.id)] = at_ns
        elif event.subject == admin_pb2.SUBJECT_GATE and not event.detail.startswith(("probe", "the next")):
            self.gate.append(judge.GateEvent(at_ns, event.type == admin_pb2.EVENT_TYPE_CLOSED))
        elif event.subject == admin_pb2.SUBJECT_SETTING:
            self.learned.append(event.detail)


def _config(data_path: str) -> str:
    windows = ", ".join(f'"{window_s}s" = {limit}' for window_s, limit in WINDOWS.items())
    return _CONFIG.format(data_path=data_path, endpoint=ENDPOINT, windows=windows)


async def run(scenario: Scenario, directory: Path, *, seconds: float) -> Finding:
    """Let the fleet work against one upstream for `seconds`, and judge the second half of it."""
    async with processes(directory) as started, asyncio.timeout(seconds + _START_S_MAX):
        daemon = await Daemon.start(started, directory, _config)
        # Upstream has to know when half of the time is over before the workers have come up.
        start_s = time.time() + 3.0
        change = ["--then", scenario.limits(scenario.then or 1), "--then-at", repr(start_s + seconds / 2)]
        upstream_child = await started.start_module(
            "upstream",
            "examples.strict_upstream.upstream",
            *["--limits", scenario.limits(scenario.share), "--random", str(scenario.random)],
            *(change if scenario.then is not None else []),
        )
        upstream = Upstream((await upstream_child.line_with("upstream serving on ")).split()[-1])
        watcher = Watcher(daemon.address)
        await watcher.start()
        workers = [
            await started.start_module(
                name,
                "examples.strict_upstream.worker",
                *["--name", name, "--daemon", daemon.address, "--upstream", upstream.address],
                *["--until", repr(start_s + seconds)],
            )
            for name in (f"w{number}" for number in range(1, _WORKERS + 1))
        ]
        for worker in workers:
            if await worker.wait():
                raise DemoFailed(f"{worker.name} ended badly\n{worker.last_words()}")
        arrivals = await upstream.log()
        await watcher.know({arrival.tweet_id for arrival in arrivals})
        await upstream.close()
        await watcher.stop()
    if watcher.missed:
        raise DemoFailed(f"{watcher.missed} events were missed")
    return _found(scenario, arrivals, watcher, until_s=start_s + seconds, seconds=seconds)


def _found(
    scenario: Scenario, arrivals: list[Arrival], watcher: Watcher, *, until_s: float, seconds: float
) -> Finding:
    # The second half, less one window: a limit that changed half-way is known from the first response after,
    # and what was called before it has left the window one length later.
    since_s = until_s - seconds / 2 + _WINDOW_S
    used = judge.mean_fill(judge.accepted_s(arrivals), (_WINDOW_S, scenario.true_limit), since_s, until_s)
    after_closing = judge.refused_after_closing(arrivals, watcher.granted_ns, watcher.gate)
    return Finding(
        scenario=scenario.name,
        used=round(used, 4),
        accepted=len(judge.accepted_s(arrivals)),
        refused_by_limiter=judge.refused(arrivals, by_limiter=True, random_layer=RANDOM),
        refused_at_random=judge.refused(arrivals, by_limiter=False, random_layer=RANDOM),
        closures=len(after_closing),
        refused_after_closing_max=max(after_closing, default=0),
        learned=watcher.learned,
    )


def show(findings: list[Finding]) -> None:
    """Print the table, and the figures as the last line."""
    table = Table(title="What a stricter upstream saw", title_justify="left")
    for name in ("scenario", "used of the true limit", "accepted", "refused: limiter", "at random"):
        table.add_column(name)
    for name in ("gate closed", "refused after closing, at most", "learnt"):
        table.add_column(name)
    for each in findings:
        counts = (each.accepted, each.refused_by_limiter, each.refused_at_random, each.closures)
        table.add_row(
            each.scenario, f"{each.used:.4f}", *map(str, counts), str(each.refused_after_closing_max),
            "\n".join(each.learned) or "-",
        )  # fmt: skip
    # As wide as it wants where nobody looks at a terminal.
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=160)).print(table)
    print(json.dumps([asdict(each) for each in findings]), flush=True)


async def _main(given: argparse.Namespace) -> int:
    chosen: Mapping[str, Scenario] = {scenario.name: scenario for scenario in SCENARIOS}
    findings = []
    for name in given.scenario or list(chosen):
        with tempfile.TemporaryDirectory(prefix="coordd-strict-") as directory:
            findings.append(await run(chosen[name], Path(directory), seconds=given.seconds))
    show(findings)
    return 0 if all(finding.is_good for finding in findings) else 1


def main() -> int:
    """Run the scenarios; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.strict_upstream", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="half, change, random (default: all)")
    parser.add_argument("--seconds", type=float, default=24.0, help="of each (default: %(default)s)")
    given = parser.parse_args()
    if not set(given.scenario) <= {scenario.name for scenario in SCENARIOS}:
        parser.error("there are: half, change, random")
    try:
        return asyncio.run(_main(given))
    except (DemoFailed, TimeoutError) as failure:
        print(f"strict_upstream: {failure or 'not finished in time'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("strict_upstream: stopped; all its processes are ended", file=sys.stderr)
        return 130
