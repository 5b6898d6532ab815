"""What all simulated workers have in common: how they ask, ask again, and give up.

Rules: a worker repeats a call whose answer it never got with the same request id, as the contract wants, or
gives it up; it believes what was acknowledged, and nothing else. It does not ask twice at once, but for a
hedge: the same request on two connections.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from simulation.history import Record, close
from simulation.loop import SECOND, Loop, Process
from simulation.mix import Mix
from simulation.upstream import Upstream
from simulation.wire import CallFailed, Channel, Wire

# Longer than anything that is waited for.
_CALM_S: Final = 4000


def length(seconds: float) -> Duration:
    """Return a Duration."""
    ns = round(seconds * SECOND)
    return Duration(seconds=ns // SECOND, nanos=ns % SECOND)


class World:
    """What every worker is given. `is_calm`: nothing goes wrong any more, and nobody begins anything new."""

    def __init__(self, loop: Loop, wire: Wire, record: Record, upstream: Upstream, mix: Mix) -> None:
        self.loop = loop
        self.wire = wire
        self.record = record
        self.upstream = upstream
        self.mix = mix
        self.is_calm = False
        self.calm = asyncio.Event()


class Worker:
    """One worker, with a process, a connection and a will of its own. `work` does one thing."""

    def __init__(self, world: World, name: str, generation: int, random: Random) -> None:
        self.world = world
        self.name = name
        self._generation = generation
        self.random = random
        self.work_mix = world.mix.work
        self.process = Process(name)
        self.channel = Channel(world.wire, self.process)
        self._other_channel = Channel(world.wire, self.process)
        self._requests = 0
        # When the daemon made the last answer: only a simulation knows.
        self.made_ns = 0

    async def run(self) -> None:
        """Work until all is calm."""
        while not self.world.is_calm:
            await self.work()
            await self.pause(self.work_mix.think_s)

    def die(self) -> None:
        """End where it stands; its connections are closed for it."""
        self.process.is_dead = True
        self.channel.close()
        self._other_channel.close()

    def patience_s(self, wait_s: float) -> float:
        """Return how long a worker stays that may wait for so long: to the end, or not."""
        return wait_s * self.random.random() if self.chance(self.work_mix.impatience_rate) else wait_s + 60

    def on_conflict(self) -> int:
        """Return what is to become of a conflict."""
        return self.random.choice((0, 0, 1, 2, 3))

    async def work(self) -> None:
        """Do one thing, from its beginning to its end."""
        raise NotImplementedError

    async def pause(self, mean_s: float) -> None:
        """Do something else for a while; not when all is calm."""
        await self.pause_exactly(self.random.expovariate(1.0) * mean_s)

    async def pause_exactly(self, seconds: float) -> None:
        """Do something else for so long; not when all is calm."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.world.calm.wait()

    def chance(self, rate: float) -> bool:
        """Return whether something is so."""
        return self.random.random() < rate

    def request_id(self) -> str:
        """Return a new one."""
        self._requests += 1
        return f"{self.name}/{self._generation}/{self._requests}"

    # -- asking ----------------------------------------------------------------------------------------------

    async def ask(self, name: str, request: Message, timeout_s: float = 5.0) -> Any:
        """Return the answer to a call that may be repeated; None if it failed for good or was given up.

        A stream's answer is its last message.
        """
        attempt = self._stream if name.startswith("Await") else self._unary
        if self.chance(self.work_mix.hedge_rate):
            return await self._hedged(attempt, name, request, timeout_s)
        return await self._insist(attempt, self.channel, name, request, timeout_s)

    async def _hedged(self, attempt: Any, name: str, request: Message, timeout_s: float) -> Any:
        self.world.record.note("duplicate request")
        both = [
            asyncio.create_task(self._insist(attempt, channel, name, request, timeout_s))
            for channel in (self.channel, self._other_channel)
        ]
        answers = await asyncio.gather(*both)
        return self.better(*answers)

    def better(self, one: Any, other: Any) -> Any:
        """Return that of two answers to one request which says more: a grant, if any does."""
        for answer in (one, other):
            if (
                answer is not None
                and "granted" in answer.DESCRIPTOR.fields_by_name
                and answer.HasField("granted")
            ):
                return answer
        return one or other

    async def _insist(
        self, attempt: Any, channel: Channel, name: str, request: Message, timeout_s: float
    ) -> Any:
        while True:
            try:
                # Whoever gave up too soon, again and again, would never hear the end of it.
                return await attempt(channel, name, request, _CALM_S if self.world.is_calm else timeout_s)
            except CallFailed as error:
                if not is_to_be_repeated(error):
                    return None
                if not self.world.is_calm and not self.chance(self.work_mix.retry_rate):
                    return None
            await asyncio.sleep(self.random.uniform(0.01, 1.0))

    async def _unary(self, channel: Channel, name: str, request: Message, timeout_s: float) -> Any:
        record = self.world.record.asked(self.name, name, request)
        try:
            reply, self.made_ns = await channel.ask(name, request, timeout_s)
        except CallFailed as error:
            close(record, error)
            raise
        record.told(reply)
        return reply

    async def _stream(self, channel: Channel, name: str, request: Message, timeout_s: float) -> Any:
        record = self.world.record.asked(self.name, name, request)
        try:
            call = await channel.open(name, timeout_s)
            try:
                call.say(request)
                call.half_close()
                return await self._last(call, record)
            finally:
                call.cancel()
        except CallFailed as error:
            close(record, error)
            raise

    async def _last(self, call: Any, record: Any) -> Any:
        while (message := await call.read()) is not None:
            record.told(message)
            if message.WhichOneof("event") != "queued":
                self.made_ns = call.made_ns
                return message
            await self.pause_reading()
        raise CallFailed("INTERNAL", "ENDED_WITHOUT_ANSWER")

    async def pause_reading(self) -> None:
        """A slow reader takes its time after each message."""
        if self.chance(self.work_mix.slow_reader_rate):
            await asyncio.sleep(self.random.expovariate(1.0) * self.work_mix.think_s)


def granted(answer: Any) -> Any:
    """Return what an answer grants; None: nothing."""
    return answer.granted if answer is not None and answer.HasField("granted") else None


def is_to_be_repeated(error: CallFailed) -> bool:
    """Return whether the same call may still succeed."""
    return error.is_unanswered or error.code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}


Make = Callable[[World, str, int, Random], Worker]
