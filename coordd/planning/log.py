"""What has happened in a run: the facts that figures are made from.

Owns: the facts. Must not know: how they came about, or what is made of them.
"""

from typing import TypeAlias

from msgspec import Struct, field

from coordd.core.queues import QueueKey
from coordd.planning.fleet import Attempt

__all__ = ["Log", "Use"]

# (instant, by how much)
Changes: TypeAlias = list[tuple[int, int]]


class Use(Struct, frozen=True, gc=False):
    """Permits or units, from their grant until the report or release that ended them, ns.

    `is_used` false: they were given back unused.
    """

    worker: str
    count: int
    begun_at: int
    ended_at: int
    is_used: bool


class Log(Struct, kw_only=True):
    """What has happened from `begun_at` to `ended_at`, ns.

    `attempts`: all of them, ended or not, in order of demand.  `uses`: of each limit and pool, by its queue's
    key.  `waiting`: changes of how many wait in all.  `queues`: and in the queue of each limit and pool that
    the trace wants.
    """

    attempts: list[Attempt]
    begun_at: int
    ended_at: int
    uses: dict[QueueKey, list[Use]] = field(default_factory=dict)
    waiting: Changes = field(default_factory=list)
    queues: dict[QueueKey, Changes] = field(default_factory=dict)
    is_complete: bool = False
