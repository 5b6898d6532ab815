"""What the state machine can be asked. Frozen values; every field checked for form before it is made.

`wait_ns` 0 means: answer now. Any other value means: if it can't be granted, wait that long. `ttl_ns` 0
means: the default of the kind or type. Names and numbers are within `limits`; whether they are *known* is the
machine's to say.
"""

from collections.abc import Mapping
from typing import ClassVar

from msgspec import Struct

from coordd.core.rules import MEDIUM


class RequestLock(Struct, frozen=True, kw_only=True, gc=False):
    """Take the exclusive right to act on `item`."""

    item: str
    kind: str
    worker: str
    ttl_ns: int = 0
    priority: int = MEDIUM
    quality: float = 0.0
    request_id: str = ""
    wait_ns: int = 0
    on_conflict: int = 0


class RenewLock(Struct, frozen=True, kw_only=True, gc=False):
    """Hold the lock `token` for `ttl_ns` from now."""

    item: str
    worker: str
    token: int
    ttl_ns: int = 0


class ReleaseLock(Struct, frozen=True, kw_only=True, gc=False):
    """Give the lock `token` back and write `outcome` to the history."""

    item: str
    worker: str
    token: int
    outcome: int


class ReserveResource(Struct, frozen=True, kw_only=True, gc=False):
    """Hold `resource_id` of `type`, or `units` of its pool, or both. `units` 0: 1 where there is a pool."""

    quality: ClassVar[float] = 0.0
    type: str
    worker: str
    resource_id: str = ""
    units: int = 0
    ttl_ns: int = 0
    priority: int = MEDIUM
    request_id: str = ""
    wait_ns: int = 0
    on_conflict: int = 0


class RenewReservation(Struct, frozen=True, kw_only=True, gc=False):
    """Hold the reservation `id` for `ttl_ns` from now."""

    id: int
    worker: str
    ttl_ns: int = 0


class ReleaseResource(Struct, frozen=True, kw_only=True, gc=False):
    """Give the reservation `id` back; of a refilling pool's units, `unused_units` were not used.

    `result`: 0 not said, 1 the work went well, 2 its resource is overloaded. `latency_ns` 0: not said.
    """

    id: int
    worker: str
    unused_units: int = 0
    result: int = 0
    latency_ns: int = 0


class TakePermit(Struct, frozen=True, kw_only=True, gc=False):
    """Take `count` permits of `endpoint` in every window, or claim the booking `booking_id`."""

    quality: ClassVar[float] = 0.0
    endpoint: str
    worker: str
    count: int = 1
    priority: int = MEDIUM
    request_id: str = ""
    booking_id: int = 0
    wait_ns: int = 0


class RecordUsage(Struct, frozen=True, kw_only=True):
    """Settle the permit `id`: sent or not, and what upstream answered (`status_code` 0: nothing)."""

    endpoint: str
    worker: str
    id: int
    is_sent: bool
    is_success: bool
    status_code: int = 0
    headers: tuple[tuple[str, str], ...] = ()


class ScheduleRequest(Struct, frozen=True, kw_only=True, gc=False):
    """Book the earliest time, at least `not_before_ns` from now, at which `count` calls can be made."""

    quality: ClassVar[float] = 0.0
    endpoint: str
    worker: str
    count: int = 1
    priority: int = MEDIUM
    request_id: str = ""
    not_before_ns: int = 0


class CancelSchedule(Struct, frozen=True, kw_only=True, gc=False):
    """Give the booking `id` back."""

    id: int
    worker: str


class LeaveWait(Struct, frozen=True, kw_only=True, gc=False):
    """The stream of the waiter `id` is gone: it is away if it has a request id, else out."""

    id: int


class ForceRelease(Struct, frozen=True, kw_only=True, gc=False):
    """Take the lock, reservation or booking `id` from its holder."""

    id: int
    reason: str


class UpdatePool(Struct, frozen=True, kw_only=True):
    """Change a pool's `capacity` (0: leave it) or its windows (length in ns -> units).

    `is_unpinned`: let it adapt again instead.
    """

    name: str
    capacity: int = 0
    windows: Mapping[int, int] = {}
    is_unpinned: bool = False


class UpdateLimit(Struct, frozen=True, kw_only=True):
    """Change an endpoint's windows (length in ns -> permits)."""

    endpoint: str
    windows: Mapping[int, int]


class NotEngaged(Struct, frozen=True, kw_only=True, gc=False):
    """A condition: nobody has engaged `item` in any of `kinds` (none: any) for the last `within_ns`."""

    item: str
    kinds: tuple[str, ...] = ()
    within_ns: int


class AcquireBundle(Struct, frozen=True, kw_only=True, gc=False):
    """Take all of the claims, or none. Each claim has the bundle's worker, priority and quality."""

    worker: str
    locks: tuple[RequestLock, ...] = ()
    reservations: tuple[ReserveResource, ...] = ()
    permits: tuple[TakePermit, ...] = ()
    not_engaged: tuple[NotEngaged, ...] = ()
    priority: int = MEDIUM
    quality: float = 0.0
    request_id: str = ""
    wait_ns: int = 0
    on_conflict: int = 0


class RenewBundle(Struct, frozen=True, kw_only=True, gc=False):
    """Hold every lease of the bundle `id` for its own time to live from now."""

    id: int
    worker: str


class ReleaseBundle(Struct, frozen=True, kw_only=True, gc=False):
    """Give all of the bundle `id` back.

    `outcomes`: of single locks by token; `outcome`: of the others. `usages`: what became of its permits.
    `result` and `latency_ns`: of the work under its reservations, as in ReleaseResource.
    """

    id: int
    worker: str
    outcome: int = 0
    outcomes: Mapping[int, int] = {}
    usages: tuple[RecordUsage, ...] = ()
    result: int = 0
    latency_ns: int = 0


class OpenSession(Struct, frozen=True, kw_only=True, gc=False):
    """Say that a worker is there, and resume its session `session_id` if that still lives. 0: begin anew.

    `weight_milli` 0: as configured; `labels`: JSON; `ttl_ns` 0: the default.
    """

    worker: str
    session_id: int = 0
    worker_class: str = ""
    weight_milli: int = 0
    labels: str = "{}"
    ttl_ns: int = 0


class KeepSession(Struct, frozen=True, kw_only=True, gc=False):
    """Keep the session `id` of a worker, and renew every lease taken in it."""

    worker: str
    id: int


class CloseSession(Struct, frozen=True, kw_only=True, gc=False):
    """End the session `id` of a worker, and give back all that was taken in it."""

    worker: str
    id: int


class ResolveEscalation(Struct, frozen=True, kw_only=True, gc=False):
    """Decide the escalation `id`; numbers of decisions as in the protos."""

    id: int
    decision: int
    decided_by: str
    reason: str = ""


WaitableCommand = RequestLock | ReserveResource | TakePermit | AcquireBundle
