"""The log on stderr: for people or as JSON, our own lines and what libraries say from WARNING up.

Owns: the log's form. Must not know: what is logged.
"""

import logging
import sys

import grpc
import structlog

from coordd.config import LogSettings
from coordd.rpc import add_call_id


def configure_log(settings: LogSettings) -> None:
    """Write the log to stderr, for people or as JSON: ours, and what libraries say from WARNING up."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        add_call_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *_renderers(is_json=settings.format == "json"),
    ]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared]
        )
    )
    handler.addFilter(_is_news)
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


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
