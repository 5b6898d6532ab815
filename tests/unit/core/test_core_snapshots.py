from core_desk import Desk

from coordd.core.commands import RequestLock
from coordd.core.limits import HOUR
from coordd.core.records import Table


def test_digest_knows_who_is_away(desk: Desk) -> None:
    desk.lock()
    waiter = desk.wait(RequestLock(item="a", kind="like", worker="w2", request_id="r", wait_ns=HOUR))
    before = desk.machine.digest()
    desk.leave(waiter)
    assert desk.machine.digest() != before


def test_store_fed_by_changes_holds_what_the_machine_holds(desk: Desk) -> None:
    desk.release(desk.lock("done", request_id="r1"))
    desk.lock(request_id="r2")
    desk.reserve(units=2)
    desk.report(desk.permit())
    desk.book(request_id="r3")
    desk.wait(RequestLock(item="a", kind="like", worker="w2", request_id="r4", wait_ns=HOUR))
    desk.commit()
    snapshot = desk.machine.snapshot()
    assert {table: sorted(rows.values()) for table, rows in desk.rows.items()} == snapshot
    desk.restart()
    assert {**desk.machine.snapshot(), Table.LOCKS: ()} == {**snapshot, Table.LOCKS: ()}
