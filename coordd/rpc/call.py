"""One call under way: its name in the log, how it ends and how long it takes.

Owns: the call's id. The caller may give one (`x-request-id`, as proxies do); else it is made when something
is first said of the call, so that a call of which nothing is said does not pay for it. In code it is the
call's id and never a request id: that is the word for what makes a request safe to repeat.
Must not know: services, and what the call is about.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol

import grpc
import structlog

from coordd.core.limits import MILLISECOND

ID_HEADER: Final = "x-request-id"
# What is echoed and logged must not break a line, a header or a search.
_SANE: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class CallObserver(Protocol):
    """Sees every call begin and end. It neither raises nor takes its time."""

    def begun(self, call: "Call") -> None:
        """See a call begin, in the task that it is."""
        ...

    def ended(self, call: "Call", took_ns: int) -> None:
        """See it end, in the same task."""
        ...


class Call:
    """A call of `method` while it is entered; the log's lines within it carry its id.

    Args: slow_ns: to have taken longer is worth a warning; 0: never.

    Attributes:
        method: as `/coordd.v1.EngagementService/RequestLock`.
        code: how it ends, as gRPC calls it.
        reason: of its failure, as in its ErrorInfo; empty if there is none.
    """

    __slots__ = ("_context", "_id", "_observer", "_slow_ns", "_started_ns", "code", "method", "reason")

    def __init__(self, method: str, observer: CallObserver | None, slow_ns: int, context: Any) -> None:
        self.method = method
        self.code = "OK"
        self.reason = ""
        self._context = context
        self._observer = observer
        self._slow_ns = slow_ns
        self._id = ""
        self._started_ns = 0

    @property
    def id(self) -> str:
        """What names the call: as its caller said, or made."""
        if not self._id:
            self._id = self._given_id() or secrets.token_hex(8)
        return self._id

    def metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Return what its caller has sent besides the request."""
        return self._context.invocation_metadata() or ()

    def _given_id(self) -> str:
        given = dict(self.metadata()).get(ID_HEADER, "")
        return given if isinstance(given, str) and _SANE.fullmatch(given) else ""

    def __enter__(self) -> "Call":
        _current.set(self)
        if self._observer is not None:
            self._observer.begun(self)
        self._started_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took_ns = time.monotonic_ns() - self._started_ns
        if self.code == "OK" and isinstance(error, asyncio.CancelledError | grpc.aio.BaseError):
            self.code = "CANCELLED"
        said = {"reason": self.reason} if self.reason else {}
        _logger.debug("call", method=self.method, us=took_ns // 1000, code=self.code, **said)
        if 0 < self._slow_ns < took_ns:
            _logger.warning("slow call", method=self.method, ms=took_ns // MILLISECOND, code=self.code)
        if self._observer is not None:
            self._observer.ended(self, took_ns)
        _current.set(None)


# Each call is a task of its own, so what it sets here is its own, too.
_current: ContextVar[Call | None] = ContextVar("call", default=None)


def add_call_id(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id of the call that a line of the log belongs to, if to one: a processor for structlog."""
    call = _current.get()
    if call is not None:
        event["call_id"] = call.id
    return event
