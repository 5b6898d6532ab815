"""A daemon in memory, for tests of code that uses the client: no network, no process, and time that you move.

    daemon = InMemoryDaemon(pools={"memory": 4}, limits={"post_tweet": [(900, 50)]})
    async with daemon.client("w1") as client:
        async with client.lock("tweet:1", kind="reply") as lock:
            await daemon.advance(3600)          # an hour of renewals, at once
    assert daemon.history[0].outcome is Outcome.SUCCESS

It is the client's own code that runs, with its retries, renewals and cancellations; only what is behind the
transport is a double. It decides as the daemon does, and refuses what the daemon refuses, but for what
depends on its configuration: any kind of lock goes, items do not rest and nothing is too recent unless said
so, waits do not age, every unit of a pool is held until it is given back, and a bundle is patient for ever.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from coordd.v1 import engagement_pb2, session_pb2
from coordd_client.client import Client
from coordd_client.errors import NotFound, Unavailable
from coordd_client.locks import read_engagement, read_lock
from coordd_client.messages import Method, ReplyT, RequestT
from coordd_client.reservations import read_reservation
from coordd_client.retries import Config
from coordd_client.testing._bundles import Bundles
from coordd_client.testing._forms import check
from coordd_client.testing._grants import Book, Shared
from coordd_client.testing._locks import Locks
from coordd_client.testing._permits import Permits
from coordd_client.testing._reservations import Reservations
from coordd_client.testing._sessions import Sessions
from coordd_client.testing._timeline import Timeline
from coordd_client.testing._waits import Waits
from coordd_client.values import Engagement, Lock, Reservation

__all__ = ["InMemoryDaemon"]


class InMemoryDaemon:
    """A daemon's double; it serves as transport and clock of any number of clients.

    Args:
        pools: units that types of resources have; a type that is not here is exclusive by id.
        limits: of endpoints, as (window in seconds, limit) pairs.
        min_interval_s: seconds before a kind of engagement may be repeated on an item.
        lock_delay_s: seconds that an item rests after a lock on it has run out.
        use_within_s: seconds in which a permit must be used.
        claim_window_s: seconds in which a booking must be claimed.
        resume_grace_s: seconds for which a broken wait keeps its place.

    Raises: TypeError, ValueError if pools or limits are not such.
    """

    def __init__(
        self,
        *,
        pools: Mapping[str, int] | None = None,
        limits: Mapping[str, Sequence[tuple[float, int]]] | None = None,
        min_interval_s: Mapping[str, float] | None = None,
        lock_delay_s: float = 0.0,
        use_within_s: float = 30.0,
        claim_window_s: float = 30.0,
        resume_grace_s: float = 30.0,
    ) -> None:
        self._timeline = Timeline(self._on_due)
        shared = Shared(self._timeline, Waits(self._timeline, resume_grace_s))
        self._waits = shared.waits
        self._locks = Locks(shared, min_interval_s or {}, lock_delay_s)
        self._reservations = Reservations(shared, pools or {})
        self._permits = Permits(shared, limits or {}, use_within_s, claim_window_s)
        self._bundles = Bundles(shared, self._locks, self._reservations, self._permits)
        # Bundles last: they end with what the others end.
        self._books: tuple[Book, ...] = (self._locks, self._reservations, self._permits, self._bundles)
        self._sessions = Sessions(shared, self._locks, self._reservations)
        self._is_up = True

    # ---- for tests

    def client(self, worker: str, *, config: Config | None = None) -> Client:
        """Returns a client of this daemon, on its time."""
        return Client(worker=worker, config=config, transport=self, clock=self)

    async def advance(self, duration_s: float) -> None:
        """Moves time on by `duration_s` seconds; leases renew, run out and are waited for on the way."""
        await self._timeline.advance(duration_s)

    def stop(self) -> None:
        """Goes away as in a crash: every call fails with Unavailable until `start`. It forgets nothing."""
        self._is_up = False
        self._waits.break_off(_unavailable())
        self._sessions.break_off(_unavailable())

    def start(self) -> None:
        """Comes back; what ran out meanwhile is over."""
        self._is_up = True
        self._on_due()

    def force_release(self, grant_id: int) -> None:
        """Takes a lock, a reservation or a bundle from its holder, by token or id. Raises: NotFound."""
        with self._sessions.telling(session_pb2.REVOCATION_REASON_FORCED):
            if grant_id in self._locks.live:
                self._locks.end(grant_id, engagement_pb2.OUTCOME_UNKNOWN)
            elif self._reservations.live.pop(grant_id, None) is None and not self._bundles.force(grant_id):
                raise NotFound("nobody holds it", reason="UNKNOWN_ID", metadata={"id": str(grant_id)})
        self._waits.serve()

    @property
    def history(self) -> tuple[Engagement, ...]:
        """Every engagement, oldest first."""
        return tuple(read_engagement(engagement) for _, engagement in self._locks.history)

    @property
    def locks(self) -> tuple[Lock, ...]:
        """The live locks, oldest first."""
        return tuple(read_lock(self._locks.view(token)) for token in self._locks.live)

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """The live reservations, oldest first."""
        return tuple(read_reservation(self._reservations.view(each)) for each in self._reservations.live)

    @property
    def sessions(self) -> tuple[str, ...]:
        """The workers whose sessions are open, by name."""
        return self._sessions.workers

    # ---- as the client's clock and transport

    def now(self) -> float:
        """See Clock."""
        return self._timeline.now()

    async def sleep(self, duration_s: float) -> None:
        """See Clock."""
        await self._timeline.sleep(duration_s)

    async def call(self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float) -> ReplyT:
        """See Transport. Replies come at once, so `timeout_s` never passes."""
        self._require_up()
        check(request)
        (answer,) = (book.calls[method.path] for book in self._books if method.path in book.calls)
        reply: ReplyT = answer(request)
        self._waits.serve()
        return reply

    async def stream(
        self, method: Method[RequestT, ReplyT], request: RequestT, timeout_s: float
    ) -> AsyncGenerator[ReplyT, None]:
        """See Transport."""
        self._require_up()
        check(request)
        (book,) = (book for book in self._books if method.path in book.claims)
        reply: Any = method.reply
        if (before := book.granted(request)) is not None:
            yield reply(granted=before)
            return
        async for message in self._waits.follow(book.claims[method.path](request), request, reply):
            yield message

    async def converse(
        self, method: Method[RequestT, ReplyT], requests: AsyncIterator[RequestT]
    ) -> AsyncGenerator[ReplyT, None]:
        """See Transport."""
        self._require_up()
        asked: Any = requests
        async with aclosing(self._sessions.converse(asked)) as messages:
            async for message in messages:
                said: Any = message
                yield said

    async def close(self) -> None:
        """See Transport. One client's end is not the daemon's."""

    def _require_up(self) -> None:
        if not self._is_up:
            raise _unavailable()

    def _on_due(self) -> None:
        if not self._is_up:
            return
        with self._sessions.telling(session_pb2.REVOCATION_REASON_EXPIRED):
            for book in self._books:
                book.expire()
        self._sessions.expire()
        self._waits.serve()


def _unavailable() -> Unavailable:
    return Unavailable("the daemon is stopped")
