"""The one writer: takes commands, asks the core, commits in groups, then answers."""

from coordd.engine.clock import Clock
from coordd.engine.engine import Engine, EngineStatus
from coordd.engine.errors import Defect, Draining, EngineError, StoreFailed
from coordd.engine.observer import Commit, CommitObserver, Observer
from coordd.engine.session_stream import RevocationReason, Revoked, SessionStream, Word
from coordd.engine.wait import Wait
from coordd.engine.watch import DrainChanged, Event, Watch

__all__ = [
    "Clock",
    "Commit",
    "CommitObserver",
    "Defect",
    "DrainChanged",
    "Draining",
    "Engine",
    "EngineError",
    "EngineStatus",
    "Event",
    "Observer",
    "RevocationReason",
    "Revoked",
    "SessionStream",
    "StoreFailed",
    "Wait",
    "Watch",
    "Word",
]
