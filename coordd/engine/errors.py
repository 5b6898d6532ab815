"""Why the engine can't answer, whatever the question: not the caller's fault; to be tried again later."""

from coordd.store.protocol import CommitFailed


class EngineError(Exception):
    """The engine can't answer."""


class Draining(EngineError):
    """The daemon is about to stop and grants nothing new."""


class StoreFailed(EngineError):
    """A batch could not be made durable, so memory can't be trusted any longer: the daemon stops."""


class Defect(CommitFailed):
    """A bug, the cause of this, has shown that memory can't be trusted: nothing is committed any more."""

    def __init__(self, bug: Exception) -> None:
        super().__init__(f"bug: {bug!r}")
        self.__cause__ = bug
