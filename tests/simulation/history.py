"""What happened: as the clients saw it, and as nobody but a simulation can know it.

Owns: the record, in order of true time, its digest, and how it is shown. Judging is `audit`'s.
"""

import asyncio
import hashlib
import re
from collections import Counter
from itertools import islice
from operator import itemgetter
from typing import Final

import msgspec
from audit import history as to
from audit.recorder import Call, Recorder
from google.protobuf.message import Message

from coordd.config import Settings
from simulation.loop import Loop
from simulation.wire import CallFailed

# Ids begin at the daemon's second x 2^20; instants are longer.
_ID: Final = re.compile(r"(?<!\d)\d{16}(?!\d)")
_LINES_MAX: Final = 20
_LINE_MAX: Final = 1_000
_encoder = msgspec.json.Encoder()


class Record:
    """The history of one seed."""

    def __init__(self, loop: Loop, calls_max: int) -> None:
        self._loop = loop
        self._calls_max = calls_max
        # Set by the last call that there is to be before all is left in peace.
        self.is_full = asyncio.Event()
        self.calls = 0
        self.faults: Counter[str] = Counter()
        self._faults: list[tuple[int, str]] = []
        self._recorder = Recorder(lambda: loop.now_ns)
        # A start of which it is not known yet what the daemon takes for the time.
        self._started: to.Started | None = None

    def note(self, fault: str) -> None:
        """A fault was done."""
        self.faults[fault] += 1
        self._faults.append((self._loop.now_ns, fault))

    def add(self, entry: to.Entry) -> None:
        """Something happened that is no call."""
        self._recorder.add(entry)

    def started(self, settings: Settings) -> None:
        """The daemon starts."""
        self._started = to.Started(at=self._loop.now_ns, world=to.world(settings.model_dump()))

    def serving(self, clock_offset_ns: int | None) -> None:
        """The daemon that was started last knows its time, or never will."""
        if self._started is not None:
            self.add(msgspec.structs.replace(self._started, clock_offset_ns=clock_offset_ns))
            self._started = None

    def ended(self, how: str) -> None:
        """The daemon has ended."""
        self.serving(None)
        self.add(to.Ended(at=self._loop.now_ns, how=how))

    def asked(self, worker: str, method: str, request: Message, session: int = 0) -> Call:
        """A worker makes a call, or says something on its session's stream."""
        self.calls += 1
        if self.calls == self._calls_max:
            self.is_full.set()
        return self._recorder.call(method, request, worker=worker, session=session)

    # ----------------------------------------------------------------------------------------------------

    def history(self) -> to.History:
        """Return it, to be judged."""
        return self._recorder.history()

    def lines(self) -> list[str]:
        """Return it for people, faults and all: a line each, in order of time."""
        lines = [(at_ns, f"FAULT {fault}") for at_ns, fault in self._faults]
        lines += [(to.instant(entry), _encoder.encode(entry).decode()) for entry in self.history().entries]
        return [f"{at_ns / 1e9:13.6f} {line}" for at_ns, line in sorted(lines, key=itemgetter(0))]

    def lines_about(self, text: str) -> list[str]:
        """Return the first lines that name what a text does, by its id."""
        ids = set(_ID.findall(text))
        found = (line for line in self.lines() if ids & set(_ID.findall(line)))
        return [line[:_LINE_MAX] for line in islice(found, _LINES_MAX)] if ids else []


def close(call: Call, error: CallFailed) -> None:
    """A call has ended with a status; one that nobody is sure to have given is none."""
    if error.is_unanswered:
        call.lost()
    else:
        call.failed(error.code, error.reason)


def digest(history: to.History) -> str:
    """Return what is equal exactly if two histories are."""
    return hashlib.sha256(_encoder.encode(history.entries)).hexdigest()[:16]
