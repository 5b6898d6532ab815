"""Somebody who waits: the durable part of a wait, and its place.

Owns: what a wait remembers. Must not know: queues, or how anything is granted.
"""

from typing import Final

import msgspec
from msgspec import Struct

from coordd.core.commands import AcquireBundle, RequestLock, ReserveResource, TakePermit, WaitableCommand
from coordd.core.queues import QueueKey, Rank
from coordd.core.records import Row, WaiterRow

_COMMANDS: Final[dict[str, type[WaitableCommand]]] = {
    command.__name__: command for command in (RequestLock, ReserveResource, TakePermit, AcquireBundle)
}


class Waiter:
    """Somebody who waits. `key`: the queue, () while away. `away_until`: 0 while there.

    `escalate_at`: when somebody is asked about it, 0: never, or somebody is. `promised_at`: when it was told
    that it would be served, 0: it was not, or has been away since.
    """

    __slots__ = (
        "away_until",
        "command",
        "enqueued_at",
        "escalate_at",
        "id",
        "key",
        "order_ns",
        "promised_at",
        "scheduled",
        "times_out_at",
    )

    def __init__(
        self, id: int, command: WaitableCommand, order_ns: int, enqueued_at: int, times_out_at: int
    ) -> None:
        self.id = id
        self.command = command
        self.order_ns = order_ns
        self.enqueued_at = enqueued_at
        self.times_out_at = times_out_at
        self.escalate_at = 0
        self.away_until = 0
        self.key: QueueKey = ()
        self.promised_at = 0
        self.scheduled = 0

    @property
    def rank(self) -> Rank:
        """Who goes first: the smaller."""
        return (self.order_ns, self.id, self.command.priority, self.command.worker)

    def row(self) -> Row:
        """See `Record.row`."""
        command = self.command
        return WaiterRow(
            id=self.id,
            order_ns=self.order_ns,
            enqueued_at=self.enqueued_at,
            times_out_at=self.times_out_at,
            worker=command.worker,
            request_id=command.request_id,
            component=type(command).__name__,
            command=msgspec.json.encode(command).decode(),
            escalate_at=self.escalate_at,
        ).row()

    @classmethod
    def of(cls, row: WaiterRow) -> "Waiter":
        """Return the waiter that was stored as `row`."""
        command = msgspec.json.decode(row.command, type=_COMMANDS[row.component])
        waiter = cls(row.id, command, row.order_ns, row.enqueued_at, row.times_out_at)
        waiter.escalate_at = row.escalate_at
        return waiter


class ReturnGrant(Struct, frozen=True, kw_only=True):
    """The command to undo the grant `id`, since nobody could be told of it.

    The `waiter` it was for, if any, has its place back, away, where it has a request id to come back with.
    """

    id: int
    waiter: Waiter | None
