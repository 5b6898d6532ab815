"""A coordination worker: decides conflicts by itself, by a rule of a few lines.

    python -m examples.coordinator --address 127.0.0.1:7651

Its rule: what is critical takes an item from whoever has it; what has waited for long goes first; the rest
waits. Several may run at once: the first decision counts, and the others hear that they were late.
"""

import argparse
import asyncio
import contextlib

from coordd_client import (
    Client,
    Decision,
    Escalation,
    EscalationClosed,
    NotPreemptible,
    Priority,
)

LONG_S = 60.0


def judge(escalation: Escalation) -> Decision:
    """Return what becomes of a conflict."""
    if escalation.priority is Priority.CRITICAL and escalation.holder_id:
        return Decision.PREEMPT
    return Decision.GRANT if escalation.waited_s >= LONG_S else Decision.WAIT


async def coordinate(client: Client) -> None:
    """Decide every escalation there is and will be."""
    async with contextlib.aclosing(client.watch_escalations()) as escalations:
        async for escalation in escalations:
            if escalation.is_open:
                await decide(client, escalation, judge(escalation))


async def decide(client: Client, escalation: Escalation, decision: Decision) -> None:
    """Decide one escalation, unless somebody was faster; let the waiter go first if nothing can be taken."""
    try:
        await client.resolve_escalation(escalation.escalation_id, decision, reason="by rule")
    except NotPreemptible:
        await decide(client, escalation, Decision.GRANT)
    except EscalationClosed:
        return
    print(f"{decision.name.lower()}: {escalation.worker} on {escalation.subject}")


async def main() -> None:
    """Run until Ctrl-C."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--address", default="127.0.0.1:7651")
    arguments.add_argument("--worker", default="coordinator")
    given = arguments.parse_args()
    async with Client(given.address, worker=given.worker) as client:
        await coordinate(client)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
