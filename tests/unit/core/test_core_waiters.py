import pytest

from coordd.core.commands import RequestLock, ReserveResource, TakePermit, WaitableCommand
from coordd.core.records import WaiterRow
from coordd.core.rules import MEDIUM
from coordd.core.waiters import Waiter


@pytest.mark.parametrize(
    "command",
    [
        RequestLock(item="ünï\ud7ff", kind="like", worker="w1", quality=0.1, request_id="r", wait_ns=9),
        ReserveResource(type="db", worker="w1", units=2, request_id="r", wait_ns=9),
        TakePermit(endpoint="e", worker="w1", count=2, request_id="r", wait_ns=9),
    ],
)
def test_stored_waiter_comes_back_as_it_was(command: WaitableCommand) -> None:
    waiter = Waiter(7, command, 3, 4, 5)
    row = waiter.row()
    back = Waiter.of(WaiterRow(*row))  # type: ignore[arg-type]
    assert back.row() == row
    assert back.command == command
    assert back.rank == waiter.rank == (3, 7, MEDIUM, "w1")
    assert (back.enqueued_at, back.times_out_at, back.away_until, back.key) == (4, 5, 0, ())
