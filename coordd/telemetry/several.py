"""Several observers as one: metrics and traces see the same."""

from collections.abc import Sequence

from coordd.core.commands import WaitableCommand
from coordd.core.machine import Command
from coordd.core.outcomes import Granted, Notice, Outcome, Place, Refused
from coordd.core.waiters import Waiter
from coordd.engine import Commit, CommitObserver, Observer
from coordd.rpc import Call, CallObserver


class CallObservers:
    """See CallObserver."""

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        self._observers = observers

    def begun(self, call: Call) -> None:
        """See CallObserver."""
        for each in self._observers:
            each.begun(call)

    def ended(self, call: Call, took_ns: int) -> None:
        """See CallObserver."""
        for each in self._observers:
            each.ended(call, took_ns)


class Observers:
    """See Observer."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def answered(self, command: Command, outcome: Outcome, *, asked_at: int, at: int, batch: int) -> None:
        """See Observer."""
        for each in self._observers:
            each.answered(command, outcome, asked_at=asked_at, at=at, batch=batch)

    def queued(self, command: WaitableCommand, place: Place) -> None:
        """See Observer."""
        for each in self._observers:
            each.queued(command, place)

    def served(
        self, waiter: Waiter, final: Granted | Refused, *, first: Place | None, at: int, batch: int
    ) -> None:
        """See Observer."""
        for each in self._observers:
            each.served(waiter, final, first=first, at=at, batch=batch)

    def happened(self, notice: Notice, at: int) -> None:
        """See Observer."""
        for each in self._observers:
            each.happened(notice, at)


class CommitObservers:
    """See CommitObserver."""

    def __init__(self, observers: Sequence[CommitObserver]) -> None:
        self._observers = observers

    def committed(self, commit: Commit) -> None:
        """See CommitObserver."""
        for each in self._observers:
            each.committed(commit)
