"""Start-up and shut-down of the daemon.

Owns: what is built from what and in which order, the transport's options, the log's form, signals and exit
codes. Rules: until the address is known to be free, no file is touched; what can't start says why in one
line. Told to stop, it grants nothing more, ends what waits, lets what is under way finish, and is gone; told
twice, it does not wait.
"""

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from coordd import rpc
from coordd.config import LogSettings, Settings
from coordd.core.limits import SECOND
from coordd.engine import Clock, Defect, Engine, EngineError
from coordd.store.protocol import StoreError, Unusable
from coordd.store.sqlite import SqliteStore

__all__ = [
    "EXIT_ADDRESS",
    "EXIT_STOPPED",
    "EXIT_STORE_FAILED",
    "EXIT_UNUSABLE",
    "OPTIONS",
    "Daemon",
    "run",
    "serve",
]

EXIT_STOPPED: Final = 0
EXIT_UNUSABLE: Final = 3
EXIT_STORE_FAILED: Final = 4
EXIT_ADDRESS: Final = 5

# After a failed commit every call ends at once; this is for their replies to leave.
_FAILED_GRACE_S: Final = 1.0

# For calls that have just begun or are just sending their last.
_LAST_GRACE_S: Final = 0.1

# Long enough for calls on their way to arrive and be told that we drain; but clients that ask again and again
# must not keep the daemon from being restarted.
_QUIET_S: Final = 0.05
_QUIET_S_MAX: Final = 1.0

# A call that changes something and is forgotten by itself; of a kind that is there unless configured away.
_EXAMPLE: Final = '{"item": "tweet:1", "worker": "me", "kind": "reply", "ttl": "60s"}'

_TAKEN_HINT: Final = "; is another coordd running there? COORDD_ADDRESS or [server] address changes it"

# A young collection after 50,000 new objects, not 700: a batch makes thousands, and nearly all die with it.
_COLLECTOR_THRESHOLDS: Final = (50_000, 20, 100)

OPTIONS: Final[Mapping[str, int]] = {
    # Two daemons on one port would share its clients out between them, without a word.
    "grpc.so_reuseport": 0,
    # A waiter is a stream, so one process may well have many; but no one peer may take all the memory.
    "grpc.max_concurrent_streams": 10_000,
    # Clients ask every 10 s whether we are there, also with no call under way; by default grpc bans them for
    # it. Half of that, since the network may deliver two of them close together.
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    # And we ask them, so that the waits of a peer that is gone without a word end within 20 s. It takes all
    # of these: an unanswered ping alone is given a minute, and only two are sent without data.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,
    "grpc.http2.max_pings_without_data": 0,
}

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class AddressUnusable(Exception):
    """The address can't be listened on; says why in one line."""


