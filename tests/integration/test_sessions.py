"""SessionService over real gRPC: what the stream says, and what becomes of a worker that goes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_worlds import PATIENT, SCENARIO_CONFIG, RealWorld, RestartableDaemon
from daemon_api import BIN, DEADLINE_S, Api, DaemonProcess, TimeSource, length, rest, stream_refusal, until

from coordd.core.outcomes import CapacityChanged, GateChanged, LeasesExpiring, Preempted
from coordd.core.records import Gate
from coordd.engine import Event
from coordd.server import Daemon
from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, rate_limit_pb2
from coordd.v1 import session_pb2 as pb
from coordd_client import Client, LeaseLost, Outcome, RevocationReason, Revoked, lock, reservation

KEEPALIVE = pb.ConnectRequest(keepalive=pb.Keepalive())
GOODBYE = pb.ConnectRequest(goodbye=pb.Goodbye())


async def said(stream: Any, request: pb.ConnectRequest) -> Any:
    """Say something; return what is said next."""
    await stream.write(request)
    return await stream.read()


async def sessions(api: Api) -> list[Any]:
    return list((await api.admin.ListSessions(admin_pb2.ListSessionsRequest())).sessions)


async def locks(api: Api) -> list[Any]:
    return list((await api.engagement.ListLocks(engagement_pb2.ListLocksRequest())).locks)


# ---- one stream's life


async def test_a_life(api: Api) -> None:
    stream, registered = await api.connect(worker_class="fast", weight=2.5, labels={"zone": "a"})
    assert not registered.resumed
    assert registered.weight == 2.5
    assert registered.keepalive_every == length(10)
    lock = await api.lock(ttl=length(9))
    units = await api.reserve("slot", units=2)
    kept = (await said(stream, KEEPALIVE)).kept_alive
    assert set(kept.held) == {lock.fencing_token, units.reservation_id}
    assert kept.keepalive_every == length(3)
    assert 0 < kept.expires_in.ToNanoseconds() <= 9 * 10**9
    [shown] = await sessions(api)
    assert (shown.worker, shown.worker_class, shown.weight, dict(shown.labels)) == (
        *("w1", "fast", 2.5),
        {"zone": "a"},
    )
    assert (shown.held, shown.connected, shown.session_id) == (2, True, registered.session_id)
    assert (await api.admin.GetStatus(admin_pb2.GetStatusRequest())).sessions == 1
    assert (await said(stream, GOODBYE)).closed.released == 2
    assert await stream.read() == grpc.aio.EOF
    assert not await sessions(api)
    assert not await locks(api)


async def test_it_may_be_said_all_at_once(api: Api) -> None:
    async def requests() -> AsyncIterator[pb.ConnectRequest]:
        yield pb.ConnectRequest(register=pb.Register(worker="w1"))
        for _ in range(100):
            yield KEEPALIVE
        yield GOODBYE

    answers = [answer.WhichOneof("message") async for answer in api.session.Connect(requests())]
    assert answers == ["registered", *["kept_alive"] * 100, "closed"]


async def test_a_half_close_is_told_what_is_under_way_and_leaves_the_session(api: Api) -> None:
    async def requests() -> AsyncIterator[pb.ConnectRequest]:
        yield pb.ConnectRequest(register=pb.Register(worker="w1"))
        yield KEEPALIVE

    answers = [answer.WhichOneof("message") async for answer in api.session.Connect(requests())]
    assert answers == ["registered", "kept_alive"]
    [shown] = await sessions(api)
    assert not shown.connected


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (KEEPALIVE, "UNEXPECTED_MESSAGE"),
        (pb.ConnectRequest(), "UNEXPECTED_MESSAGE"),
        (pb.ConnectRequest(register=pb.Register()), "INVALID_ID"),
        (pb.ConnectRequest(register=pb.Register(worker="w", worker_class="x" * 65)), "INVALID_ID"),
        (pb.ConnectRequest(register=pb.Register(worker="w", weight=-1)), "INVALID_COUNT"),
        (pb.ConnectRequest(register=pb.Register(worker="w", weight=float("nan"))), "INVALID_COUNT"),
        (pb.ConnectRequest(register=pb.Register(worker="w", weight=1001)), "INVALID_COUNT"),
        (pb.ConnectRequest(register=pb.Register(worker="w", session_id=2**60)), "INVALID_COUNT"),
        (pb.ConnectRequest(register=pb.Register(worker="w", ttl=length(0.5))), "INVALID_DURATION"),
        (pb.ConnectRequest(register=pb.Register(worker="w", ttl=length(3601))), "INVALID_DURATION"),
        (pb.ConnectRequest(register=pb.Register(worker="w", labels={"": "x"})), "INVALID_ID"),
        (pb.ConnectRequest(register=pb.Register(worker="w", labels={"x": "\n"})), "INVALID_ID"),
        (
            pb.ConnectRequest(register=pb.Register(worker="w", labels={str(n): "" for n in range(17)})),
            "INVALID_COUNT",
        ),
    ],
)
async def test_a_first_message_that_does_not_register(api: Api, first: Any, reason: str) -> None:
    stream = api.session.Connect(timeout=DEADLINE_S)
    await stream.write(first)
    assert (await stream_refusal(stream))[:2] == ("INVALID_ARGUMENT", reason)
    assert not await sessions(api)


async def test_nothing_at_all_does_not_register(api: Api) -> None:
    stream = api.session.Connect(timeout=DEADLINE_S)
    await stream.done_writing()
    assert (await stream_refusal(stream))[1] == "UNEXPECTED_MESSAGE"


@pytest.mark.parametrize("is_first", [True, False])
async def test_bytes_that_are_no_message(api: Api, *, is_first: bool) -> None:
    call = api.channel.stream_stream("/coordd.v1.SessionService/Connect")
    stream = call(timeout=DEADLINE_S)
    if not is_first:
        register = pb.ConnectRequest(register=pb.Register(worker="w1"))
        await stream.write(register.SerializeToString())
        await stream.read()
    await stream.write(b"\xff")
    assert (await stream_refusal(stream))[:2] == ("INVALID_ARGUMENT", "INVALID_MESSAGE")


async def test_registering_twice_ends_the_stream_and_not_the_session(api: Api) -> None:
    stream, registered = await api.connect()
    await stream.write(pb.ConnectRequest(register=pb.Register(worker="w1")))
    assert (await stream_refusal(stream))[:2] == ("INVALID_ARGUMENT", "UNEXPECTED_MESSAGE")
    [shown] = await sessions(api)
    assert shown.session_id == registered.session_id


async def test_one_worker_one_stream(api: Api) -> None:
    first, registered = await api.connect()
    second = api.session.Connect(timeout=DEADLINE_S)
    await second.write(pb.ConnectRequest(register=pb.Register(worker="w1")))
    assert (await stream_refusal(second))[:2] == ("ALREADY_EXISTS", "SESSION_TAKEN")
    lock = await api.lock()
    third, again = await api.connect(session_id=registered.session_id)
    assert again.resumed
    assert list(again.held) == [lock.fencing_token]
    assert (await stream_refusal(first))[:2] == ("FAILED_PRECONDITION", "SESSION_SUPERSEDED")
    fourth, anew = await api.connect(take_over=True)
    assert not anew.resumed
    assert not anew.held
    assert (await stream_refusal(third))[1] == "SESSION_SUPERSEDED"
    assert (await said(fourth, GOODBYE)).closed.released == 0
    assert [each.fencing_token for each in await locks(api)] == [lock.fencing_token]


async def test_a_session_that_is_not_kept_is_warned_and_then_over(api: Api, time_source: TimeSource) -> None:
    async def pass_(seconds: float) -> None:
        time_source.advance(seconds)
        await api.admin.GetStatus(admin_pb2.GetStatusRequest())

    time_source.stop()
    stream, registered = await api.connect(ttl=length(2))
    # Ends after two thirds of it, and before it does.
    lock = await api.lock(ttl=length(1.4))
    await pass_(1.35)
    warning = (await stream.read()).expiry_warning
    assert list(warning.ids) == [lock.fencing_token]
    assert (warning.expires_in, warning.session_expires_in) == (length(0.05), length(0.65))
    await pass_(0.1)
    revocation = (await stream.read()).revocation
    assert (revocation.id, revocation.name) == (lock.fencing_token, "i")
    assert revocation.reason == pb.REVOCATION_REASON_EXPIRED
    await pass_(0.6)
    lost = await stream_refusal(stream)
    assert lost == ("FAILED_PRECONDITION", "SESSION_LOST", {"id": str(registered.session_id)})


# ---- what it is told


async def test_a_forced_release_is_told_whoever_watches(api: Api) -> None:
    stream, _ = await api.connect()
    units = await api.reserve("slot", units=1)
    await api.admin.ForceRelease(admin_pb2.ForceReleaseRequest(id=units.reservation_id, reason="stuck"))
    revocation = (await stream.read()).revocation
    assert (revocation.id, revocation.name, revocation.reason) == (
        units.reservation_id,
        "small",
        pb.REVOCATION_REASON_FORCED,
    )


async def test_what_is_not_its_is_not_told(api: Api) -> None:
    stream, _ = await api.connect()
    other, _ = await api.connect("w2")
    lock = await api.lock("w2")
    booking = await api.book()
    for grant_id in (lock.fencing_token, booking.booking_id):
        await api.admin.ForceRelease(admin_pb2.ForceReleaseRequest(id=grant_id, reason="stuck"))
    assert (await other.read()).revocation.id == lock.fencing_token
    assert (await said(stream, KEEPALIVE)).HasField("kept_alive")


async def test_gates_capacities_and_preemptions_are_told(daemon: Daemon, api: Api) -> None:
    stream, _ = await api.connect()
    lock = await api.lock()
    engine = daemon.engine
    [held] = await engine.read(lambda machine, _: machine.locks([lock.fencing_token]))
    now = engine.now()
    for outcome in (
        GateChanged(gate=Gate(endpoint="post", closed_until=now + 5 * 10**9, strikes=1)),
        GateChanged(gate=Gate(endpoint="post", closed_until=now + 9 * 10**9, strikes=2)),
        CapacityChanged(pool="small", before=3, after=2),
        CapacityChanged(pool="small", before=2, after=1),
        Preempted(grant=held, at=now + 60 * 10**9),
        LeasesExpiring(worker="nobody", ids=(), first_end=0, session_end=0),
    ):
        engine.sessions.tell(Event(at=now, command=None, outcome=outcome))
    told = [await stream.read() for _ in range(3)]
    revocation, gate, capacity = told[0].revocation, told[1].gate_change, told[2].capacity_change
    assert revocation.reason == pb.REVOCATION_REASON_PREEMPTED
    assert 0 < revocation.within.ToNanoseconds() <= 60 * 10**9
    assert (gate.endpoint, gate.gate.state, gate.gate.strikes) == (
        "post",
        rate_limit_pb2.GATE_STATE_CLOSED,
        2,
    )
    assert (capacity.pool, capacity.before, capacity.after) == ("small", 3, 1)


async def test_a_reader_that_does_not_read_is_not_waited_for(daemon: Daemon, api: Api) -> None:
    stream, _ = await api.connect()
    lock = await api.lock()
    [held] = await daemon.engine.read(lambda machine, _: machine.locks([lock.fencing_token]))
    now = daemon.engine.now()
    for number in range(30_000):
        daemon.engine.sessions.tell(
            Event(at=now, command=None, outcome=GateChanged(gate=Gate(endpoint="post", strikes=number)))
        )
        daemon.engine.sessions.tell(Event(at=now, command=None, outcome=Preempted(grant=held, at=now)))
    assert (await stream_refusal(stream))[:2] == ("RESOURCE_EXHAUSTED", "SLOW_READER")
    [shown] = await sessions(api)
    assert not shown.connected
    assert await api.lock(item="another")


async def test_an_operators_drain_leaves_sessions_and_a_stop_ends_them(daemon: Daemon, api: Api) -> None:
    stream, registered = await api.connect()
    lock = await api.lock()
    await api.admin.Drain(admin_pb2.DrainRequest(reason="later"))
    assert list((await said(stream, KEEPALIVE)).kept_alive.held) == [lock.fencing_token]
    again, _ = await api.connect(session_id=registered.session_id)
    daemon.engine.wind_down()
    late = api.session.Connect(timeout=DEADLINE_S)
    await late.write(pb.ConnectRequest(register=pb.Register(worker="w2")))
    assert (await stream_refusal(late))[:2] == ("UNAVAILABLE", "DRAINING")
    stopping = asyncio.create_task(daemon.stop(DEADLINE_S))
    assert (await stream_refusal(again))[:2] == ("UNAVAILABLE", "DRAINING")
    await stopping


async def test_sessions_are_listed_by_pages(api: Api) -> None:
    streams = [await api.connect(f"w{number}") for number in range(5)]
    request = admin_pb2.ListSessionsRequest(page_size=2)
    pages = []
    while not pages or request.page_token:
        answer = await api.admin.ListSessions(request)
        pages.append([session.worker for session in answer.sessions])
        request.page_token = answer.next_page_token
    assert pages == [["w0", "w1"], ["w2", "w3"], ["w4"]]
    assert len(streams) == 5


async def test_a_hundred_sessions_keep_what_they_hold(api: Api) -> None:
    async def live(number: int) -> None:
        worker = f"w{number}"
        stream, _ = await api.connect(worker)
        tokens = {(await api.lock(worker, f"i{number}-{index}")).fencing_token for index in range(5)}
        for _ in range(5):
            assert set((await said(stream, KEEPALIVE)).kept_alive.held) == tokens
        if number % 2:
            assert (await said(stream, GOODBYE)).closed.released == 5
        else:
            stream.cancel()

    await asyncio.gather(*map(live, range(100)))

    async def are_gone() -> bool:
        return not any(session.connected for session in await sessions(api))

    await until(are_gone)
    assert len(await sessions(api)) == 50
    status = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert (status.locks, status.sessions) == (250, 50)


# ---- grpcurl


async def test_grpcurl_can_hold_a_session(process: DaemonProcess) -> None:
    lines = [{"register": {"worker": "w1", "ttl": "5s"}}, {"keepalive": {}}, {"goodbye": {}}]
    grpcurl = await asyncio.create_subprocess_exec(
        *(BIN / "grpcurl", "-plaintext", "-d", "@", process.address, "coordd.v1.SessionService/Connect"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await grpcurl.communicate("\n".join(map(json.dumps, lines)).encode())
    assert grpcurl.returncode == 0
    for name in ("registered", "kept_alive", "closed"):
        assert f'"{name}"'.encode() in output


# ---- the client


@pytest.fixture
async def restartable(tmp_path: Path) -> AsyncIterator[RestartableDaemon]:
    config = tmp_path / "coordd.toml"
    config.write_text(SCENARIO_CONFIG.format(path=tmp_path / "data" / "coordd.db"))
    daemon = await RestartableDaemon.start(config)
    yield daemon
    await daemon.kill()


@pytest.fixture
async def world(restartable: RestartableDaemon) -> AsyncIterator[RealWorld]:
    async with AsyncExitStack() as stack:
        yield RealWorld(restartable.address, stack)


async def test_a_client_comes_back_after_a_crash_and_keeps_what_it_holds(
    restartable: RestartableDaemon, world: RealWorld
) -> None:
    client = world.client("w1")
    async with client.session() as session, client.lock("i", kind="analysis", ttl=30) as lock:
        before = session.session_id
        await restartable.kill()
        await restartable.start_again()

        async def is_back() -> bool:
            shown = await sessions(world.api)
            return session.is_connected and [each.connected for each in shown] == [True]

        await world.until(is_back)
        assert session.session_id == before
        assert lock.left_s > 20
        [shown] = await sessions(world.api)
        assert shown.held == 1
    assert not await sessions(world.api)
    assert not await locks(world.api)


class Network:
    """A way to the daemon that can be cut."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection as it is."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, far_writer]
        await asyncio.gather(
            self._copy(reader, far_writer), self._copy(far_reader, writer), return_exceptions=True
        )

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def test_a_client_whose_network_drops_comes_back(world: RealWorld) -> None:
    network = Network(world.address)
    async with (
        network as address,
        Client(address, worker="w1", config=PATIENT) as client,
        client.session() as session,
        client.lock("i", kind="analysis", ttl=30) as lock,
    ):
        before = session.session_id
        for _ in range(3):
            network.cut()

            async def is_cut() -> bool:
                return not session.is_connected

            async def is_seen_back() -> bool:
                return session.is_connected and (await sessions(world.api))[0].connected

            await world.until(is_cut)
            await world.until(is_seen_back)
        assert session.session_id == before
        assert lock.left_s > 20
    assert not await sessions(world.api)
    assert not await locks(world.api)


