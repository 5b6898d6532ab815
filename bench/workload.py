"""What the core is asked in the measurements: rules, and commands with names of their own.

Rules: every command has its own strings, as when each came in a message of its own; nothing is interned.
"""

from collections.abc import Iterator
from typing import Final

from coordd.core.commands import ReleaseLock, RequestLock, TakePermit
from coordd.core.limits import DAY, HOUR, MINUTE, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Granted, Outcome
from coordd.core.records import Lock
from coordd.core.rules import KindRule, LimitRule, Rules, TypeRule

START: Final = 1_700_000_000 * SECOND
WORKERS: Final = 500
ENDPOINTS: Final = 10
# No minimum interval, and the default one.
PLAIN_KIND: Final = "analysis"
SPACED_KIND: Final = "reply"

_AMPLE: Final = LimitRule(windows={15 * MINUTE: 10**9, HOUR: 10**9, DAY: 10**9})
# As an upstream's real ones, so that the windows are full most of the time.
_TIGHT: Final = LimitRule(windows={15 * MINUTE: 180, HOUR: 720, DAY: 17_280})
RULES: Final = Rules(
    kinds={PLAIN_KIND: KindRule(), SPACED_KIND: KindRule(min_interval_ns=DAY)},
    types={"db_connection": TypeRule()},
    pools={},
    limits={f"ample-{index}": _AMPLE for index in range(ENDPOINTS)} | {"tight": _TIGHT},
)


def new_machine() -> Machine:
    """Return an empty machine that was started at `START`."""
    machine = Machine(RULES)
    machine.recover({}, 0, START)
    return machine


def lock_requests(start: int, count: int, *, kind: str, has_ids: bool) -> Iterator[RequestLock]:
    """Yield `count` requests, each for an item of its own."""
    for index in range(start, start + count):
        yield RequestLock(
            item=f"tweet:{1_700_000_000_000_000_000 + index}",
            kind=kind,
            worker=f"worker-{index % WORKERS}",
            request_id=request_id(index) if has_ids else "",
        )


def permit_requests(start: int, count: int, *, endpoint: str, has_ids: bool) -> Iterator[TakePermit]:
    """Yield `count` requests for one permit each. `endpoint` "ample": every ample one in turn."""
    for index in range(start, start + count):
        yield TakePermit(
            endpoint=endpoint if endpoint == "tight" else f"ample-{index % ENDPOINTS}",
            worker=f"worker-{index * 7 % WORKERS}",
            request_id=request_id(index) if has_ids else "",
        )


def request_id(index: int) -> str:
    """Return a request id as long as a UUID."""
    return f"00000000-0000-4000-8000-{index:012d}"


def release(outcome: Outcome) -> ReleaseLock:
    """Return the release of the lock that `outcome` grants."""
    assert isinstance(outcome, Granted)  # noqa: S101  -- else the measurement is of something else
    assert isinstance(outcome.grant, Lock)  # noqa: S101
    held = outcome.grant
    return ReleaseLock(item=held.item, worker=held.worker, token=held.token, outcome=1)
