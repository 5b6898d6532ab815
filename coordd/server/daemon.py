"""The daemon: a store and an engine for each namespace, and the gRPC server over them.

Owns: what is built from what and in which order, and the transport's options. Rule: until the address is
known to be free, no file is touched.
Must not know: signals, exit codes, the log's form.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from coordd import rpc
from coordd.config import DEFAULT_NAMESPACE, Settings
from coordd.core.limits import CONNECTIONS_MAX
from coordd.engine import Clock, Engine
from coordd.server.addresses import AddressUnusable
from coordd.server.listening import listen
from coordd.server.memory import records_left_to_themselves
from coordd.server.tasks import first
from coordd.server.tls import Misconfigured
from coordd.server.worlds import Worlds
from coordd.store.protocol import CommitFailed
from coordd.telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# For calls that have just begun or are just sending their last.
_LAST_GRACE_S: Final = 0.1

# Long enough for calls on their way to arrive and be told that we drain; but clients that ask again and again
# must not keep the daemon from being restarted.
_QUIET_S: Final = 0.05
_QUIET_S_MAX: Final = 1.0

OPTIONS: Final[Mapping[str, int]] = {
    # Two daemons on one port would share its clients out between them, without a word.
    "grpc.so_reuseport": 0,
    # A waiter is a stream, so one process may well have many; but no one peer may take all the memory.
    "grpc.max_concurrent_streams": 10_000,
    "grpc.max_allowed_incoming_connections": CONNECTIONS_MAX,
    # Of a call's metadata, with names and 32 bytes for each: a token, a trace and a few names are 2 KiB.
    # Between the two gRPC refuses some by lot, above the second all (RESOURCE_EXHAUSTED).
    "grpc.max_metadata_size": 8 << 10,
    "grpc.absolute_max_metadata_size": 16 << 10,
    # Calls of one method that have arrived and that nobody has taken; where there is not even the time to
    # refuse them, gRPC's core ends them (CANCELLED), ever more by lot between these two. So nobody stands in
    # a line longer than a tenth of a second. Calls that are taken back at once do not fill it: the door takes
    # several of each method at a time, and has done with those at once.
    "grpc.server.max_pending_requests": 250,
    "grpc.server.max_pending_requests_hard_limit": 400,
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


class Daemon:
    """The worlds of all namespaces, and the gRPC server over them. `start` once, then `stop` once.

    Args:
        options: gRPC channel arguments instead of, or besides, OPTIONS.
        clock: of the namespace `default`, instead of the machine's own, as for tests.
        traces: instead of those that `[traces]` switches on, as for tests.
    Raises: Uninstalled.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        options: Mapping[str, int] | None = None,
        clock: Clock | None = None,
        traces: "TracerProvider | None" = None,
    ) -> None:
        self._settings = settings
        self._is_serving = False
        self.telemetry = Telemetry(settings, version("coordd"), lambda: self._is_serving, traces)
        self._options = {**OPTIONS, **(options or {})}
        self.worlds = Worlds(settings, self.telemetry, clock=clock)
        self._trail = rpc.AuditTrail(settings.audit.path)
        # Whether there are identities at all is fixed: with none everybody may do anything, and a file that
        # lost them while we run must not open the door.
        self._guard = rpc.Guard(settings.directory(), self._trail.refused) if settings.identities else None
        self.admission = rpc.Admission(settings.server.max_calls, rpc.Shares(settings.worlds))
        self.telemetry.show_admission(self.admission)
        self._calls = rpc.Calls(
            self._guard,
            self._trail,
            admission=self.admission,
            observer=self.telemetry.calls,
            slow_ns=settings.log.slow_call_ns,
        )
        self._health = rpc.Health()
        self._server = self._make_server()
        self.door = rpc.Door(self._server, self._calls.served, self.admission, self.telemetry.calls)
        self.address = ""

    @property
    def engine(self) -> Engine:
        """The engine of the namespace `default`."""
        return self.worlds.engines[DEFAULT_NAMESPACE]

    def _make_server(self) -> grpc.aio.Server:
        largest = self._settings.server.max_message_bytes
        server = rpc.new_server((*self._options.items(), ("grpc.max_receive_message_length", largest)))
        for servicer, add in rpc.SERVICERS:
            # By method, as generated code does it: grpc.aio then has a call of each waiting to be taken, and
            # not one of all (measured with 64 clients: 15 % less time per call).
            server.add_registered_method_handlers(*self._calls.handlers(add, self.worlds.servicer(servicer)))
        for lane in self._calls.lanes():
            server.add_registered_method_handlers(*lane)
        reflected = reflection.aio.ReflectionServicer((*rpc.SERVICES, HEALTH, reflection.SERVICE_NAME))
        for service, add_service in (
            (self._health, health_pb2_grpc.add_HealthServicer_to_server),
            (reflected, reflection_pb2_grpc.add_ServerReflectionServicer_to_server),
        ):
            server.add_registered_method_handlers(*self._calls.handlers(add_service, service))
        return server

    async def start(self) -> None:
        """Take the address, recover the state, and serve.

        Raises: AddressUnusable and Misconfigured with nothing touched; Unusable, likewise, if no store can be
            used.
        """
        self._check_audit()
        self.address = listen(self._server, self._settings)
        await self._start_telemetry()
        try:
            with records_left_to_themselves():
                await self.worlds.start()
        except BaseException:
            await self.telemetry.stop()
            raise
        for service in ("", *rpc.SERVICES, *map(rpc.health_name, self.worlds.engines)):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        for name in self.worlds.unusable:
            await self._is_over(name)
        await self._server.start()
        self.door.open()
        self._is_serving = True

    async def _start_telemetry(self) -> None:
        try:
            await self.telemetry.start()
        except OSError as error:
            address = self._settings.metrics.address
            raise AddressUnusable(f"can't show metrics on {address}: {error.strerror or error}") from error

    async def failures(self) -> AsyncGenerator[tuple[str, CommitFailed], None]:
        """Yield each namespace that fails from now on, and why; end when none is left to serve."""
        async with aclosing(self.worlds.failures()) as failures:
            async for name, error in failures:
                await self._is_over(name)
                yield name, error

    async def _is_over(self, name: str) -> None:
        """Say in its health that a namespace is not served any more; of the services others are."""
        await self._health.set(rpc.health_name(name), health_pb2.HealthCheckResponse.NOT_SERVING)

    def _check_audit(self) -> None:
        path = self._settings.audit.path
        try:
            self._trail.check()
        except OSError as error:
            raise Misconfigured(f"[audit] path {path}: can't be written to: {error.strerror}") from error

    def replace_identities(self, settings: Settings) -> None:
        """Know those that `settings` names, from now on; streams of those who may no longer call end.

        Raises: Misconfigured if there were none and are some, or the other way round: that takes a restart.
        """
        if (self._guard is None) != (not settings.identities):
            raise Misconfigured("[identities] can't be begun or given up without a restart")
        if self._guard is not None:
            self._guard.replace(settings.directory())

    async def reload(self, settings: Settings) -> None:
        """Go on under what `settings` say of what can change while it serves.

        Raises: Misconfigured, with nothing changed; EngineError, StoreError if a namespace could not.
        """
        self.replace_identities(settings)
        await self.worlds.reload(settings)

    async def stop(self, grace_s: float, hurry: asyncio.Event | None = None) -> None:
        """Grant nothing more, let calls end for up to `grace_s` or until `hurry` is set, then close all.

        Raises: StoreError if what was open can't be committed.
        """
        self._is_serving = False
        await self._health.enter_graceful_shutdown()
        self.worlds.wind_down()
        hurried = hurry or asyncio.Event()
        # Not left to grpc's own grace: that waits for those who watch events or health, too, and they never
        # end by themselves. And to call its `stop` again while it waits crashes the process.
        await first(self._calls.idle(), asyncio.sleep(grace_s), hurried.wait())
        # Calls that have arrived but not begun when grpc stops end with CANCELLED, which nobody tries again.
        await first(self._calls.quiet(_QUIET_S), asyncio.sleep(min(grace_s, _QUIET_S_MAX)), hurried.wait())
        # Only now, so that they see the end of all that was under way.
        self.worlds.end_watches()
        await self._server.stop(min(grace_s, _LAST_GRACE_S))
        try:
            await self.worlds.stop()
        finally:
            await self.telemetry.stop()
