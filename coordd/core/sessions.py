"""Sessions: a worker that is there, and keeps all that it holds by one word.

Owns: which workers have a session, and its end. Rules: a session keeps the leases (locks, and reservations
that can be renewed) that its worker has taken since it was opened, and no others: what an earlier process of
the same name has left behind runs to its own end, since nobody works under it any more. Registering is a
keepalive, too. A keepalive is late when two of the pauses that were asked for have passed without one; that
is told once. A session that ends unkept leaves its leases to their time to live; one that is closed gives all
of them back: locks as UNKNOWN, since nobody has said how they ended.
Must not know: connections. Whether somebody is connected already is the engine's to say.
"""

from collections.abc import Callable
from heapq import nsmallest
from typing import Any, Final

from coordd.core.commands import CloseSession, KeepSession, OpenSession
from coordd.core.errors import FailedPrecondition, ResourceExhausted
from coordd.core.ledger import Ledger
from coordd.core.limits import LEASES_PER_WARNING_MAX, SESSIONS_MAX
from coordd.core.locks import Locks
from coordd.core.outcomes import (
    GivenBack,
    LeasesExpiring,
    SessionClosed,
    SessionExpired,
    SessionKept,
    SessionOpened,
)
from coordd.core.records import Lock, Reservation, Session, Table
from coordd.core.reservations import Reservations
from coordd.core.rules import Rules
from coordd.core.sharing import Sharing
from coordd.core.views import SessionView
from coordd.core.waits import Waits

# A keepalive may be lost, and the next one may be, before anything is.
KEEPALIVES_PER_TTL: Final = 3


