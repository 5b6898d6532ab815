"""What most faults have in common: a fleet at work before, and nothing lost after."""

import asyncio
import signal

import crash_audit as audit
from crash_daemon import Daemon
from crash_rig import Fleet


async def work(daemon: Daemon, fleet: Fleet) -> None:
    """Start the daemon, and let the fleet work until some of it has been granted."""
    await daemon.start()
    fleet.connect(daemon.address)
    fleet.start()
    fleet.go_on()
    while len(fleet.journal.ids) < 20:
        fleet.check()
        await asyncio.sleep(0.01)


async def nothing_is_lost(daemon: Daemon, fleet: Fleet) -> None:
    """Start the daemon again, and see that all is there and goes on."""
    await daemon.start()
    fleet.connect(daemon.address)
    assert fleet.stubs is not None
    assert await audit.lost_after_restart(fleet.stubs, fleet.journal) == []
    told = len(fleet.journal.ids)
    fleet.go_on()
    while len(fleet.journal.ids) < told + 20:
        fleet.check()
        await asyncio.sleep(0.01)
    await fleet.stop()
    assert await daemon.end(signal.SIGTERM) == 0
    audit.check(fleet.journal)
    records = audit.Records(daemon.path)
    assert records.granted_twice() == []
    assert records.granted_though_refused(fleet.journal.refused) == []
    assert records.wrongly_ended(fleet.journal.locks) == []
    assert fleet.journal.repeats > 0
