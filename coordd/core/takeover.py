"""How other rules take the place of those that a machine was made with, while it goes on.

Rules: what the former parts hold comes into new ones by the way a restart takes, row by row, so that a reload
and a restart with the same rules come to the same. But nobody was away: leases, sessions and escalations keep
their ends, waiters their places, and ids go on. Who waits for what can never be granted any more is told what
a newcomer would be told. What a restart forgets, as how calls are paced at present, is forgotten here, too.
Must not know: what differs between the rules.
"""

from collections.abc import Mapping, Sequence

from coordd.core.parts import Parts
from coordd.core.records import Lock, Reservation, Row, Session, Table
from coordd.core.recovery import Recovery
from coordd.core.snapshots import snapshot


class Takeover(Recovery):
    """Fills new, empty parts with what the `former` hold, which are of no use then."""

    def __init__(self, parts: Parts, former: Parts) -> None:
        super().__init__(parts)
        self._former = former
        self._grace_ns = 0

    def take_over(self, stored: Mapping[Table, Sequence[Row]], now: int) -> None:
        """Take everything over at `now`, when all of it is stored.

        Args: stored: charges, also of windows that the former rules did not know, and as much of the history
        as the new ones need.
        """
        ledger, former = self._parts.ledger, self._former
        ledger.last_id = former.ledger.last_id
        ledger.notices = former.ledger.notices
        waiters = [waiter for _, waiter in sorted(former.waits.waiters.items())]
        # Of the rest, memory knows better: what a restart has extended is not stored.
        rows = {**snapshot(former, now), **stored, Table.WAITERS: [waiter.row() for waiter in waiters]}
        self._load(rows, now)
        for waiter in waiters:
            self._parts.waits.come_in(waiter, now)

    def _extend(self, lease: Lock | Reservation, now: int) -> None:
        """Leave its end as it is: its holder could renew it all the while."""

    def _load_session(self, session: Session, now: int) -> None:
        late_at = self._former.ledger.sessions[session.worker].late_at
        self._parts.sessions.take_over(session, late_at)

    def _load_waiter(self, row: Row, now: int) -> None:
        self._parts.waits.take_over(self._former.waits.waiters[int(row[0])])
