"""Each worker's own journal: one JSON object a line, written before and after every call upstream.

A line is handed to the system as soon as it is written, so a SIGKILL of the worker loses none.
"""

import json
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self


class Event(StrEnum):
    """What happened to a tweet in a worker."""

    POSTING = "posting"  # it has the lock and the permit, and calls upstream now
    ANSWERED = "answered"  # upstream accepted, and the daemon has the outcome
    FAILED = "failed"  # it did not answer; somebody may try again
    UNSURE = "unsure"  # it may have answered, and has said so


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `at_s`: unix time. The waits are set with POSTING only."""

    event: Event
    tweet_id: str
    at_s: float
    lock_wait_ms: float = 0.0
    permit_wait_ms: float = 0.0
    is_urgent: bool = False
    detail: str = ""


class Journal:
    """A worker's journal, to write."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(
        self,
        event: Event,
        tweet_id: str,
        *,
        lock_wait_s: float = 0.0,
        permit_wait_s: float = 0.0,
        is_urgent: bool = False,
        detail: str = "",
    ) -> None:
        """Append one line."""
        entry = Entry(event, tweet_id, time.time(), lock_wait_s * 1e3, permit_wait_s * 1e3, is_urgent, detail)
        self._file.write(json.dumps(asdict(entry)) + "\n")


def read_journal(path: Path) -> list[Entry]:
    """Return a journal's entries; a last line that a SIGKILL cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = (json.loads(line) for line in lines if line.endswith("\n"))
    return [Entry(**{**entry, "event": Event(entry["event"])}) for entry in entries]