class Daemon:
    """The store, the engine and the gRPC server over them. `start` once, then `stop` once.

    Args:
        options: gRPC channel arguments instead of, or besides, OPTIONS.
        clock: instead of the machine's own, as for tests.
    """

    def __init__(
        self, settings: Settings, *, options: Mapping[str, int] | None = None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._options = {**OPTIONS, **(options or {})}
        self.engine = Engine(
            settings.rules(),
            SqliteStore(settings.store.path),
            history_retention_ns=settings.store.history_retention_ns,
            clock=clock,
        )
        self._calls = rpc.Calls()
        self._health = health.HealthServicer()
        self._server = self._make_server()
        self.address = ""

    def _make_server(self) -> grpc.aio.Server:
        largest = self._settings.server.max_message_bytes
        backend = rpc.Backend(
            engine=self.engine,
            wait_ns_default=self._settings.waits.default_timeout_ns,
            history_ns=self._settings.store.history_retention_ns,
            version=version("coordd"),
        )
        server = grpc.aio.server(
            options=(*self._options.items(), ("grpc.max_receive_message_length", largest)),
        )
        for servicer, add in rpc.SERVICERS:
            # By method, as generated code does it: grpc.aio then has a call of each waiting to be taken, and
            # not one of all (measured with 64 clients: 15 % less time per call).
            server.add_registered_method_handlers(*self._calls.handlers(add, servicer(backend)))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*rpc.SERVICES, HEALTH, reflection.SERVICE_NAME), server)
        return server

    async def start(self) -> None:
        """Take the address, recover the state, and serve.

        Raises: AddressUnusable with nothing touched; Unusable with the store untouched.
        """
        address = self._settings.server.address
        _check_address(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:  # somebody was faster
            raise AddressUnusable(f"can't listen on {address}{_TAKEN_HINT}") from error
        self.address = f"{address.rpartition(':')[0]}:{port}"
        with _records_left_to_themselves():
            await self.engine.start()
        for service in ("", *rpc.SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self, grace_s: float, hurry: asyncio.Event | None = None) -> None:
        """Grant nothing more, let calls end for up to `grace_s` or until `hurry` is set, then close all.

        Raises: StoreError if what was open can't be committed.
        """
        await self._health.enter_graceful_shutdown()
        self.engine.wind_down()
        hurried = hurry or asyncio.Event()
        # Not left to grpc's own grace: that waits for those who watch events or health, too, and they never
        # end by themselves. And to call its `stop` again while it waits crashes the process.
        await _first(self._calls.idle(), asyncio.sleep(grace_s), hurried.wait())
        # Calls that have arrived but not begun when grpc stops end with CANCELLED, which nobody tries again.
        await _first(self._calls.quiet(_QUIET_S), asyncio.sleep(min(grace_s, _QUIET_S_MAX)), hurried.wait())
        # Only now, so that they see the end of all that was under way.
        self.engine.end_watches()
        await self._server.stop(min(grace_s, _LAST_GRACE_S))
        await self.engine.stop()


@contextmanager
def _records_left_to_themselves() -> Iterator[None]:
    """Keep the garbage collector away from what is loaded: live records are no garbage, and make no cycles.

    Why: with a million of them each full collection would stop the daemon for a good part of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_COLLECTOR_THRESHOLDS)
        gc.enable()


async def _first(*awaitables: Any) -> None:
    """Return when one of them has ended; cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check_address(address: str) -> None:
    # grpc would say no more than that it failed, and that in several lines of its own.
    host, _, port = address.rpartition(":")
    try:
        [(family, kind, proto, _, name), *_] = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            probe.listen()
    except OSError as error:
        hint = _TAKEN_HINT if error.errno == errno.EADDRINUSE else ""
        raise AddressUnusable(f"can't listen on {address}: {error.strerror or error}{hint}") from error


def run(settings: Settings) -> int:
    """Serve until told to stop; return the exit code. See `serve`."""
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(serve(settings))


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415  -- not for every platform, and everything works without it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, or until the store fails; return the exit code.

    0: stopped. 3: the store can't be opened. 4: the store failed. 5: the address can't be listened on.
    """
    configure_log(settings.log)
    daemon = Daemon(settings)
    with _signals() as (stop, hurry):
        try:
            await daemon.start()
        except AddressUnusable as error:
            _logger.error(str(error))
            return EXIT_ADDRESS
        except Unusable as error:
            _logger.error(str(error))
            return EXIT_UNUSABLE
        data = settings.store.path.absolute()
        await _log_serving(daemon, data)
        _announce(daemon.address, data)
        return await _serve_until(daemon, stop, hurry, settings.server.drain_timeout_ns / SECOND)


async def _serve_until(daemon: Daemon, stop: asyncio.Event, hurry: asyncio.Event, grace_s: float) -> int:
    failure = asyncio.create_task(_failure(daemon))
    try:
        await _first(asyncio.shield(failure), stop.wait())
        if failure.done():
            grace_s = min(grace_s, _FAILED_GRACE_S)
        else:
            _logger.info("stopping: waits up to %g s for calls under way", grace_s)
        await daemon.stop(grace_s, hurry)
    except StoreError as error:
        _logger.error(str(error))
        return EXIT_STORE_FAILED
    finally:
        failed = failure.done()
        failure.cancel()
    _logger.info("stopped")
    return EXIT_STORE_FAILED if failed else EXIT_STOPPED


async def _failure(daemon: Daemon) -> None:
    error = await daemon.engine.failure()
    if isinstance(error, Defect):
        _logger.critical(
            "a bug; nothing unsaved was acknowledged", error=str(error), exc_info=error.__cause__
        )
    else:
        _logger.critical("the store failed; nothing unsaved was acknowledged", error=str(error))


async def _log_serving(daemon: Daemon, data: Path) -> None:
    try:
        counts = await daemon.engine.read(lambda machine, _: machine.counts())
    except EngineError:
        # It has failed already; that is told as any failure is.
        return
    _logger.info(
        "serving",
        address=daemon.address,
        data=str(data),
        locks=counts.locks,
        reservations=counts.reservations,
        permits=counts.permits,
        bookings=counts.bookings,
        waiters=counts.waiters,
    )


def _announce(address: str, data: Path) -> None:
    sys.stdout.write(
        f"coordd serving on {address} (data: {data})\n"
        f"try: grpcurl -plaintext -d '{_EXAMPLE}' {address} coordd.v1.EngagementService/RequestLock\n"
        f"try: coordctl --address {address} status\n"
    )
    sys.stdout.flush()


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Return two events: the first is set by the first SIGTERM or SIGINT, the second by the second."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def told() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in numbers:
        loop.add_signal_handler(number, told)
    try:
        yield stop, hurry
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def configure_log(settings: LogSettings) -> None:
    """Write the log to stderr, for people or as JSON: ours, and what libraries say from WARNING up."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
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
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _renderers(*, is_json: bool) -> list[structlog.typing.Processor]:
    if is_json:
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    # Without the local variables: a traceback is for the operator's terminal, not for the data of clients.
    plain = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [plain]