async def test_a_client_whose_process_dies_leaves_its_session_to_its_time(
    world: RealWorld, tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import asyncio, sys\n"
        "from coordd_client import Client\n"
        "async def main():\n"
        "    async with Client(sys.argv[1], worker='w1') as client, client.session(ttl=3):\n"
        "        async with client.lock('i', kind='analysis', ttl=4):\n"
        "            print('held', flush=True)\n"
        "            await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(
        BIN / "python", script, world.address, stdout=asyncio.subprocess.PIPE, env=os.environ
    )
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"held\n"
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    assert len(await locks(world.api)) == 1

    async def is_over() -> bool:
        return not await sessions(world.api) and not await locks(world.api)

    await until(is_over)
    status = await world.client("w2").get_lock("i")
    assert status.last_engagement is not None
    assert status.last_engagement.outcome is Outcome.UNKNOWN


async def test_a_forced_release_reaches_the_block_at_once(world: RealWorld) -> None:
    told: list[Revoked] = []
    client = world.client("w1")
    async with client.session(on_revoked=told.append):
        with pytest.raises(LeaseLost, match="taken the lease away"):
            await _hold_until_forced(world, client)
    assert [event.name for event in told] == ["i"]


async def _hold_until_forced(world: RealWorld, client: Client) -> None:
    async with client.lock("i", kind="analysis", ttl=3600) as lock:
        await world.force_release(lock.fencing_token)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.Event().wait()


