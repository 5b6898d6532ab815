"""What most faults have in common: a fleet at work before, and nothing lost after."""

import asyncio
import signal
from collections.abc import Callable

import crash_audit as audit
from crash_daemon import Daemon
from crash_history import engaged, held, settled, violations
from crash_rig import Fleet


async def work(daemon: Daemon, fleet: Fleet) -> None:
    """Start the daemon, and let the fleet work until some of it has been granted."""
    await daemon.start()
    fleet.connect(daemon.address)
    fleet.start()
    fleet.go_on()
    await more(fleet)


async def until(condition: Callable[[], bool]) -> None:
    """Look until it is so, at what nobody tells us of: another process."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def more(fleet: Fleet) -> None:
    """Let the fleet work until some more has been granted."""
    told = len(fleet.journal.ids)
    while len(fleet.journal.ids) < told + 20:
        fleet.check()
        await asyncio.sleep(0.01)


async def nothing_is_lost(daemon: Daemon, fleet: Fleet) -> None:
    """Start the daemon again, and see that all is there and goes on."""
    await daemon.start()
    fleet.connect(daemon.address)
    assert fleet.stubs is not None
    assert await audit.lost_after_restart(fleet.stubs, fleet.journal) == []
    fleet.go_on()
    await more(fleet)
    await all_is_well(daemon, fleet)
    assert fleet.journal.repeats > 0


async def all_is_well(daemon: Daemon, fleet: Fleet) -> None:
    """End the work and the daemon, and see that what was told, and what the file says, are right."""
    await fleet.stop()
    instant = await settled(fleet.stubs)
    assert await daemon.end(signal.SIGTERM) == 0
    fleet.recorder.add(engaged(daemon.path, *instant))
    fleet.recorder.add(held(daemon.path))
    found = violations(fleet.recorder, daemon)
    assert not found, "\n".join(map(str, found))
    audit.check(fleet.journal)
    records = audit.Records(daemon.path)
    assert records.granted_twice() == []
    assert records.granted_though_refused(fleet.journal.refused) == []
    assert records.wrongly_ended(fleet.journal.locks) == []
