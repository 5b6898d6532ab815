"""What happened, as clients saw it and as nobody but the simulation can know it.

Owns: the record, in order of true time, and its digest. Judging is `audit`'s.
"""

import asyncio
import hashlib
from collections import Counter
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from simulation.loop import Loop
from simulation.wire import CallFailed


class Recorder:
    """The history of one seed."""

    def __init__(self, loop: Loop, calls_max: int) -> None:
        self._loop = loop
        self._calls_max = calls_max
        # Set by the last call that there is to be before all is left in peace.
        self.is_full = asyncio.Event()
        self.faults: Counter[str] = Counter()
        self.calls = 0
        self.answered = 0
        self.lines: list[tuple[int, str, int, str, Any]] = []

    def note(self, fault: str) -> None:
        """A fault was done."""
        self.faults[fault] += 1
        self.lines.append((self._loop.now_ns, "fault", 0, fault, None))

    def told(self, what: str, **values: Any) -> None:
        """The daemon has started, or ended."""
        self.lines.append((self._loop.now_ns, what, 0, "", values))

    def asked(self, worker: str, name: str, request: Message) -> int:
        """A worker sends a request; return the call's number."""
        self.calls += 1
        if self.calls == self._calls_max:
            self.is_full.set()
        self.lines.append((self._loop.now_ns, "asked", self.calls, f"{worker} {name}", request))
        return self.calls

    def answered_by(self, call: int, message: Message) -> None:
        """A message has come."""
        self.answered += 1
        self.lines.append((self._loop.now_ns, "told", call, type(message).__name__, message))

    def failed(self, call: int, error: CallFailed) -> None:
        """A call has failed."""
        self.lines.append((self._loop.now_ns, "failed", call, str(error), None))

    def arrived(self, endpoint: str, permit: int) -> None:
        """A call has come to its upstream."""
        self.lines.append((self._loop.now_ns, "arrived", permit, endpoint, None))

    def digest(self) -> str:
        """Return what is equal exactly if the histories are."""
        digest = hashlib.sha256()
        for at_ns, what, number, text, value in self.lines:
            data = value.SerializeToString(deterministic=True) if isinstance(value, Message) else b""
            digest.update(f"{at_ns} {what} {number} {text} ".encode() + data)
        return digest.hexdigest()[:16]

    def text(self) -> str:
        """Return it for people."""
        return "".join(
            f"{at_ns / 1e9:14.9f} {what:8} {number or '':>6} {text} {_short(value)}\n"
            for at_ns, what, number, text, value in self.lines
        )


def _short(value: Any) -> str:
    if isinstance(value, Message):
        return text_format.MessageToString(value, as_one_line=True)
    return (
        "" if value is None else " ".join(f"{key}={each}" for key, each in value.items() if key != "settings")
    )
