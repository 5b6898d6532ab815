"""Which records have changed since the last batch was closed.

Owns: the set of changed records, by table and key; a record changed a thousand times is one row, and one that
came and went is one delete. Rows are made when the batch is closed, so that they say what memory says then.
Must not know: what the records mean, or what becomes of the batch.
"""

from collections.abc import Hashable

from coordd.core.records import KEY_COLUMNS, Cell, Key, Record, Row, Table


class Changes:
    """Changed records.

    `of[table]` maps a key to the record to write, or to None to delete; `cells` is an ordered set.
    """

    __slots__ = ("cells", "of")

    def __init__(self) -> None:
        self.of: dict[Table, dict[Hashable, Record | None]] = {table: {} for table in Table}
        # Cells are hashed by identity: a key of four parts for every charge would cost more than the charge.
        self.cells: dict[Cell, None] = {}

    def __bool__(self) -> bool:
        """Whether anything has changed."""
        return bool(self.cells) or any(self.of.values())

    def __len__(self) -> int:
        """Return how many records have changed."""
        return len(self.cells) + sum(map(len, self.of.values()))

    def take(self) -> tuple[dict[Table, list[Row]], dict[Table, list[Key]]]:
        """Return the rows to write and the keys to delete, and begin anew."""
        puts: dict[Table, list[Row]] = {}
        deletes: dict[Table, list[Key]] = {}
        for table, changed in self.of.items():
            if changed:
                _sort_out(table, changed, puts, deletes)
                changed.clear()
        if self.cells:
            puts[Table.CELLS] = [cell.row() for cell in self.cells if cell.count]
            deletes[Table.CELLS] = [cell.key() for cell in self.cells if not cell.count]
            self.cells.clear()
        return puts, deletes


def _sort_out(
    table: Table,
    changed: dict[Hashable, Record | None],
    puts: dict[Table, list[Row]],
    deletes: dict[Table, list[Key]],
) -> None:
    puts[table] = [record.row() for record in changed.values() if record is not None]
    gone = [key for key, record in changed.items() if record is None]
    is_compound = KEY_COLUMNS[table] > 1
    deletes[table] = [key if is_compound else (key,) for key in gone]  # type: ignore[misc]
