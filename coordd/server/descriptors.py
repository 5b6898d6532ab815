"""File descriptors, one for each connection: as many as there may be, and a word when all are taken.

Why a word of our own: gRPC tries again every second to take the next connection, and says nothing.
"""

import asyncio
import errno
import os
import resource
from contextlib import suppress
from typing import Final

import structlog

_LOOK_S: Final = 1.0

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def raise_limit() -> None:
    """Let the process open as many files as it may at all.

    Why: the usual soft limit of 1,024 is for programs that use `select`; here it would limit the clients.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # "infinity" is refused by some systems
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def tell_when_there_are_none() -> None:
    """Log when there are no descriptors left, and when there are again; never return."""
    was_out = False
    while True:
        if (is_out := _are_out()) and not was_out:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            _logger.error("out of file descriptors, of which it may have %d: new connections wait", limit)
        if was_out and not is_out:
            _logger.warning("there are file descriptors again: new connections are taken")
        was_out = is_out
        await asyncio.sleep(_LOOK_S)


def _are_out() -> bool:
    # What opening one says is what the next connection is told.
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
