"""The log on stderr: for people or as JSON, our own lines and what libraries say from WARNING up.

Owns: the log's form. Must not know: what is logged.
"""

import io
import logging
import os
import sys
from typing import TextIO, cast

import grpc
import structlog

from coordd.config import LogSettings
from coordd.rpc import add_call_id


def configure_log(settings: LogSettings) -> None:
    """Write the log to stderr, for people or as JSON: ours, and what libraries say from WARNING up."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.contextvars.merge_contextvars,
        add_call_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *_renderers(is_json=settings.format == "json"),
    ]
    structlog.configure(
        processors=shared,
        wrapper_class=_Logger,
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared]
        )
    )
    handler.addFilter(_is_news)
    logging.basicConfig(handlers=[handler], force=True)
    set_level(settings.level)


class _Stderr(io.TextIOBase):
    """Standard error, as long as somebody reads it. Why: no call may fail since the log's reader has gone."""

    def write(self, text: str) -> int:
        """Write it, or drop it and all that follows."""
        try:
            return sys.stderr.write(text)
        except OSError:
            # What was not written would be tried again, and fail, at the end of the process.
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stderr.fileno())
            return len(text)


class _Logger(structlog.BoundLoggerBase):
    """Every logger's class: a level is its methods, those below it doing nothing. So all change at once."""


def set_level(level: str) -> None:
    """Write what is of this level or above, from now on."""
    number = logging.getLevelNamesMapping()[level.upper()]
    for name, method in vars(structlog.make_filtering_bound_logger(number)).items():
        if not name.startswith("__"):
            setattr(_Logger, name, method)
    logging.getLogger().setLevel(max(number, logging.WARNING))


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what grpc says, with a traceback, of clients that go before their answer, or send odd bytes.

    Why: that is no trouble of the daemon's; whoever can connect could fill the log with it, and the bytes are
    the client's own.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, grpc.aio.InternalError | UnicodeDecodeError)


def _renderers(*, is_json: bool) -> list[structlog.typing.Processor]:
    # Without the local variables, in either form: among them are the data of clients, and their tokens.
    if is_json:
        traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(traces), structlog.processors.JSONRenderer()]
    plain = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [plain]
