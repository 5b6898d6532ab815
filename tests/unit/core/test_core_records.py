from typing import Any

import pytest
from core_desk import Desk

from coordd.core.commands import RequestLock, UpdatePool
from coordd.core.limits import MINUTE
from coordd.core.records import KEY_COLUMNS, RECORD_TYPES, Table

# Those that hold something below.
FILLED = tuple(Table)[: Table.ENDED_REQUESTS + 1]


@pytest.fixture
def full(desk: Desk) -> Desk:
    """A machine with something in every table."""
    desk.release(desk.lock("done", request_id="r1"))
    desk.lock(request_id="r2")
    desk.wait(RequestLock(item="a", kind="like", worker="w2", request_id="r3", wait_ns=MINUTE))
    desk.reserve()
    desk.permit()
    desk.book()
    desk.do(UpdatePool(name="conns", capacity=5))
    return desk


@pytest.mark.parametrize("table", FILLED)
def test_a_row_read_back_makes_its_record_by_position(full: Desk, table: Table) -> None:
    rows = full.machine.snapshot()[table]
    assert rows
    for row in rows:
        record: Any = RECORD_TYPES[table](*row)
        assert record.row() == row


@pytest.mark.parametrize("table", FILLED)
def test_leading_columns_are_the_key(full: Desk, table: Table) -> None:
    rows = full.machine.snapshot()[table]
    assert len({row[: KEY_COLUMNS[table]] for row in rows}) == len(rows)
    full.commit()
    assert sorted(full.rows[table].values()) == rows
