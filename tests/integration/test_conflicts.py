"""Conflicts over real gRPC: refused, escalated, decided, preempted, and over a restart."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_worlds import Hold, SteppedClock
from daemon_api import CONFIG, DEADLINE_S, Api, DaemonProcess, TimeSource, refusal, until

from coordd.server import Daemon
from coordd.v1 import admin_pb2 as pb
from coordd.v1 import common_pb2, engagement_pb2, reservation_pb2
from coordd_client import (
    Client,
    Decision,
    EscalationClosed,
    LeaseLost,
    NotPreemptible,
    OnConflict,
    Priority,
    Refused,
    blocking,
    claims,
)
from examples import coordinator

MORE = """
[kinds.fragile]
lock_delay = "1h"
on_conflict = "deny"
[kinds.urgent]
lock_delay = "1h"
on_conflict = "escalate"
[types.printer]
on_conflict = "escalate"
[escalation]
timeout = "1m"
preempt_grace = "200ms"
"""
ESCALATE = common_pb2.ON_CONFLICT_ESCALATE


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "coordd.toml"
    file.write_text(CONFIG.format(address="127.0.0.1:0", path=tmp_path / "data" / "coordd.db") + MORE)
    return file


async def opened(api: Api, count: int = 1) -> list[Any]:
    """Return the open escalations once there are so many."""
    found: list[Any] = []

    async def is_so() -> bool:
        found[:] = (await api.admin.ListEscalations(pb.ListEscalationsRequest())).escalations
        return len(found) == count

    await until(is_so)
    return found


async def resolve(api: Api, id: int, decision: Any, by: str = "boss", reason: str = "") -> Any:
    request = pb.ResolveEscalationRequest(escalation_id=id, decision=decision, decided_by=by, reason=reason)
    return (await api.admin.ResolveEscalation(request)).escalation


async def last(stream: Any) -> Any:
    """Return the last message of a wait."""
    return [message async for message in stream][-1]


async def test_deny_refuses_at_once_by_request_or_by_kind(api: Api) -> None:
    await api.lock()
    asked = await last(api.await_lock("w2", on_conflict=common_pb2.ON_CONFLICT_DENY))
    assert asked.refused.reason == common_pb2.REFUSAL_REASON_HELD
    configured = await last(api.await_lock("w2", kind="fragile"))
    assert (configured.refused.holder, configured.refused.queue_position) == ("w1", 1)
    waiting = api.await_lock("w2", kind="fragile", on_conflict=common_pb2.ON_CONFLICT_WAIT)
    assert (await waiting.read()).HasField("queued")


async def test_an_escalation_is_listed_watched_counted_and_decided_once(api: Api) -> None:
    lock = await api.lock()
    watch = api.admin.WatchEscalations(pb.WatchEscalationsRequest(), timeout=DEADLINE_S)
    await watch.initial_metadata()
    waiting = api.await_lock("w2", on_conflict=ESCALATE, priority=common_pb2.PRIORITY_HIGH)
    first = (await watch.read()).escalation
    assert (first.subject, first.worker, first.holder, first.holder_id) == (
        "i",
        "w2",
        "w1",
        lock.fencing_token,
    )
    assert first.is_open
    assert (first.priority, first.default_decision) == (common_pb2.PRIORITY_HIGH, pb.DECISION_WAIT)
    assert 0 < first.decide_within.ToNanoseconds() <= 60 * 10**9
    assert (await api.admin.GetStatus(pb.GetStatusRequest())).escalations == 1
    assert [each.escalation_id for each in await opened(api)] == [first.escalation_id]
    late = api.admin.WatchEscalations(pb.WatchEscalationsRequest(), timeout=DEADLINE_S)
    assert (await late.read()).escalation.escalation_id == first.escalation_id
    events = api.admin.WatchEvents(pb.WatchEventsRequest(subjects=[pb.SUBJECT_ESCALATION]))
    await events.initial_metadata()
    closed = await resolve(api, first.escalation_id, pb.DECISION_DENY, reason="no")
    assert (closed.decision, closed.decided_by, closed.is_open) == (pb.DECISION_DENY, "boss", False)
    for stream in (watch, late):
        told = (await stream.read()).escalation
        assert (told.is_open, told.decision, told.decided_by) == (False, pb.DECISION_DENY, "boss")
    event = await events.read()
    assert (event.type, event.detail) == (pb.EVENT_TYPE_RESOLVED, "deny by boss: no")
    assert (await last(waiting)).refused.reason == common_pb2.REFUSAL_REASON_ESCALATION_DENIED
    code, reason, _ = await refusal(resolve(api, first.escalation_id, pb.DECISION_GRANT))
    assert (code, reason) == ("FAILED_PRECONDITION", "ESCALATION_CLOSED")
    assert not await opened(api, 0)


async def test_escalations_are_paged(api: Api) -> None:
    await api.lock()
    waits = [api.await_lock(f"w{number}", on_conflict=ESCALATE) for number in range(2, 5)]
    every = await opened(api, 3)
    page = await api.admin.ListEscalations(pb.ListEscalationsRequest(page_size=2))
    rest = await api.admin.ListEscalations(
        pb.ListEscalationsRequest(page_size=2, page_token=page.next_page_token)
    )
    assert [*page.escalations, *rest.escalations][0].escalation_id == every[0].escalation_id
    assert (len(page.escalations), len(rest.escalations), rest.next_page_token) == (2, 1, "")
    assert waits


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"decision": 0}, "INVALID_ENUM"),
        ({"decision": 9}, "INVALID_ENUM"),
        ({"decided_by": ""}, "INVALID_ID"),
        ({"reason": "x" * 513}, "INVALID_ID"),
        ({"escalation_id": 1 << 60}, "UNKNOWN_ID"),
    ],
)
async def test_a_broken_decision_is_refused(api: Api, fields: dict[str, Any], reason: str) -> None:
    request = {"escalation_id": 1, "decision": pb.DECISION_GRANT, "decided_by": "boss"} | fields
    assert (await refusal(api.admin.ResolveEscalation(pb.ResolveEscalationRequest(**request))))[1] == reason


async def test_a_preempted_lock_is_renewed_to_its_end_then_dead(api: Api, time_source: TimeSource) -> None:
    lock = await api.lock()
    waiting = api.await_lock("w2", on_conflict=ESCALATE)
    [escalation] = await opened(api)
    time_source.stop()
    await resolve(api, escalation.escalation_id, pb.DECISION_PREEMPT)
    renew = engagement_pb2.RenewLockRequest(item="i", worker="w1", fencing_token=lock.fencing_token)
    renewed = (await api.engagement.RenewLock(renew)).lock
    assert renewed.preempted
    assert renewed.expires_in.ToNanoseconds() == 200_000_000
    time_source.go_on()
    granted = (await last(waiting)).granted
    assert granted.fencing_token > lock.fencing_token
    assert (await refusal(api.engagement.RenewLock(renew)))[1] == "LEASE_LOST"
    assert (await refusal(api.unlock(lock)))[1] == "LEASE_LOST"
    engagement = (await api.engagement.GetLock(engagement_pb2.GetLockRequest(item="i"))).last_engagement
    assert (engagement.fencing_token, engagement.outcome) == (
        lock.fencing_token,
        engagement_pb2.OUTCOME_UNKNOWN,
    )


async def test_units_can_not_be_preempted_and_a_resource_can(api: Api) -> None:
    await api.reserve("slot", units=3)
    request = reservation_pb2.AwaitReservationRequest(type="slot", worker="w2", on_conflict=ESCALATE)
    waiting = api.reservation.AwaitReservation(request, timeout=DEADLINE_S)
    [escalation] = await opened(api)
    code, reason, _ = await refusal(resolve(api, escalation.escalation_id, pb.DECISION_PREEMPT))
    assert (code, reason) == ("FAILED_PRECONDITION", "NOT_PREEMPTIBLE")
    await resolve(api, escalation.escalation_id, pb.DECISION_DENY)
    await last(waiting)
    held = await api.reserve("printer", resource_id="x")
    request = reservation_pb2.AwaitReservationRequest(type="printer", resource_id="x", worker="w2")
    waiting = api.reservation.AwaitReservation(request, timeout=DEADLINE_S)
    [escalation] = await opened(api)
    await resolve(api, escalation.escalation_id, pb.DECISION_PREEMPT)
    assert (await last(waiting)).granted.reservation_id > held.reservation_id


async def test_an_open_escalation_outlives_a_restart(config: Path) -> None:
    process = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        await api.lock()
        kept = api.await_lock("w2", on_conflict=ESCALATE, request_id="r")
        await opened(api)
        lost = api.await_lock("w3", on_conflict=ESCALATE)
        before = await opened(api, 2)
        await process.stop()
        assert kept
        assert lost
    process = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        [after] = await opened(api)
        assert after.escalation_id == before[0].escalation_id
        await resolve(api, after.escalation_id, pb.DECISION_PREEMPT)
        resumed = api.await_lock("w2", on_conflict=ESCALATE, request_id="r")
        assert (await last(resumed)).granted.worker == "w2"
    await process.stop()


# -- the Python client ---------------------------------------------------------------------------------------


async def test_a_coordination_worker_decides_by_itself(
    api: Api, daemon: Daemon, time_source: TimeSource
) -> None:
    heard: list[float] = []
    clock = SteppedClock()
    began, lost = asyncio.Event(), asyncio.Event()

    async def hold(client: Client) -> None:
        with contextlib.suppress(LeaseLost):
            async with client.lock("tweet:1", kind="analysis", ttl=60, on_preempted=heard.append) as lock:
                began.set()
                await asyncio.Event().wait()
                assert lock
        assert lock.is_preempted
        lost.set()

    async with (
        Client(daemon.address, worker="boss") as boss,
        Client(daemon.address, worker="w1", clock=clock) as holder,
        Client(daemon.address, worker="w2") as waiter,
        asyncio.timeout(DEADLINE_S),
    ):
        deciding = asyncio.create_task(coordinator.coordinate(boss))
        holding = asyncio.create_task(hold(holder))
        await began.wait()
        time_source.stop()
        waiting = Hold(waiter.lock, "tweet:1", kind="urgent", wait=DEADLINE_S, priority=Priority.CRITICAL)

        async def is_decided() -> bool:
            request = engagement_pb2.GetLockRequest(item="tweet:1")
            return bool((await api.engagement.GetLock(request)).lock.preempted)

        async def has_heard() -> bool:
            # A call, so that the clients within this process go on.
            return await is_decided() and bool(heard)

        await until(is_decided)
        clock.advance(20)
        await until(has_heard)
        time_source.go_on()
        clock.advance(1)
        await lost.wait()
        await waiting.granted()
        await waiting.end()
        await holding
        deciding.cancel()
        await asyncio.gather(deciding, return_exceptions=True)
    assert heard == [pytest.approx(0.2)]


async def test_the_client_asks_decides_and_is_told_why_not(daemon: Daemon) -> None:
    async with (
        Client(daemon.address, worker="w1") as client,
        Client(daemon.address, worker="w2") as other,
        asyncio.timeout(DEADLINE_S),
        client.reservation("slot", units=3),
    ):
        with pytest.raises(Refused):
            async with other.reservation("slot", wait=DEADLINE_S, on_conflict=OnConflict.DENY):
                pass

        async def ask() -> None:
            async with other.bundle(
                claims.units("slot", 1), wait=DEADLINE_S, on_conflict=OnConflict.ESCALATE
            ):
                pass

        asking = asyncio.create_task(ask())
        escalations = client.watch_escalations()
        escalation = await anext(escalations)
        assert (escalation.worker, escalation.holder, escalation.holder_id) == ("w2", "", 0)
        with pytest.raises(NotPreemptible):
            await client.resolve_escalation(escalation.escalation_id, Decision.PREEMPT)
        closed = await client.resolve_escalation(escalation.escalation_id, Decision.DENY)
        assert (closed.decided_by, closed.decision, closed.is_open) == ("w1", Decision.DENY, False)
        with pytest.raises(EscalationClosed):
            await client.resolve_escalation(escalation.escalation_id, Decision.DENY)
        told = await anext(escalations)
        assert (told.is_open, told.decision) == (False, Decision.DENY)
        await escalations.aclose()
        with pytest.raises(Refused, match="ESCALATION_DENIED"):
            await asking


async def test_a_blocking_client_hears_of_it_when_it_renews(
    api: Api, daemon: Daemon, time_source: TimeSource
) -> None:
    heard: list[float] = []

    def work(loop: asyncio.AbstractEventLoop) -> bool:
        with blocking.Client(daemon.address, worker="w1") as client:
            lock = client.lock("tweet:1", kind="analysis", on_preempted=heard.append)
            with contextlib.suppress(LeaseLost), lock:
                waiting = asyncio.run_coroutine_threadsafe(ask(), loop)
                escalation = next(client.watch_escalations())
                time_source.stop()
                client.resolve_escalation(escalation.escalation_id, Decision.PREEMPT)
                lock.renew()
                lock.renew()
                time_source.go_on()
                waiting.result(DEADLINE_S)
            return lock.is_preempted

    async def ask() -> None:
        await last(api.await_lock("w2", item="tweet:1", on_conflict=ESCALATE))

    assert await asyncio.to_thread(work, asyncio.get_running_loop())
    assert len(heard) == 1