class Sessions:
    """Sessions by worker; they are the ledger's, so that what is taken finds its session."""

    __slots__ = ("_changed", "_extend", "_give_back", "_ledger", "_rules", "_sessions", "_sharing", "_waits")

    def __init__(
        self,
        rules: Rules,
        ledger: Ledger,
        locks: Locks,
        reservations: Reservations,
        waits: Waits,
        *,
        sharing: Sharing,
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._waits = waits
        self._sharing = sharing
        self._sessions = ledger.sessions
        self._changed = ledger.changes.of[Table.SESSIONS]
        self._extend: dict[type, Callable[[Any, int], None]] = {
            Lock: locks.extend,
            Reservation: reservations.extend,
        }
        self._give_back: dict[type, Callable[[Any, int], None]] = {
            Lock: locks.close,
            Reservation: reservations.force,
        }

    # -- commands --------------------------------------------------------------------------------------------

    def open(self, command: OpenSession, now: int) -> SessionOpened:
        """Resume the session that the command names if it lives, else open one, and keep it.

        An earlier one of the same worker is over then: its leases run to their own end.
        Raises: ResourceExhausted (TOO_MANY_SESSIONS). Cost: O(leases it keeps).
        """
        session = self._live(command.worker, command.session_id, now)
        is_resumed = session is not None
        if session is None:
            session = self._open(command, now)
        session.worker_class = command.worker_class
        session.weight_milli = command.weight_milli
        session.labels = command.labels
        session.ttl_ns = command.ttl_ns or self._rules.session_ttl_ns
        self._sharing.join(session.worker, session.worker_class, session.weight_milli)
        return SessionOpened(
            session=session,
            is_resumed=is_resumed,
            kept=self._keep(session, now),
            weight_milli=self.weight_milli(session),
            # Told before, perhaps, and perhaps on a stream that broke just then.
            preempted=tuple(lease for lease in session.leases.values() if lease.preempt_at),
        )

    def keep(self, command: KeepSession, now: int) -> SessionKept:
        """Keep a session, and renew its leases, each by its own time to live.

        Raises: FailedPrecondition (SESSION_LOST). Cost: O(leases it keeps), a row each.
        """
        return self._keep(self._own(command, now), now)

    def close(self, command: CloseSession, now: int) -> SessionClosed:
        """End a session: its leases go back, its waits end, and its permits stay charged as they are.

        Raises: FailedPrecondition (SESSION_LOST). Cost: O(leases and waits it keeps).
        """
        session = self._own(command, now)
        # What has ended by now but was not ticked yet has ended: its expiry is still to be told.
        held = [lease for lease in session.leases.values() if lease.expires_at > now]
        self._waits.dismiss(session, now)
        self._end(session)
        for lease in held:
            self._give_back[lease.__class__](lease, now)
            self._ledger.notices.append(GivenBack(grant=lease))
        return SessionClosed(session=session, released=len(held))

    def due(self, session: Session, now: int) -> None:
        """Warn of a late keepalive, or end a session that was not kept; or postpone."""
        if session.expires_at <= now:
            self._expire(session)
            return
        if session.late_at and session.late_at <= now:
            session.late_at = 0
            self._warn(session, now)
        self._ledger.deadlines.schedule(session, session.late_at or session.expires_at)

    # -- recovery and views ----------------------------------------------------------------------------------

    def load(self, session: Session, now: int) -> None:
        """Take an open session in as it was stored, as if just kept, for the time it has left at least."""
        session.expires_at = max(session.expires_at, now + self._rules.recovery_grace_ns)
        self.take_over(session, _late_at(now, (session.expires_at - now) // KEEPALIVES_PER_TTL))

    def take_over(self, session: Session, late_at: int) -> None:
        """Take an open session in as it stands; its next keepalive is late at `late_at`, 0: it is."""
        session.late_at = late_at
        self._sessions[session.worker] = session
        self._sharing.join(session.worker, session.worker_class, session.weight_milli)
        self._ledger.deadlines.schedule(session, late_at or session.expires_at)

    def weight_milli(self, session: Session) -> int:
        """Return a session's weight x 1000: as it registered, else its worker's, else its class's, else 1."""
        return self._sharing.weights.of(session.worker)

    def views(self) -> list[SessionView]:
        """Return every open session, by worker."""
        return [
            SessionView(
                name=worker,
                session=session,
                weight_milli=self.weight_milli(session),
                held=len(session.leases),
            )
            for worker, session in sorted(self._sessions.items())
        ]

    # --------------------------------------------------------------------------------------------------------

    def _live(self, worker: str, id: int, now: int) -> Session | None:
        session = self._sessions.get(worker)
        # One whose end has come but was not ticked yet has ended: order decides, not the length of a tick.
        return session if session is not None and session.id == id and session.expires_at > now else None

    def _own(self, command: KeepSession | CloseSession, now: int) -> Session:
        session = self._live(command.worker, command.id, now)
        if session is None:
            raise FailedPrecondition(
                "SESSION_LOST", f"The session {command.id} of {command.worker!r} is over.", id=command.id
            )
        return session

    def _open(self, command: OpenSession, now: int) -> Session:
        earlier = self._sessions.get(command.worker)
        if earlier is not None:
            (self._end if earlier.expires_at > now else self._expire)(earlier)
        elif len(self._sessions) >= SESSIONS_MAX:
            raise ResourceExhausted("TOO_MANY_SESSIONS", f"{SESSIONS_MAX} workers have sessions already.")
        else:
            self._ledger.quotas.check_sessions(len(self._sessions) + 1)
        session = self._sessions[command.worker] = Session(
            worker=command.worker,
            id=self._ledger.next_id(),
            worker_class=command.worker_class,
            weight_milli=command.weight_milli,
            labels=command.labels,
            opened_at=now,
            expires_at=now,
            ttl_ns=command.ttl_ns,
        )
        return session

    def _keep(self, session: Session, now: int) -> SessionKept:
        session.expires_at = now + session.ttl_ns
        # One whose end has come but was not ticked yet has ended.
        held = {id_: lease for id_, lease in session.leases.items() if lease.expires_at > now}
        for lease in held.values():
            self._extend[lease.__class__](lease, now)
        shortest_ns = min([session.ttl_ns, *(lease.ttl_ns for lease in held.values())])
        keepalive_ns = shortest_ns // KEEPALIVES_PER_TTL
        session.late_at = _late_at(now, keepalive_ns)
        self._ledger.deadlines.not_after(session, session.late_at)
        self._changed[session.worker] = session
        return SessionKept(
            held=tuple(held),
            first_end=min((lease.expires_at for lease in held.values()), default=0),
            keepalive_ns=keepalive_ns,
        )

    def _expire(self, session: Session) -> None:
        self._end(session)
        self._ledger.notices.append(SessionExpired(session=session))

    def _end(self, session: Session) -> None:
        del self._sessions[session.worker]
        self._sharing.leave(session.worker)
        self._ledger.deadlines.cancel(session)
        self._changed[session.worker] = None

    def _warn(self, session: Session, now: int) -> None:
        ending = [
            (lease.expires_at, lease_id)
            for lease_id, lease in session.leases.items()
            if now < lease.expires_at <= session.expires_at
        ]
        first = nsmallest(LEASES_PER_WARNING_MAX, ending)
        self._ledger.notices.append(
            LeasesExpiring(
                worker=session.worker,
                ids=tuple(lease_id for _, lease_id in first),
                first_end=first[0][0] if first else 0,
                session_end=session.expires_at,
            )
        )


def _late_at(kept_at: int, keepalive_ns: int) -> int:
    """Return when a keepalive is late: after two of the pauses that were asked for."""
    return kept_at + 2 * keepalive_ns
