"""The seam between the client and the world: what carries its calls, and what tells it the time.

A transport raises CoorddError only. `coordd_client.testing` has one that needs no network.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Protocol

import grpc

from coordd_client.attempts import attempts, cancelled
from coordd_client.errors import raise_for
from coordd_client.messages import Method, ReplyT, RequestT, codecs, path_of
from coordd_client.target import Target

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

# The daemon permits a ping every 10 s and answers faster ones with GOAWAY; its own options match these. A
# dead connection, which would leave a wait hanging, is found within 20 s. Without a call there is nothing
# to find out.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The time for a ping's answer is another, a minute by default, and the one that is waited for.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC would back off to 2 minutes: a daemon that is back must be found while its leases live.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Transport(Protocol):
    """What carries calls to a daemon."""

    async def call(self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float) -> ReplyT:
        """Makes one try at a call of at most `timeout_s` seconds. Raises: CoorddError."""
        ...

    def stream(
        self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float
    ) -> AsyncGenerator[ReplyT, None]:
        """Makes one try at a wait; closing the generator cancels it. Raises: CoorddError."""
        ...

    def converse(
        self, method: Method[RequestT, ReplyT], requests: AsyncIterator[RequestT]
    ) -> AsyncGenerator[ReplyT, None]:
        """Makes one try at a stream both ways; closing the generator cancels it. Raises: CoorddError."""
        ...

    async def close(self) -> None:
        """Ends every call and frees what it holds."""
        ...


class Clock(Protocol):
    """Monotonic time in seconds, by which leases and pauses are counted."""

    def now(self) -> float:
        """Returns the time since some fixed moment."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Returns once `duration_s` seconds have passed."""
        ...


class MonotonicClock:
    """This machine's own clock, which no setting of the date moves."""

    def now(self) -> float:
        """Returns seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        """Sleeps."""
        await asyncio.sleep(duration_s)


class GrpcTransport:
    """Calls over one channel, made at the first call: a client may be built where no event loop runs."""

    def __init__(self, target: Target, *, traces: "TracerProvider | None" = None) -> None:
        self._target = target
        self._attempt = attempts(target.metadata(), traces)
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False

    async def call(self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float) -> ReplyT:
        """See Transport."""
        rpc = self._open().unary_unary(path_of(method, request), **codecs(method))
        try:
            with self._attempt(method.path) as metadata:
                reply: ReplyT = await rpc(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise_for(error)
        return reply

    async def stream(
        self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float
    ) -> AsyncGenerator[ReplyT, None]:
        """See Transport."""
        rpc = self._open().unary_stream(path_of(method, request), **codecs(method))
        try:
            with (
                self._attempt(method.path) as metadata,
                cancelled(rpc(request, timeout=timeout_s, metadata=metadata)) as call,
            ):
                async for message in call:
                    yield message
        except grpc.aio.AioRpcError as error:
            raise_for(error)

    async def converse(
        self, method: Method[RequestT, ReplyT], requests: AsyncIterator[RequestT]
    ) -> AsyncGenerator[ReplyT, None]:
        """See Transport."""
        rpc = self._open().stream_stream(method.path, **codecs(method))
        try:
            with (
                self._attempt(method.path) as metadata,
                cancelled(rpc(requests, metadata=metadata)) as call,
            ):
                async for message in call:
                    yield message
        except grpc.aio.AioRpcError as error:
            raise_for(error)

    async def close(self) -> None:
        """See Transport."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            self._channel = self._target.open(
                grpc.aio.insecure_channel, grpc.aio.secure_channel, CHANNEL_OPTIONS
            )
        return self._channel
