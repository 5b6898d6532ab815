"""The audit log: what operators did, and who was refused.

Owns: its lines, on a logger of their own and, where configured, in a file.
Rules: who, from where, what, how it ended, when; never a token. A line is written once it is known how the
action ended, and whole. Refusals are bounded, for anybody can make them.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import structlog
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from coordd.access import Denial
from coordd.core.limits import NAME_BYTES_MAX
from coordd.rpc.namespaces import named

# Of a request; those that are right are far shorter.
_REQUEST_CHARS_MAX: Final = 4_096
# A person who tries does not make so many; a program that tries would fill the disk.
_REFUSALS_PER_S_MAX: Final = 20
# Its readers are the operator's to choose.
_MODE: Final = 0o600

Behaviour = Callable[[Any, Any], Awaitable[Any]]

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(channel="audit")


class AuditTrail:
    """The audit log. `path`: a file to add to, besides the log."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._second = 0
        self._refusals = 0
        self._unwritten = 0

    def check(self) -> None:
        """Raise OSError if the file can't be added to."""
        if self._path is not None:
            os.close(self._descriptor(self._path))

    def watched(self, method: str, behaviour: Behaviour, who: Callable[[Any], str]) -> Behaviour:
        """Return `behaviour`, an operator's action, which is written once it has ended."""

        async def watched(request: Message, context: Any) -> Any:
            name, result = who(context), "CANCELLED"
            try:
                reply = await behaviour(request, context)
                result = "OK"
            except Denial:
                result = ""  # written already, as every denial is
                raise
            except Exception as error:
                result = getattr(error, "reason", type(error).__name__)
                raise
            finally:
                if result:
                    self._write(method, context, name, result, request=_spelled(request))
            return reply

        return watched

    def refused(self, method: str, context: Any, who: str, denial: Denial) -> None:
        """Write that a call was refused for who made it; of a flood, that there were more."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refusals = second, 0
        self._refusals += 1
        if self._refusals > _REFUSALS_PER_S_MAX:
            self._unwritten += 1
            return
        more = {"unwritten_before": self._unwritten} if self._unwritten else {}
        self._unwritten = 0
        self._write(method, context, who, denial.reason, **more)

    def _write(self, method: str, context: Any, who: str, result: str, **more: object) -> None:
        line = {
            "who": who,
            "from": unquote(context.peer()),
            # As named: of one that is refused, there may be none of that name, nor any so long.
            "namespace": named(context)[:NAME_BYTES_MAX],
            "method": method,
            "result": result,
            **more,
        }
        _logger.info("audit", **line)
        if self._path is None:
            return
        text = json.dumps({"at": datetime.now(UTC).isoformat(), **line}) + "\n"
        try:
            self._append(self._path, text.encode())
        except OSError as error:
            _logger.error("the audit file can't be written", path=str(self._path), error=error.strerror)

    def _append(self, path: Path, text: bytes) -> None:
        # Opened each time: it may be moved away by whatever rotates it, and lines are few.
        descriptor = self._descriptor(path)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)

    def _descriptor(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


def _spelled(request: Message) -> str:
    """Return what was asked for as JSON; where a value has none, as an absurd length, as protobuf's text."""
    try:
        asked = json.dumps(MessageToDict(request, preserving_proto_field_name=True))
    except (SerializeToJsonError, ValueError):
        asked = MessageToString(request, as_one_line=True)
    return asked[:_REQUEST_CHARS_MAX]
