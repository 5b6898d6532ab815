"""One run of the daemon: its log, its signals, its exit code.

Rules: what can't start says why in one line. Told to stop, it grants nothing more, ends what waits, lets what
is under way finish, and is gone; told twice, it does not wait. It serves while there is a namespace left to
serve.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
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
from coordd.server.reloading import Reloader
from coordd.server.signals import Signals, signals
from coordd.server.supervisor import Supervisor
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


def run(settings: Settings, read: Callable[[], Settings]) -> int:
    """Serve until told to stop; return the exit code. See `serve`."""
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(serve(settings, read))


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415  -- not for every platform, and everything works without it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(settings: Settings, read: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT, or until the store fails; return the exit code.

    SIGHUP has the settings read again, by `read`, which raises ConfigError.
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
    with signals() as told:
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
        return await _serve_until(daemon, told, Reloader(daemon, settings, read))


async def _serve_until(daemon: Daemon, told: Signals, reloader: Reloader) -> int:
    failure = asyncio.create_task(_failure(daemon))
    telling = asyncio.create_task(descriptors.tell_when_there_are_none())
    supervisor = Supervisor()
    try:
        await _reload_until(failure, told, reloader, supervisor)
        grace_s = reloader.settings.server.drain_timeout_ns / SECOND
        if failure.done():
            grace_s = min(grace_s, _FAILED_GRACE_S)
        else:
            _logger.info("stopping: waits up to %g s for calls under way", grace_s)
        supervisor.stopping(f"stopping: waits up to {grace_s:g} s for calls under way")
        await daemon.stop(grace_s, told.hurry)
    except StoreError as error:
        _logger.error(str(error))
        return EXIT_STORE_FAILED
    finally:
        failed = failure.done()
        failure.cancel()
        await supervisor.close()
        telling.cancel()
    _logger.info("stopped")
    return EXIT_STORE_FAILED if failed else EXIT_STOPPED


async def _reload_until(
    failure: "asyncio.Task[None]", told: Signals, reloader: Reloader, supervisor: Supervisor
) -> None:
    """Serve, reading the configuration again when told to, until told to stop or nothing is left to serve."""
    supervisor.ready(reloader.status)
    while not (failure.done() or told.stop.is_set()):
        await first(asyncio.shield(failure), told.stop.wait(), told.reload.wait())
        if told.reload.is_set() and not told.stop.is_set():
            told.reload.clear()
            supervisor.reloading()
            await reloader.reload()
            supervisor.ready(reloader.status)


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
