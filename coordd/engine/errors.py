"""Why the engine can't answer, whatever the question: not the caller's fault; to be tried again later."""


class EngineError(Exception):
    """The engine can't answer."""


class Draining(EngineError):
    """The daemon is about to stop and grants nothing new."""


class StoreFailed(EngineError):
    """A batch could not be made durable, so memory can't be trusted any longer: the daemon stops."""
