"""`GET /metrics` over HTTP, on a port of its own.

Rules: one request a connection; a request is read, and its answer taken, within bounds, and only so many are
served at once: who asks slowly, or without end, holds up nobody but those who ask for metrics.
Why not prometheus-client's server: it takes a thread for each connection, as many as come, and half a second
to stop.
Must not know: what the page says.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from typing import Final

import structlog

# From what is asked for, as its `Accept` header says, to the page and its content type.
Page = Callable[[str], Awaitable[tuple[bytes, str]]]

_PATH: Final = b"/metrics"
_METHODS: Final = frozenset({b"GET", b"HEAD"})
_TEXT: Final = "text/plain; charset=utf-8"
# Prometheus sends some 300 bytes; it gives up after 10 s by default, and so do we.
_REQUEST_BYTES_MAX: Final = 8 << 10
_TOGETHER_S_MAX: Final = 10.0
# Two Prometheus servers and a person; the rest is told to come back.
_CONNECTIONS_MAX: Final = 16

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class _Refused(Exception):
    """The request can't be answered with the page."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class MetricsEndpoint:
    """Serves a page on `address`. `start` once, then `stop`."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.address = ""

    async def start(self, address: str) -> None:
        """Listen. Raises: OSError."""
        host, _, port = address.rpartition(":")
        self._server = await asyncio.start_server(
            self._connected, host.strip("[]"), int(port), limit=_REQUEST_BYTES_MAX
        )
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listen no longer, and end what is under way."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TOGETHER_S_MAX):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(request))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever it was has gone, or should
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        try:
            accept = _asked(request)
            if len(self._connections) > _CONNECTIONS_MAX:
                raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE)
            status, (body, content_type) = HTTPStatus.OK, await self._page(accept)
        except _Refused as refused:
            status, body, content_type = refused.status, f"{refused}\n".encode(), _TEXT
        except Exception as error:
            _logger.error("no metrics", exc_info=error)
            status, body, content_type = HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n", _TEXT
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if request.startswith(b"HEAD ") else body)


def _asked(request: bytes) -> str:
    """Return the `Accept` header of a request that can be answered. Raises: _Refused."""
    line, _, rest = request.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    method, target, _ = parts
    if method not in _METHODS:
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    if target.partition(b"?")[0] != _PATH:
        raise _Refused(HTTPStatus.NOT_FOUND)
    try:
        return parse_headers(io.BytesIO(rest)).get("Accept", "")
    except HTTPException as error:
        raise _Refused(HTTPStatus.BAD_REQUEST) from error
