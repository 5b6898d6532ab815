"""Planted bugs: does the net catch fish? `python -m simulation.mutants`, or `... NAME` for some of them.

Owns: the bugs, each a small substitution in one module, and the hunt for each.
Rules: a bug is put into a copy of the package, never into the package; where the text to replace isn't there
exactly once, the table is wrong, and says so. A bug is found by the first seed whose history is judged wrong;
one that no seed finds is a hole in the net; where it is not a known one, the exit code is 1.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SEEDS_MAX: Final = 100


class NotThere(Exception):
    """What is to be replaced isn't there exactly once."""


@dataclass(frozen=True)
class Mutant:
    """One bug: in `path`, `before` becomes `after`.

    `is_seen`: that it is found is promised. The others are holes that are known, a list that may only shrink.
    """

    name: str
    path: str
    before: str
    after: str
    is_seen: bool = True

    def plant(self, folder: Path) -> None:
        """Put it into a copy of the package in `folder`. Raises: NotThere."""
        shutil.copytree(ROOT / "coordd", folder / "coordd", ignore=shutil.ignore_patterns("__pycache__"))
        module = folder / "coordd" / self.path
        text = module.read_text("utf-8")
        if text.count(self.before) != 1:
            raise NotThere(f"{self.name}: {self.path} has {self.before!r} {text.count(self.before)} times")
        module.write_text(text.replace(self.before, self.after), "utf-8")


MUTANTS: Final = (
    Mutant(
        "reply before commit",
        "engine/commits.py",
        "        waiting.append(committed)\n        return await committed\n",
        "        return self._sequence\n",
    ),
    Mutant(
        "ids begin anew after a crash",
        "core/ledger.py",
        "self.last_id = max(last_id, now * _IDS_PER_SECOND // SECOND)",
        "self.last_id = len(self.live)",
    ),
    Mutant(
        "a bucket leaves too early",
        "core/window.py",
        "        oldest = number - BUCKETS_PER_WINDOW\n",
        "        oldest = number - BUCKETS_PER_WINDOW + 1\n",
    ),
    Mutant(
        "a waiter is forgotten",
        "core/locks.py",
        "            ledger.freed.append(_key(lock.scope))\n",
        "            pass\n",
        is_seen=False,
    ),
    Mutant(
        "no grace after a restart",
        "core/preemption.py",
        "lease.expires_at = max(lease.expires_at, now + self._recovery_grace_ns)",
        "lease.expires_at = max(lease.expires_at, now)",
    ),
    Mutant(
        "what was not sent comes back twice",
        "core/rate_limits.py",
        "        self._end(permit, now)\n        self._hear(limit, command, permit, now)\n",
        "        if not refunded:\n            self._end(permit, now)\n"
        "        self._hear(limit, command, permit, now)\n",
        is_seen=False,
    ),
    Mutant(
        "a request is forgotten in a restart",
        "core/recovery.py",
        "        self._bind_request(lock.worker, lock.request_id, lock)\n",
        "",
        is_seen=False,
    ),
    Mutant(
        "a release is not in history",
        "core/locks.py",
        "        self._engagements[lock.token] = engagement\n",
        "        if ended_by != EndedBy.RELEASE:\n            self._engagements[lock.token] = engagement\n",
    ),
    Mutant(
        "an item does not rest",
        "core/locks.py",
        "            self._rest(lock.scope, now + delay_ns)\n",
        "            pass\n",
    ),
    Mutant(
        "one that is away is granted",
        "core/waits.py",
        "        self._send_away(waiter, now)\n        return WaiterLeft(is_away=True)\n",
        "        return WaiterLeft(is_away=True)\n",
        is_seen=False,
    ),
    Mutant(
        "windows are not restored",
        "core/recovery.py",
        "dropped = windows.load(of_name, now)",
        "dropped = list(of_name)",
    ),
    Mutant(
        "a permit is charged at its grant",
        "core/windows.py",
        "            window.charge(worker, count, use_by, priority)\n        return use_by\n",
        "            window.charge(worker, count, now, priority)\n        return use_by\n",
    ),
    Mutant(
        "a pool has a unit too many",
        "core/pools.py",
        "        free = self.capacity - self.held\n",
        "        free = self.capacity - self.held + 1\n",
    ),
    Mutant(
        "last come, first served",
        "core/waits.py",
        "        order_ns = now - self._boost_ns[priority]\n",
        "        order_ns = -now - self._boost_ns[priority]\n",
    ),
    Mutant(
        "the higher class waits longer",
        "core/waits.py",
        "        order_ns = now - self._boost_ns[priority]\n",
        "        order_ns = now + self._boost_ns[priority]\n",
    ),
    Mutant(
        "the clock is set back in a restart",
        "engine/clock.py",
        "start = max(self._wall_ns(), floor + 1)",
        "start = self._wall_ns()",
    ),
    Mutant(
        "a closed gate is passed",
        "core/rate_limits.py",
        "return blocked if limit.gate is None else self._gates.beside(limit, limit.gate, blocked, now)",
        "return blocked",
    ),
    Mutant(
        "a bundle looks at its first claim only",
        "core/bundles.py",
        "        blocks = [blocked for blocked in (*conditions, *parts) if blocked is not None]\n",
        "        blocks = [blocked for blocked in (*conditions, *parts[:1]) if blocked is not None]\n",
    ),
    Mutant(
        "an UNKNOWN does not count",
        "core/intervals.py",
        "for outcome in (Outcome.UNKNOWN, Outcome.SUCCESS):",
        "for outcome in (Outcome.SUCCESS,):",
    ),
    Mutant(
        "a renewal is not stored",
        "core/locks.py",
        "        self._ledger.deadlines.not_after(lock, lock.expires_at)\n"
        "        self._changed[lock.token] = lock\n",
        "        self._ledger.deadlines.not_after(lock, lock.expires_at)\n",
        is_seen=False,
    ),
)


