from core_desk import Desk

from coordd.core.changes import Changes
from coordd.core.records import Cell, EndedRequest, HoldTime, Table


def test_record_changed_often_is_one_row_and_says_what_memory_says_when_the_batch_is_closed() -> None:
    changes, seen = Changes(), HoldTime("lock/reply", 1, 1)
    for mean_ns in range(1_000):
        seen.mean_ns = mean_ns
        changes.of[Table.HOLD_TIMES][seen.subject] = seen
    puts, deletes = changes.take()
    assert puts == {Table.HOLD_TIMES: [("lock/reply", 999, 1)]}
    assert deletes == {Table.HOLD_TIMES: []}


def test_record_that_came_and_went_is_one_delete() -> None:
    changes = Changes()
    changes.of[Table.HOLD_TIMES]["a"] = HoldTime("a", 1, 1)
    changes.of[Table.HOLD_TIMES]["a"] = None
    assert changes.take() == ({Table.HOLD_TIMES: []}, {Table.HOLD_TIMES: [("a",)]})


def test_compound_key_is_deleted_as_it_is() -> None:
    changes = Changes()
    changes.of[Table.ENDED_REQUESTS][("w1", "r1")] = EndedRequest("w1", "r1", 5)
    changes.of[Table.ENDED_REQUESTS][("w1", "r2")] = None
    puts, deletes = changes.take()
    assert puts[Table.ENDED_REQUESTS] == [("w1", "r1", 5)]
    assert deletes[Table.ENDED_REQUESTS] == [("w1", "r2")]


def test_empty_cell_is_deleted_and_a_charged_one_written() -> None:
    changes = Changes()
    empty, charged = Cell("limit/e", 10, 1, "w1"), Cell("limit/e", 10, 2, "w1", 3)
    changes.cells |= {empty: None, charged: None}
    puts, deletes = changes.take()
    assert puts[Table.CELLS] == [("limit/e", 10, 2, "w1", 3, 0, 0, 0)]
    assert deletes[Table.CELLS] == [("limit/e", 10, 1, "w1")]


def test_taking_begins_anew() -> None:
    changes = Changes()
    assert not changes
    changes.of[Table.LOCKS][1] = None
    assert changes
    changes.take()
    changes.cells[Cell("limit/e", 10, 1, "w1")] = None
    assert changes
    changes.take()
    assert not changes
    assert changes.take() == ({}, {})


def test_length_counts_changed_records() -> None:
    desk = Desk()
    desk.commit()
    desk.permit()
    # The permit, and its cell in each of the two windows.
    assert desk.machine.changed == 3
