"""Where the store waits for the disk: on threads of its own, so that the event loop never does.

Owns: the hop to a thread and back. Why a seam: a simulation has no threads, and a disk of its own making.
Must not know: what is done there.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

import aiosqlite

Result = TypeVar("Result")


class Connection(Protocol):
    """An open SQLite connection that one thing at a time is done with, in order."""

    async def run(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """Call `function` with the connection, after all asked before. Cancelling does not stop it."""
        ...

    async def close(self) -> None:
        """Close it, after all that was asked before."""
        ...


class Threads:
    """The threads of one store: one for each connection, and any for what comes before there is one."""

    async def call(self, function: Callable[[], Result]) -> Result:
        """Call `function`."""
        return await asyncio.to_thread(function)

    async def connect(self, connector: Callable[[], sqlite3.Connection]) -> Connection:
        """Open a connection on a thread of its own. Raises: as `connector`."""
        connection = _Thread(connector)
        # Its own __await__ returns itself, typed as its base class.
        _ = await connection
        return connection


class _Thread(aiosqlite.Connection):
    """A connection that can run a whole function on its thread.

    Why: each of aiosqlite's own methods is a hop to the thread and back, and a batch is some twenty of them.
    `_execute` queues any callable, and is for subclasses; the public ways to run code there are callbacks.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        # A process that ends without `close`, on an error, must end; what is committed is on disk already.
        self._thread.daemon = True

    async def run(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """See Connection."""
        result: Result = await self._execute(lambda: function(self._conn))  # type: ignore[no-untyped-call]
        return result
