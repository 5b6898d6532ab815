"""What happened: as the clients saw it, and as nobody but a simulation can know it.

Owns: the record, in order of true time, its digest, and how it is shown. Judging is `audit`'s.
"""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field

import msgspec
from audit import history as to
from google.protobuf.message import Message

from coordd.config import Settings
from simulation import translation
from simulation.loop import Loop
from simulation.wire import CallFailed

_encoder = msgspec.json.Encoder()


@dataclass
class Pending:
    """A call, and what has become of it so far."""

    called_at: int
    method: str
    ask: to.Ask
    worker: str
    request_id: str
    places: list[to.Place] = field(default_factory=list)
    returned_at: int | None = None
    answer: to.Answer | None = None

    def record(self) -> to.Operation:
        """Return it as it stands."""
        return to.Operation(**vars(self))


class Recorder:
    """The history of one seed."""

    def __init__(self, loop: Loop, calls_max: int) -> None:
        self._loop = loop
        self._calls_max = calls_max
        # Set by the last call that there is to be before all is left in peace.
        self.is_full = asyncio.Event()
        self.calls = 0
        self.faults: Counter[str] = Counter()
        self._faults: list[tuple[int, str]] = []
        self._entries: list[to.Entry | Pending] = []
        self._started = 0

    def note(self, fault: str) -> None:
        """A fault was done."""
        self.faults[fault] += 1
        self._faults.append((self._loop.now_ns, fault))

    def add(self, entry: to.Entry) -> None:
        """Something happened that is no call."""
        self._entries.append(entry)

    def started(self, settings: Settings) -> None:
        """The daemon starts."""
        self._started = len(self._entries)
        self._entries.append(to.Started(at=self._loop.now_ns, world=to.world(settings.model_dump())))

    def serving(self, clock_offset_ns: int) -> None:
        """The daemon that was started last has come so far that it knows its time."""
        started = self._entries[self._started]
        self._entries[self._started] = msgspec.structs.replace(started, clock_offset_ns=clock_offset_ns)

    def ended(self, how: str) -> None:
        """The daemon has ended."""
        self._entries.append(to.Ended(at=self._loop.now_ns, how=how))

    def asked(self, worker: str, method: str, request: Message) -> Pending:
        """A worker makes a call."""
        self.calls += 1
        if self.calls == self._calls_max:
            self.is_full.set()
        call = Pending(
            called_at=self._loop.now_ns,
            method=method,
            ask=translation.ask(request),
            worker=worker,
            request_id=getattr(request, "request_id", ""),
        )
        self._entries.append(call)
        return call

    def told(self, call: Pending, reply: Message) -> None:
        """A call's message has come: its answer, or a place in a queue."""
        answer = translation.answer(reply)
        if answer is None:
            call.places.append(translation.place(self._loop.now_ns, reply.queued))
        else:
            call.answer, call.returned_at = answer, self._loop.now_ns

    def failed(self, call: Pending, error: CallFailed) -> None:
        """A call has ended with a status; one that nobody is sure to have given is none."""
        if not error.is_unanswered:
            call.answer = to.Failed(code=error.code, reason=error.reason)
            call.returned_at = self._loop.now_ns

    # ----------------------------------------------------------------------------------------------------

    def history(self) -> to.History:
        """Return it, to be judged."""
        return to.History(entry.record() if isinstance(entry, Pending) else entry for entry in self._entries)

    def text(self) -> str:
        """Return it for people, faults and all: a line each, in order of time."""
        lines = [(at_ns, f"FAULT {fault}") for at_ns, fault in self._faults]
        lines += [(to.instant(entry), _encoder.encode(entry).decode()) for entry in self.history().entries]
        return "".join(
            f"{at_ns / 1e9:13.6f} {line}\n" for at_ns, line in sorted(lines, key=lambda line: line[0])
        )


def digest(history: to.History) -> str:
    """Return what is equal exactly if two histories are."""
    return hashlib.sha256(_encoder.encode(history.entries)).hexdigest()[:16]
