"""What the servicers stand on: the engine, and what few settings the wire needs of its own."""

from collections.abc import Collection
from typing import TypeVar

from msgspec import Struct

from coordd.core.errors import InvalidArgument
from coordd.core.machine import Command, Machine
from coordd.engine import Engine

Answer = TypeVar("Answer")


class Backend(Struct, kw_only=True):
    """What every servicer is given; settings may change while it serves.

    wait_ns_default: how long a wait lasts that does not say. history_ns: how far back the history is kept.
    """

    engine: Engine
    wait_ns_default: int
    history_ns: int
    version: str

    async def ask(self, command: Command, answer: type[Answer]) -> Answer:
        """Submit a command that has only one answer. Raises: CommandError, EngineError."""
        outcome = await self.engine.submit(command)
        if not isinstance(outcome, answer):
            raise TypeError(f"{type(command).__name__} was answered by {type(outcome).__name__}")
        return outcome


def check_kinds(machine: Machine, kinds: Collection[str]) -> None:
    """Raise InvalidArgument UNKNOWN_KIND if one of the kinds of engagement is not configured."""
    for kind in kinds:
        if kind not in machine.rules.kinds:
            raise InvalidArgument("UNKNOWN_KIND", f"kind {kind} is not configured", kind=kind)
