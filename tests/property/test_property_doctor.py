"""What a daemon writes is never wrong in the doctor's eyes, whatever has happened."""

import asyncio
from pathlib import Path
from typing import ClassVar

import pytest
from everything_monkey import EverythingMonkey, run

from coordd.core.records import Batch
from coordd.doctor import Gravity, examine
from coordd.store.sqlite import SqliteStore


class Examined(EverythingMonkey):
    """A monkey whose store is a file now and then, that the doctor looks at."""

    directory: ClassVar[Path]
    examined = 0

    def check_rows(self) -> None:
        super().check_rows()
        path = self.directory / f"{self.examined}.db"
        asyncio.run(_written(path, self))
        report = examine(path, self.now)
        bad = [found for found in report.findings if found.gravity is not Gravity.NOTE]
        assert not bad
        assert sum(report.records.values()) == sum(map(len, self.store.values()))
        type(self).examined += 1


async def _written(path: Path, monkey: EverythingMonkey) -> None:
    store = SqliteStore(path)
    await store.open(0)
    rows = {table: list(rows.values()) for table, rows in monkey.store.items()}
    await store.commit(
        Batch(sequence=1, instant=monkey.now, last_id=monkey.machine.last_id, puts=rows, deletes={})
    )
    await store.close()


@pytest.mark.parametrize("seed", range(1, 13, 2))
def test_nothing_is_wrong_with_what_a_daemon_writes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everything_monkey.EverythingMonkey", Examined)
    Examined.directory, Examined.examined = tmp_path, 0
    run(seed, 300)
    assert Examined.examined >= 1
