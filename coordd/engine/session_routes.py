"""Which connected worker is told what: events in, words for sessions' streams out.

Owns: the streams by worker, and what of all that happens concerns whom. Why not a watch for each: hundreds of
them would each look at every event, of which one in thousands is theirs. Here an event that is nobody's costs
a look at its type, and one that is somebody's a look at its worker.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from coordd.core.commands import OpenSession
from coordd.core.errors import AlreadyExists, FailedPrecondition
from coordd.core.outcomes import (
    CapacityChanged,
    Expired,
    Forced,
    GateChanged,
    LeasesExpiring,
    Preempted,
    SessionExpired,
    SessionOpened,
)
from coordd.core.records import Bundle, Lock, Reservation
from coordd.engine.session_stream import RevocationReason, Revoked, SessionStream
from coordd.engine.watch import Event


class SessionRoutes:
    """The streams of sessions, by worker."""

    __slots__ = ("_streams",)

    def __init__(self) -> None:
        self._streams: dict[str, SessionStream] = {}

    def __len__(self) -> int:
        """Connected workers."""
        return len(self._streams)

    def is_connected(self, worker: str, id: int) -> bool:
        """Return whether the session `id` of a worker has a stream."""
        stream = self._streams.get(worker)
        return stream is not None and stream.id == id

    def check(self, command: OpenSession, *, is_taking_over: bool) -> None:
        """Raise AlreadyExists (SESSION_TAKEN) if another of this worker's sessions is connected.

        Who names the session is its owner, on a new connection before the old one is known to be gone.
        """
        earlier = self._streams.get(command.worker)
        if earlier is not None and not is_taking_over and earlier.id != command.session_id:
            message = f"{command.worker!r} is connected already; take_over ends that stream."
            raise AlreadyExists("SESSION_TAKEN", message, worker=command.worker)

    def add(self, stream: SessionStream, opened: SessionOpened) -> None:
        """Let a stream be told what concerns its worker, in the stead of an earlier one."""
        earlier = self._streams.get(stream.worker)
        if earlier is not None:
            earlier.supersede()
        stream.id = opened.session.id
        self._streams[stream.worker] = stream
        for lease in opened.preempted:
            stream.put(Revoked(grant=lease, reason=RevocationReason.PREEMPTED, at=lease.preempt_at))

    def remove(self, stream: SessionStream) -> None:
        """Let a stream be told no more."""
        if self._streams.get(stream.worker) is stream:
            del self._streams[stream.worker]

    def fail(self, error: Exception) -> None:
        """End every stream, once it has shown what has happened so far."""
        for stream in self._streams.values():
            stream.fail(error)

    def tell(self, event: Event) -> None:
        """Tell an event to whom it concerns."""
        route = _ROUTES.get(event.outcome.__class__)
        if route is not None:
            route(self._streams, event)


Streams = Mapping[str, SessionStream]


def _revoke(streams: Streams, grant: Any, reason: RevocationReason, at: int) -> None:
    if isinstance(grant, Lock | Reservation) and grant.worker in streams:
        streams[grant.worker].put(Revoked(grant=grant, reason=reason, at=at))


def _expired(streams: Streams, event: Event) -> None:
    grant = cast("Expired", event.outcome).grant
    # Units of a refilling pool were used in time, or were not; either way nothing is taken.
    if not (isinstance(grant, Reservation) and grant.is_refilling):
        _revoke(streams, grant, RevocationReason.EXPIRED, event.at)


def _forced(streams: Streams, event: Event) -> None:
    grant = cast("Forced", event.outcome).grant
    # A bundle is taken with what was left of it.
    for taken in grant.held if isinstance(grant, Bundle) else (grant,):
        _revoke(streams, taken, RevocationReason.FORCED, event.at)


def _preempted(streams: Streams, event: Event) -> None:
    outcome = cast("Preempted", event.outcome)
    _revoke(streams, outcome.grant, RevocationReason.PREEMPTED, outcome.at)


def _leases_expiring(streams: Streams, event: Event) -> None:
    outcome = cast("LeasesExpiring", event.outcome)
    stream = streams.get(outcome.worker)
    if stream is not None:
        stream.put(outcome)


def _session_expired(streams: Streams, event: Event) -> None:
    session = cast("SessionExpired", event.outcome).session
    stream = streams.get(session.worker)
    if stream is not None and stream.id == session.id:
        message = f"The session {session.id} of {session.worker!r} was not kept in time."
        stream.fail(FailedPrecondition("SESSION_LOST", message, id=session.id))


def _gate_changed(streams: Streams, event: Event) -> None:
    outcome = cast("GateChanged", event.outcome)
    for stream in streams.values():
        stream.show(("gate", outcome.gate.endpoint), outcome)


def _capacity_changed(streams: Streams, event: Event) -> None:
    outcome = cast("CapacityChanged", event.outcome)
    for stream in streams.values():
        stream.show(("pool", outcome.pool), outcome)


_ROUTES: Final[Mapping[type, Callable[[Streams, Event], None]]] = {
    Expired: _expired,
    Forced: _forced,
    Preempted: _preempted,
    LeasesExpiring: _leases_expiring,
    SessionExpired: _session_expired,
    GateChanged: _gate_changed,
    CapacityChanged: _capacity_changed,
}