async def test_a_preempted_block_has_its_grace_and_loses_to_the_waiter(world: RealWorld) -> None:
    told: list[Revoked] = []
    holder = world.client("w1")
    async with holder.session(on_revoked=told.append):
        with pytest.raises(LeaseLost):
            await _hold_until_preempted(world, holder, told)
    assert {event.reason for event in told} == {RevocationReason.PREEMPTED}


async def _hold_until_preempted(world: RealWorld, holder: Client, told: list[Revoked]) -> None:
    admin = world.api.admin
    escalations = admin.WatchEscalations(admin_pb2.WatchEscalationsRequest(), timeout=DEADLINE_S)
    async with holder.lock("i", kind="analysis", ttl=2) as held:
        on_conflict = common_pb2.ON_CONFLICT_ESCALATE
        wait = world.api.await_lock("w2", on_conflict=on_conflict)
        escalation = (await escalations.read()).escalation
        assert escalation.holder_id == held.fencing_token
        await admin.ResolveEscalation(
            admin_pb2.ResolveEscalationRequest(
                escalation_id=escalation.escalation_id, decision=admin_pb2.DECISION_PREEMPT, decided_by="me"
            )
        )

        async def is_told() -> bool:
            return bool(told)

        await world.until(is_told)
        assert held.is_preempted
        assert 0 < told[0].within_s <= 5
        try:
            # Kept until then by the session, though it is shorter than the grace, and no further.
            await _granted(wait)
        finally:
            wait.cancel()
            assert held.left_s < 1


