"""What a session makes of what a daemon says, and of one that says nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from client_servers import FAST, ScriptedServer, fail, lock, reply

from coordd.v1 import engagement_pb2, rate_limit_pb2
from coordd.v1 import session_pb2 as pb
from coordd_client import (
    CapacityChanged,
    Client,
    Config,
    GateChanged,
    GateState,
    LeaseLost,
    LeasesExpiring,
    Outcome,
    QueueFull,
    RevocationReason,
    Revoked,
)
from coordd_client.messages import duration

IMPATIENT = Config(call_timeout_s=1, backoff_s=0.005, backoff_max_s=0.02)


class Script:
    """A daemon's end of one worker's streams: registers, answers, and says what a test has it say."""

    def __init__(self, server: ScriptedServer, *, keepalive_s: float = 3600.0) -> None:
        self.registered = pb.Registered(session_id=7, keepalive_every=duration(keepalive_s), weight=1.0)
        self.registers: list[pb.Register] = []
        self.keepalives = 0
        self.is_silent = False
        self._has_heard = asyncio.Event()
        self._said: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()
        server.answers["Connect"] = self._connect
        server.answers["RequestLock"] = reply(
            engagement_pb2.RequestLockResponse(granted=lock(expires_in_s=60))
        )
        server.answers["ReleaseLock"] = reply(engagement_pb2.ReleaseLockResponse())

    async def heard(self, is_so: Callable[[], bool]) -> None:
        """Wait until what was heard makes it so."""
        while not is_so():
            self._has_heard.clear()
            await self._has_heard.wait()

    def say(self, **message: Any) -> None:
        self._said.put_nowait(pb.ConnectResponse(**message))

    def hang_up(self) -> None:
        """End the stream without a word."""
        self._said.put_nowait(None)

    async def _connect(self, requests: Any, context: Any) -> AsyncIterator[pb.ConnectResponse]:
        listening = asyncio.create_task(self._listen(requests))
        try:
            while True:
                message = await self._said.get()
                if message is None:
                    return
                yield message
                if message.HasField("closed"):
                    return
        finally:
            listening.cancel()

    async def _listen(self, requests: Any) -> None:
        async for request in requests:
            match request.WhichOneof("message"):
                case "register":
                    self.registers.append(request.register)
                    self.say(registered=self.registered)
                case "keepalive":
                    self.keepalives += 1
                    if not self.is_silent:
                        self.say(kept_alive=pb.KeptAlive(keepalive_every=self.registered.keepalive_every))
                case "goodbye":
                    self.say(closed=pb.Closed())
            self._has_heard.set()


def revocation(within_s: float, token: int = 9) -> pb.Revocation:
    return pb.Revocation(
        id=token, name="tweet:1", reason=pb.REVOCATION_REASON_PREEMPTED, within=duration(within_s)
    )


async def test_a_preempted_block_has_its_time_to_end(server: ScriptedServer):
    script = Script(server)
    async with (
        Client(server.address, worker="w1", config=FAST) as client,
        client.session() as session,
        client.lock("tweet:1", kind="reply") as held,
    ):
        assert not held.is_preempted
        events = session.events()
        script.say(revocation=revocation(30, held.fencing_token + 1))
        script.say(revocation=revocation(30, held.fencing_token))
        for _ in range(2):
            assert isinstance(await anext(events), Revoked)
        assert held.is_preempted
        assert 20 < held.left_s <= 30
        # A keepalive, or a renewal, does not make it longer.
        held.extend(3600, client._caller.clock.now())
        assert held.left_s <= 30
    assert "RenewLock" not in server.names


async def test_a_preempted_block_that_does_not_end_is_cancelled_in_time(server: ScriptedServer):
    script = Script(server)

    async def hold(client: Client) -> None:
        async with client.lock("tweet:1", kind="reply") as held:
            script.say(revocation=revocation(0.1, held.fencing_token))
            await asyncio.Event().wait()

    async with Client(server.address, worker="w1", config=FAST) as client, client.session():
        with pytest.raises(LeaseLost):
            await hold(client)


async def test_everything_that_is_told(server: ScriptedServer):
    script = Script(server)
    closed = rate_limit_pb2.Gate(state=rate_limit_pb2.GATE_STATE_CLOSED, opens_in=duration(2.5), strikes=1)
    closed.opens_at.GetCurrentTime()
    opened = rate_limit_pb2.Gate(state=rate_limit_pb2.GATE_STATE_OPEN)
    script.registered.gates.add(endpoint="post", gate=closed)
    async with Client(server.address, worker="w1", config=FAST) as client, client.session() as session:
        assert [*session.gates] == ["post"]
        assert session.gates["post"].opens_in_s == 2.5
        events = session.events()
        script.say()  # of a newer daemon
        script.say(gate_change=pb.GateChange(endpoint="post", gate=opened))
        script.say(gate_change=pb.GateChange(endpoint="search", gate=closed))
        script.say(capacity_change=pb.CapacityChange(pool="p", before=4, after=3))
        script.say(expiry_warning=pb.ExpiryWarning(ids=[9], session_expires_in=duration(5)))
        script.say(revocation=revocation(0))
        told = [await anext(events) for _ in range(5)]
        assert isinstance(told[0], GateChanged)
        assert (told[0].endpoint, told[0].gate.state) == ("post", GateState.OPEN)
        assert isinstance(told[1], GateChanged)
        assert [*session.gates] == ["search"]
        assert told[2:] == [
            CapacityChanged(pool="p", before=4, after=3),
            LeasesExpiring(grant_ids=(9,), expires_in_s=None, session_expires_in_s=5.0),
            Revoked(grant_id=9, name="tweet:1", reason=RevocationReason.PREEMPTED, within_s=0.0),
        ]


async def test_a_daemon_that_answers_no_longer_is_left_and_looked_for(server: ScriptedServer):
    script = Script(server, keepalive_s=0.05)
    async with Client(server.address, worker="w1", config=IMPATIENT) as client, client.session() as session:
        await script.heard(lambda: script.keepalives >= 2)
        script.is_silent = True
        await script.heard(lambda: len(script.registers) >= 2)
        script.is_silent = False
        before = script.keepalives
        await script.heard(lambda: script.keepalives >= before + 2)
        assert session.is_connected
    assert [register.session_id for register in script.registers[:2]] == [0, 7]
    assert not script.registers[1].take_over


async def test_a_stream_that_ends_without_a_goodbye_is_made_anew(server: ScriptedServer):
    script = Script(server)
    async with Client(server.address, worker="w1", config=FAST) as client, client.session() as session:
        script.hang_up()
        await script.heard(lambda: len(script.registers) == 2)
        assert script.registers[1].session_id == session.session_id


async def test_a_callback_that_fails_is_heard_of_at_the_end(server: ScriptedServer):
    script = Script(server)
    told = asyncio.Event()

    def fails(event: Revoked) -> None:
        told.set()
        raise ZeroDivisionError(event.name)

    async with Client(server.address, worker="w1", config=FAST) as client:
        session = client.session(on_revoked=fails)
        await session.__aenter__()
        script.say(revocation=revocation(0))
        await told.wait()
        with pytest.raises(ZeroDivisionError):
            await session.__aexit__(None, None, None)
        assert not session.is_connected


async def test_too_many_sessions_is_told_at_once(server: ScriptedServer):
    async def refuse(requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG001
        await fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", retry_s=1)
        yield

    server.answers["Connect"] = refuse
    async with Client(server.address, worker="w1", config=FAST) as client:
        with pytest.raises(QueueFull):
            async with client.session():
                pass
        assert server.names == ["Connect"]
        # And another may be tried.
        Script(server)
        async with client.session(), client.lock("tweet:1", kind="reply") as held:
            held.succeeded()
    assert server.requests("ReleaseLock")[0].outcome == Outcome.SUCCESS
