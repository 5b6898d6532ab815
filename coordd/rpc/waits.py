"""The streams of waits, the same for locks, reservations and permits.

Rules: a grant counts as told once its message was handed to the transport, which the caller says by asking
for more; if it closes the stream instead, the grant goes back at once. Must not know: which component waits,
grpc.
"""

from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from coordd.core.commands import WaitableCommand
from coordd.core.outcomes import Granted
from coordd.engine import Engine
from coordd.rpc import messages

Message = TypeVar("Message")


async def stream(
    engine: Engine, command: WaitableCommand, response: Callable[..., Message]
) -> AsyncGenerator[Message, None]:
    """Wait as `command` says; yield a `response` for each change of place, and last for the grant or refusal.

    Raises: CommandError, EngineError.
    """
    async with engine.wait(command) as wait:
        async for event in wait:
            try:
                yield response(**messages.answer(event, engine.now()))
            except BaseException:
                # Thrown in at the `yield` when the message could not be sent.
                if isinstance(event, Granted):
                    wait.undelivered()
                raise
