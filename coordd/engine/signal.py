"""A wake-up call for one task: set any number of times, waits once."""

import asyncio


class Signal:
    """Like `asyncio.Event`, for one task, and cleared by waiting."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the task, now or when it next waits."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until `set` has been called since the last `wait`."""
        await self._event.wait()
        self._event.clear()
