"""What those who coordinate are told: the open escalations, then each one that is opened or closed.

Rules: nobody is told of a closing whose opening it was not told; one that reads too slowly is told how things
stand once it reads again, though perhaps not how each was decided.
"""

from collections.abc import AsyncGenerator

from coordd.core.machine import Machine
from coordd.core.outcomes import EscalationChanged
from coordd.core.records import Escalation
from coordd.engine import Engine, Event
from coordd.rpc import messages
from coordd.v1 import admin_pb2 as pb


class Board:
    """The escalations that one watcher believes to be open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._default = 0
        self._told: dict[int, Escalation] = {}

    async def changes(self) -> AsyncGenerator[pb.Escalation, None]:
        """Yield all that are open, and then whatever changes. Raises: EngineError."""
        async with self._engine.watch() as events:
            for message in await self._catch_up():
                yield message
            async for event in events:
                for message in await self._catch_up() if event.missed else []:
                    yield message
                told = self._tell(event)
                if told is not None:
                    yield told

    async def _catch_up(self) -> list[pb.Escalation]:
        default, escalations = await self._engine.read(open_escalations)
        self._default = default
        before, self._told = self._told, {escalation.id: escalation for escalation in escalations}
        closed = [
            self._message(gone, is_open=False) for each, gone in before.items() if each not in self._told
        ]
        opened = [self._message(new, is_open=True) for each, new in self._told.items() if each not in before]
        return closed + opened

    def _tell(self, event: Event) -> pb.Escalation | None:
        outcome = event.outcome
        if not isinstance(outcome, EscalationChanged):
            return None
        escalation, is_known = outcome.escalation, outcome.escalation.id in self._told
        if outcome.is_open == is_known:
            return None
        if outcome.is_open:
            self._told[escalation.id] = escalation
        else:
            del self._told[escalation.id]
        return self._message(escalation, is_open=outcome.is_open)

    def _message(self, escalation: Escalation, *, is_open: bool) -> pb.Escalation:
        return messages.escalation(escalation, self._engine.now(), self._default, is_open=is_open)


def open_escalations(machine: Machine, _: int) -> tuple[int, list[Escalation]]:
    """Return what holds where nobody decides, and all that are open, oldest first."""
    return machine.rules.escalation_default, machine.escalations()
