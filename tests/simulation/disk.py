"""The disk under the data file: real SQLite on real files, and what a crash or a fault leaves of them.

Owns: what is durable. Rules: what a finished transaction has synced is never lost; of one that a power cut
interrupts any sectors may be there and any may not, in the order of SQLite's own syncs: the log's header, the
log's frames, then the pages that a checkpoint copies into the file. Each call takes virtual time and is done
at one instant of it.
Must not know: what is written.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from coordd.store.threads import Threads
from simulation.loop import SECOND, Loop
from simulation.mix import DiskMix

Result = TypeVar("Result")
Image = dict[str, bytes]

_SECTOR: Final = 512
_WAL_HEADER: Final = 32
# The index of the log is memory that the processes share; no power cut leaves any.
_DURABLE: Final = ("", "-wal", "-journal")


class Files:
    """The data file and what SQLite keeps beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def image(self) -> Image:
        """Return all that is there, by suffix."""
        return {suffix: each.read_bytes() for suffix in _DURABLE if (each := self._file(suffix)).exists()}

    def restore(self, image: Image) -> None:
        """Let there be exactly what the image says."""
        self._file("-shm").unlink(missing_ok=True)
        for suffix in _DURABLE:
            if suffix in image:
                self._file(suffix).write_bytes(image[suffix])
            else:
                self._file(suffix).unlink(missing_ok=True)

    def _file(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def torn(before: Image, after: Image, random: Random) -> Image:
    """Return what a power cut during the transaction between two images may have left.

    Args: before, after: a database in WAL mode with nothing left to sync.
    """
    old_file, new_file = before[""], after[""]
    old_log, new_log = before["-wal"], after.get("-wal")
    if new_log is None or (old_file != new_file and random.random() < 0.5):
        # The log is synced; a checkpoint was under way. Not before it is through may the log go.
        return before | after | {"": _mixed(old_file, new_file, random)}
    if old_log[:_WAL_HEADER] != new_log[:_WAL_HEADER]:
        # A log that begins anew has its header synced before anything else.
        old_log = new_log[:_WAL_HEADER] + old_log[_WAL_HEADER:]
    return before | {"-wal": _mixed(old_log, new_log, random)}


def _mixed(old: bytes, new: bytes, random: Random) -> bytes:
    """Return `old` of which some sectors are written as in `new`, and perhaps one only to a part."""
    mixed = bytearray(old)
    length = random.choice((len(new), len(new), random.randrange(len(new) + 1)))
    chance = random.choice((0.0, 0.5, 0.9, 1.0, 1.0))
    torn_start = random.randrange(2 * len(new) + 1) // _SECTOR * _SECTOR
    for start in range(0, length, _SECTOR):
        before, sector = old[start : start + _SECTOR], new[start : start + _SECTOR]
        if before != sector and random.random() < chance:
            written = _garbled(before, sector, random) if start == torn_start else sector
            mixed.extend(b"\0" * (start - len(mixed)))
            mixed[start : start + len(written)] = written
    return bytes(mixed)


def _garbled(old: bytes, new: bytes, random: Random) -> bytes:
    """Return a sector that was being written. What is beside the bytes that were to change is safe.

    That is what SQLite takes for granted of a disk ("powersafe overwrite"), and disks promise.
    """
    first = next(index for index in range(len(new)) if old[index : index + 1] != new[index : index + 1])
    cut = random.randrange(first, len(new))
    return new[:cut] + random.randbytes(len(new) - cut)


class Disk(Threads):
    """What one daemon's store has for threads: virtual time, and the faults that are drawn for it.

    Args: on_power_cut: called with what the disk holds when the power goes in the middle of a transaction.
    """

    def __init__(
        self,
        *,
        files: Files,
        loop: Loop,
        mix: DiskMix,
        random: Random,
        note: Callable[[str], None],
        on_power_cut: Callable[[Image], None],
    ) -> None:
        self._files = files
        self.loop = loop
        self._mix = mix
        self.pages_per_checkpoint = mix.pages_per_checkpoint
        self._random = random
        self._note = note
        self._on_power_cut = on_power_cut
        self._connections: list[VirtualConnection] = []
        self.is_faulty = True
        # Statements until one fails; 0: none does.
        self._statements_left = random.randint(0, mix.statements_before_failure)
        self.has_failed = False

    async def call(self, function: Callable[[], Result]) -> Result:
        """See Threads."""
        connection = VirtualConnection(self)
        return await connection.run(lambda _: function())

    async def connect(self, connector: Callable[[], sqlite3.Connection]) -> "VirtualConnection":
        """See Threads."""
        # The one that writes is opened first.
        connection = VirtualConnection(self, is_writer=not self._connections)
        self._connections.append(connection)
        await connection.run(lambda _: connection.open(connector()))
        return connection

    def abandon(self, image: Image | None) -> None:
        """Let go of what is on the disk, or of what a power cut has left: its process is dead."""
        if image is None:
            image = self._files.image()
        for connection in self._connections:
            connection.abandon()
        # The last one that closed has folded the log into the file.
        self._files.restore(image)

    # -- for its connections ---------------------------------------------------------------------------------

    def delays_ns(self) -> tuple[int, int]:
        """Return how long a call takes before it is done, and after."""
        random, mix = self._random, self._mix
        mean_ns = mix.latency_ns
        if self.is_faulty and random.random() < mix.stall_rate:
            self._note("stall")
            mean_ns = random.randrange(mix.stall_ns_max)
        total_ns = round(random.expovariate(1.0) * mean_ns)
        before_ns = round(total_ns * random.random())
        return before_ns, total_ns - before_ns

    def transact(self, function: Callable[[Any], Result], connection: "Faulty") -> Result:
        """Do what may write. The power may go meanwhile."""
        if not (self.is_faulty and self._random.random() < self._mix.power_cut_rate):
            return function(connection)
        before = self._files.image()
        result = function(connection)
        after = self._files.image()
        if before != after and "" in before and before.get("-wal"):
            self._on_power_cut(torn(before, after, self._random))
        return result

    def check(self, raw: sqlite3.Connection) -> None:
        """Raise what a disk says that fails, when it is time for it."""
        if not self.is_faulty or not self._statements_left:
            return
        self._statements_left -= 1
        if self._statements_left:
            return
        self.has_failed = True
        if self._random.random() < 0.5:
            self._note("disk full")
            raw.execute("PRAGMA max_page_count = 1")
        else:
            self._note("disk error")
            raise sqlite3.OperationalError("disk I/O error")


class VirtualConnection:
    """A connection that is used in virtual time, one thing after the other."""

    def __init__(self, disk: Disk, *, is_writer: bool = False) -> None:
        self._disk = disk
        self._raw: sqlite3.Connection | None = None
        self._faulty: Any = None
        self._is_writer = is_writer
        self._queue: deque[tuple[Callable[[Any], Any], Any]] = deque()

    def open(self, raw: sqlite3.Connection) -> None:
        """Begin to use a real one."""
        self._raw = raw
        self._faulty = Faulty(raw, self._disk)
        if self._is_writer:
            raw.execute(f"PRAGMA wal_autocheckpoint = {self._disk.pages_per_checkpoint}")

    async def run(self, function: Callable[[Any], Result]) -> Result:
        """See coordd.store.threads.Connection."""
        done = self._disk.loop.create_future()
        self._queue.append((function, done))
        if len(self._queue) == 1:
            self._begin()
        result: Result = await done
        return result

    async def close(self) -> None:
        """See coordd.store.threads.Connection."""
        await self.run(lambda _: self.abandon())

    def abandon(self) -> None:
        """Close it at once."""
        if self._raw is not None:
            self._raw.close()

    def _begin(self) -> None:
        before_ns, after_ns = self._disk.delays_ns()
        self._disk.loop.call_later(before_ns / SECOND, self._do, after_ns)

    def _do(self, after_ns: int) -> None:
        function, _ = self._queue[0]
        result: Any = None
        error: Exception | None = None
        try:
            if self._is_writer:
                result = self._disk.transact(function, self._faulty)
            else:
                result = function(self._faulty)
        except Exception as raised:  # noqa: BLE001  -- whoever asked is told
            error = raised
        self._disk.loop.call_later(after_ns / SECOND, self._done, result, error)

    def _done(self, result: Any, error: Exception | None) -> None:
        _, done = self._queue.popleft()
        if self._queue:
            self._begin()
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)


class Faulty:
    """A real connection on a disk that may fail."""

    def __init__(self, raw: sqlite3.Connection, disk: Disk) -> None:
        self._raw = raw
        self._disk = disk

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Run a statement. What begins or undoes a transaction writes nothing, and does not fail.

        A COMMIT that fails may have been done: nobody knows.
        """
        if not self._raw.in_transaction or sql == "ROLLBACK":
            return self._raw.execute(sql, *parameters)
        if sql != "COMMIT":
            self._disk.check(self._raw)
            return self._raw.execute(sql, *parameters)
        done = self._raw.execute(sql)
        self._disk.check(self._raw)
        return done

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        """Run a statement for each of several rows."""
        self._disk.check(self._raw)
        return self._raw.executemany(sql, rows)

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Run a migration."""
        return self._raw.executescript(script)