@dataclass(frozen=True)
class Catch:
    """What the hunt for a bug has brought: the seed and what it violates; None: nothing."""

    mutant: Mutant
    seed: int | None
    law: str = ""
    text: str = ""


def hunt(mutant: Mutant, seeds_max: int) -> Catch:
    """Run seeds from 1 on, with the bug, until one is judged wrong."""
    with tempfile.TemporaryDirectory(prefix="coordd-mutant-") as name:
        folder = Path(name)
        mutant.plant(folder)
        path = os.pathsep.join(map(str, (folder, ROOT / "tests", ROOT / "clients" / "python")))
        done = subprocess.run(
            [sys.executable, "-m", "simulation.mutants", "--until-violated", str(seeds_max)],
            # Python looks where it is started before it looks anywhere else.
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return Catch(mutant, **found)


def _until_violated(seeds_max: int) -> dict[str, object]:
    """Return the first seed that is judged wrong, in this process, and by what."""
    from audit.judge import audit  # noqa: PLC0415

    import coordd  # noqa: PLC0415  -- the parent does not need the daemon
    from simulation import seed as one  # noqa: PLC0415

    if Path(coordd.__file__).is_relative_to(ROOT):
        raise NotThere(f"{coordd.__file__} is not the copy with the bug")
    for seed in range(1, seeds_max + 1):
        try:
            result, record = one.run(seed)
            violations = [*result.violations, *map(str, audit(record.history()))]
        except Exception as error:  # noqa: BLE001  -- a run that a bug has broken is a catch, too
            violations = [f"the run broke: {error!r}"]
        if violations:
            return {"seed": seed, "law": _law(violations), "text": violations[0]}
    return {"seed": None}


def _law(violations: Sequence[str]) -> str:
    """Return which of the auditor's laws was broken first; else what else was seen."""
    laws = [match[1] for text in violations if (match := re.match(r"\d+\.\d{9} ([a-z ]+): ", text))]
    return laws[0] if laws else violations[0].partition(":")[0]


def table(catches: Sequence[Catch]) -> str:
    """Return it for docs/testing.md."""
    rows = [f"| {c.mutant.name} | {c.law or '**nothing**'} | {c.seed or '-'} |" for c in catches]
    return "\n".join(["| planted bug | caught by | seeds needed |", "|---|---|---|", *rows])


def main(arguments: Sequence[str]) -> int:
    """Hunt, and say what was caught."""
    parser = argparse.ArgumentParser(prog="simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="how many to try for each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--until-violated", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.until_violated:
        sys.stdout.write("\n" + json.dumps(_until_violated(options.until_violated)) + "\n")
        return 0
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    with ThreadPoolExecutor(options.jobs) as pool:
        catches = list(pool.map(lambda mutant: _told(hunt(mutant, options.seeds)), chosen))
    sys.stdout.write(table(catches) + "\n")
    return 1 if not catches or any(catch.seed is None and catch.mutant.is_seen for catch in catches) else 0


def _told(catch: Catch) -> Catch:
    sys.stderr.write(f"{catch.mutant.name}: seed {catch.seed}: {catch.text[:200]}\n")
    return catch


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
