"""One run of the daemon: its log, its signals, its exit code.

Rules: what can't start says why in one line. Told to stop, it grants nothing more, ends what waits, lets what
is under way finish, and is gone; told twice, it does not wait. It serves while there is a namespace left to
serve.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Final

import structlog

from coordd.config import Settings
from coordd.core.limits import SECOND
from coordd.engine import Defect, EngineError
from coordd.server import descriptors
from coordd.server.addresses import AddressUnusable
from coordd.server.announcing import announcement
from coordd.server.daemon import Daemon
from coordd.server.log import configure_log
from coordd.server.tasks import first
from coordd.server.tls import Misconfigured
from coordd.store.protocol import CommitFailed, StoreError, Unusable
from coordd.telemetry import Uninstalled

EXIT_STOPPED: Final = 0
EXIT_MISCONFIGURED: Final = 2
EXIT_UNUSABLE: Final = 3
EXIT_STORE_FAILED: Final = 4
EXIT_ADDRESS: Final = 5

# After a failed commit every call ends at once; this is for their replies to leave.
_FAILED_GRACE_S: Final = 1.0

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


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

    0: stopped. 2: a file that the settings name can't be used. 3: no store can be opened. 4: all stores
    failed. 5: the address can't be listened on.
    """
    configure_log(settings.log)
    descriptors.raise_limit()
    try:
        daemon = Daemon(settings)
    except Uninstalled as missing:
        _logger.error(str(missing))
        return EXIT_MISCONFIGURED
    with _signals() as (stop, hurry):
        try:
            await daemon.start()
        except AddressUnusable as unusable:
            _logger.error(str(unusable))
            return EXIT_ADDRESS
        except Misconfigured as wrong:
            _logger.error(str(wrong))
            return EXIT_MISCONFIGURED
        except Unusable:
            for error in daemon.worlds.unusable.values():
                _logger.error(str(error))
            return EXIT_UNUSABLE
        await _log_serving(daemon, settings)
        if daemon.telemetry.metrics_address:
            _logger.info("metrics", address=daemon.telemetry.metrics_address)
        sys.stdout.write(announcement(daemon.address, settings))
        sys.stdout.flush()
        return await _serve_until(daemon, stop, hurry, settings.server.drain_timeout_ns / SECOND)


async def _serve_until(daemon: Daemon, stop: asyncio.Event, hurry: asyncio.Event, grace_s: float) -> int:
    failure = asyncio.create_task(_failure(daemon))
    telling = asyncio.create_task(descriptors.tell_when_there_are_none())
    try:
        await first(asyncio.shield(failure), stop.wait())
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
        telling.cancel()
    _logger.info("stopped")
    return EXIT_STORE_FAILED if failed else EXIT_STOPPED


async def _failure(daemon: Daemon) -> None:
    """Log each namespace that fails; return when none is left."""
    async with aclosing(daemon.failures()) as failures:
        async for namespace, error in failures:
            _log_failure(namespace, error)


def _log_failure(namespace: str, error: CommitFailed) -> None:
    is_bug = isinstance(error, Defect)
    _logger.critical(
        "%s; nothing unsaved was acknowledged",
        "a bug" if is_bug else "the store failed",
        namespace=namespace,
        error=str(error),
        exc_info=error.__cause__ if is_bug else None,
    )


async def _log_serving(daemon: Daemon, settings: Settings) -> None:
    for namespace, world in settings.worlds.items():
        if namespace in daemon.worlds.unusable:
            _logger.critical("not served", namespace=namespace, error=str(daemon.worlds.unusable[namespace]))
            continue
        try:
            counts = await daemon.worlds.engines[namespace].read(lambda machine, _: machine.counts())
        except EngineError:
            # It has failed already; that is told as any failure is.
            continue
        _logger.info(
            "serving",
            address=daemon.address,
            namespace=namespace,
            data=str(world.store.path.absolute()),
            locks=counts.locks,
            reservations=counts.reservations,
            permits=counts.permits,
            bookings=counts.bookings,
            waiters=counts.waiters,
        )


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
