"""What must be true of what the fleet was told, whatever crashed in between: functions find violations."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from crash_daemon import CAPACITY, LIMIT, WINDOW_S
from crash_rig import Held, Journal, Stubs

from coordd.v1 import engagement_pb2, reservation_pb2


def held_by_two(locks: Iterable[Held]) -> list[tuple[Held, Held]]:
    """Return pairs of holders who surely held the same item at the same time."""
    by_item = defaultdict(list)
    for held in sorted(locks, key=lambda held: held.told_at):
        by_item[held.subject].append(held)
    return [
        (one, other)
        for row in by_item.values()
        for one, other in pairwise(row)
        if other.told_at < one.surely_until()
    ]


def units_above_capacity(slots: Iterable[Held]) -> int:
    """Return by how much the units surely held at once were above the pool's capacity; at most 0 is right."""
    steps = [(held.told_at, 1) for held in slots] + [(held.surely_until(), -1) for held in slots]
    level = most = 0
    for _, change in sorted(steps):
        level += change
        most = max(most, level)
    return most - CAPACITY


def ids_out_of_order(ids: Iterable[tuple[int, float, float]]) -> list[tuple[int, int]]:
    """Return pairs of ids where one that was told before the other was asked for is not the smaller."""
    told = sorted((told_at, given) for given, _, told_at in ids)
    wrong, latest, index = [], 0, 0
    for asked_at, given in sorted((asked_at, given) for given, asked_at, _ in ids):
        while told[index][0] < asked_at:
            latest = max(latest, told[index][1])
            index += 1
        if given <= latest:
            wrong.append((latest, given))
    return wrong


def given_twice(ids: Iterable[tuple[int, float, float]]) -> list[int]:
    """Return the ids that were given to more than one request."""
    return [given for given, count in Counter(given for given, _, _ in ids).items() if count > 1]


def over_issued(uses: Iterable[int]) -> list[int]:
    """Return the uses that are one too many within the window that ends with them."""
    instants = sorted(uses)
    return [
        used_at
        for first, used_at in zip(instants, instants[LIMIT:], strict=False)
        if used_at - first < WINDOW_S * 10**9
    ]


def check(journal: Journal) -> None:
    """Raise if what the fleet was told can't be true together."""
    assert held_by_two(journal.locks) == []
    assert units_above_capacity(journal.slots) <= 0
    assert given_twice(journal.ids) == []
    assert ids_out_of_order(journal.ids) == []
    assert over_issued(journal.uses) == []


async def lost_after_restart(stubs: Stubs, journal: Journal) -> list[Held]:
    """Return what is gone though it was never given back, or there though its return was acknowledged."""
    locks = {lock.fencing_token: lock for lock in await _locks(stubs)}
    assert len({lock.item for lock in locks.values()}) == len(locks)
    reservations = await _reservations(stubs)
    assert sum(reservation.units for reservation in reservations.values()) <= CAPACITY
    return lost(journal, {name: row.worker for name, row in [*locks.items(), *reservations.items()]})


def lost(journal: Journal, workers: Mapping[int, str]) -> list[Held]:
    """Return the same, by the workers who hold what by its id."""
    found = []
    for held in journal.locks + journal.slots:
        worker = workers.get(held.id)
        if held.returned_at is not None:
            found += [held] if worker is not None else []
        elif held.returning_at is None and held.ttl_s > 1:
            found += [held] if worker != held.worker else []
    return found


async def _locks(stubs: Stubs) -> list[Any]:
    locks: list[Any] = []
    token = ""
    while True:
        page = await stubs.engagement.ListLocks(
            engagement_pb2.ListLocksRequest(page_size=1000, page_token=token)
        )
        locks += page.locks
        token = page.next_page_token
        if not token:
            return locks


async def _reservations(stubs: Stubs) -> dict[int, Any]:
    request = reservation_pb2.ListReservationsRequest(page_size=1000)
    page = await stubs.reservation.ListReservations(request)
    return {reservation.reservation_id: reservation for reservation in page.reservations}


class Records:
    """What the data file says, once the daemon has stopped."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            self.history = _by_token(
                connection, "SELECT token, outcome, ended_by, worker, request_id FROM engagements"
            )
            self.locks = _by_token(connection, "SELECT token, 0, 0, worker, request_id FROM locks")
            others = connection.execute(
                "SELECT worker, request_id FROM reservations UNION ALL SELECT worker, request_id FROM permits"
            ).fetchall()
        locks = [*self.history.values(), *self.locks.values()]
        self._requests = Counter([*((worker, request_id) for _, _, worker, request_id in locks), *others])

    def granted_twice(self) -> list[tuple[str, str]]:
        """Return the requests to which more than one thing was granted."""
        return [request for request, count in self._requests.items() if count > 1 and request[1]]

    def granted_though_refused(self, refused: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the requests that were refused, and yet have something."""
        return [request for request in refused if request in self._requests]

    def wrongly_ended(self, locks: Iterable[Held]) -> list[Held]:
        """Return the locks of which the file does not say what their holders were told."""
        return [held for held in locks if not self._is_right(held)]

    def _is_right(self, held: Held) -> bool:
        entry = self.history.get(held.id)
        if held.returned_at is not None:
            return entry is not None and entry[:2] == (held.outcome, 0) and held.id not in self.locks
        if held.ttl_s > 1:
            return entry is None and held.id in self.locks
        # Forgotten: expired into UNKNOWN, or about to.
        return (held.id in self.locks) if entry is None else entry[:2] == (3, 1)


def _by_token(connection: sqlite3.Connection, sql: str) -> dict[int, tuple[int, int, str, str]]:
    return {
        token: (outcome, ended_by, worker, request_id)
        for token, outcome, ended_by, worker, request_id in connection.execute(sql)
    }
