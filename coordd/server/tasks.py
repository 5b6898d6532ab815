"""Waiting for whichever comes first."""

import asyncio
from typing import Any


async def first(*awaitables: Any) -> None:
    """Return when one of them has ended; cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