async def _granted(wait: Any) -> Any:
    async for event in rest(wait):
        if event.HasField("granted"):
            return event.granted
    raise AssertionError("the wait ended without a grant")


async def test_a_bundle_is_kept_and_hears_that_it_is_taken(world: RealWorld) -> None:
    client = world.client("w1")
    claims = (lock("i", kind="analysis", ttl=2), reservation("slot", ttl=2))
    async with client.session():
        async with client.bundle(*claims) as bundle:
            begun = asyncio.get_running_loop().time()

            async def has_passed() -> bool:
                return asyncio.get_running_loop().time() > begun + 3

            await world.until(has_passed)
            assert bundle.left_s > 0
        with pytest.raises(LeaseLost, match="taken the lease away"):
            await _hold_bundle_until_forced(world, client)
        assert not await locks(world.api)


async def _hold_bundle_until_forced(world: RealWorld, client: Client) -> None:
    async with client.bundle(lock("j", kind="analysis", ttl=3600), reservation("slot")) as bundle:
        await world.force_release(bundle.bundle_id)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.Event().wait()


async def test_short_leases_are_kept_by_one_keepalive(world: RealWorld) -> None:
    client = world.client("w1")
    async with client.session(), AsyncExitStack() as stack:
        blocks = [
            await stack.enter_async_context(client.lock(f"i{number}", kind="analysis", ttl=2))
            for number in range(20)
        ]
        begun = asyncio.get_running_loop().time()

        async def has_passed() -> bool:
            assert all(block.left_s > 0 for block in blocks)
            return asyncio.get_running_loop().time() > begun + 3

        await world.until(has_passed)
    stats = await client.engagement_stats()
    assert (stats.successful, stats.total) == (20, 20)
