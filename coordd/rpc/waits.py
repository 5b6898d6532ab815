"""The streams of waits, the same for locks, reservations and permits.

Rules: a grant counts as told once its message is handed to the transport. A client may close the stream as
soon as it has read it, and that looks just like one that went before: so what happens after tells nothing,
and taking the grant back then would take it from a worker that holds it.
Must not know: which component waits, grpc.
"""

from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from coordd.core.commands import WaitableCommand
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
            yield response(**messages.answer(event, engine.now()))
