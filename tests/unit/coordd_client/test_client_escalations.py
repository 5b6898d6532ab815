"""Escalations and preemptions, as the client sees them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from client_servers import FAST, ScriptedServer, fail, lock, reply, stepped_clock

from coordd.v1 import admin_pb2, bundle_pb2, reservation_pb2
from coordd.v1 import engagement_pb2 as pb
from coordd_client import (
    Client,
    Decision,
    EscalationClosed,
    InvalidRequest,
    LeaseLost,
    NotPreemptible,
    OnConflict,
    Unavailable,
    blocking,
    claims,
    testing,
)
from coordd_client.testing._timeline import Timeline

_Code = grpc.StatusCode


def _escalation(number: int) -> admin_pb2.WatchEscalationsResponse:
    return admin_pb2.WatchEscalationsResponse(
        escalation=admin_pb2.Escalation(
            escalation_id=number, priority=2, default_decision=admin_pb2.DECISION_WAIT, is_open=True
        )
    )


def _watch(server: ScriptedServer, *ends: tuple[grpc.StatusCode, int | None]) -> None:
    """One escalation a stream, then its end; the streams in turn."""
    left = list(enumerate(ends))

    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG001
        number, (code, pushback_ms) = left.pop(0)
        yield _escalation(number + 1)
        if pushback_ms is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", str(pushback_ms)),))
        await context.abort(code, "over")

    server.answers["WatchEscalations"] = answer


ENDS = [(_Code.UNAVAILABLE, None), (_Code.DEADLINE_EXCEEDED, None), (_Code.UNAVAILABLE, -1)]


async def test_a_watch_goes_on_when_it_is_broken_off(server: ScriptedServer) -> None:
    _watch(server, *ENDS)
    async with Client(server.address, worker="w1", config=FAST) as client:
        watch = client.watch_escalations()
        assert [(await anext(watch)).escalation_id for _ in ENDS] == [1, 2, 3]
        with pytest.raises(Unavailable):
            await anext(watch)


async def test_so_does_a_blocking_one(server: ScriptedServer) -> None:
    _watch(server, *ENDS)

    def follow() -> None:
        with blocking.Client(server.address, worker="w1", config=FAST) as client:
            watch = client.watch_escalations()
            assert [next(watch).escalation_id for _ in ENDS] == [1, 2, 3]
            with pytest.raises(Unavailable):
                next(watch)

    await asyncio.to_thread(follow)


async def test_a_decision_is_sent_in_the_workers_name(server: ScriptedServer) -> None:
    server.answers["ResolveEscalation"] = reply(
        admin_pb2.ResolveEscalationResponse(escalation=_escalation(9).escalation)
    )
    async with Client(server.address, worker="boss", config=FAST) as client:
        closed = await client.resolve_escalation(9, Decision.GRANT, reason="why not")
    assert closed.escalation_id == 9
    [(_, request)] = server.calls
    assert (request.escalation_id, request.decision, request.decided_by, request.reason) == (
        9,
        admin_pb2.DECISION_GRANT,
        "boss",
        "why not",
    )


@pytest.mark.parametrize(
    ("reason", "error"), [("ESCALATION_CLOSED", EscalationClosed), ("NOT_PREEMPTIBLE", NotPreemptible)]
)
async def test_what_can_not_be_decided_has_errors_of_its_own(
    server: ScriptedServer, reason: str, error: type[Exception]
) -> None:
    async def answer(request: Any, context: Any) -> None:  # noqa: ARG001
        await fail(context, _Code.FAILED_PRECONDITION, reason)

    server.answers["ResolveEscalation"] = answer
    async with Client(server.address, worker="boss", config=FAST) as client:
        with pytest.raises(error):
            await client.resolve_escalation(9, Decision.PREEMPT)


async def test_what_is_no_decision_is_not_sent(server: ScriptedServer) -> None:
    async with Client(server.address, worker="boss", config=FAST) as client:
        with pytest.raises(TypeError, match="decision is a Decision"):
            await client.resolve_escalation(9, 1)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="decision is required"):
            await client.resolve_escalation(9, Decision.UNSPECIFIED)
        with pytest.raises(TypeError, match="on_conflict is a OnConflict"):
            client.lock("tweet:1", kind="reply", on_conflict="deny")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="on_preempted is called with the seconds left"):
            client.lock("tweet:1", kind="reply", on_preempted=3)  # type: ignore[arg-type]
    assert not server.calls


async def _lost(clock: Timeline, take: Callable[..., Any], *args: Any, **options: Any) -> None:
    heard: list[float] = []
    has_heard = asyncio.Event()

    def hear(left_s: float) -> None:
        heard.append(left_s)
        has_heard.set()

    block = take(*args, **options, on_preempted=hear)

    async def hold() -> None:
        async with block:
            await clock.advance(100)
            await has_heard.wait()
            await clock.advance(200)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await hold()
    assert block.is_preempted
    assert len(heard) == 1
    assert 179 < heard[0] < 201


async def test_a_renewal_that_says_so_ends_the_block_in_time_and_tells_it_once(
    server: ScriptedServer,
) -> None:
    clock = stepped_clock()
    server.answers["RequestLock"] = reply(pb.RequestLockResponse(granted=lock(expires_in_s=300)))
    server.answers["RenewLock"] = reply(pb.RenewLockResponse(lock=lock(expires_in_s=200, preempted=True)))
    async with Client(server.address, worker="w1", config=FAST, clock=clock) as client:
        await _lost(clock, client.lock, "tweet:1", kind="reply")
    assert server.names == ["RequestLock", "RenewLock"]


async def test_so_does_that_of_a_reservation_and_of_a_bundle(server: ScriptedServer) -> None:
    def held(s: int, **more: Any) -> reservation_pb2.Reservation:
        return reservation_pb2.Reservation(
            reservation_id=5, type="slot", worker="w1", expires_in={"seconds": s}, **more
        )

    def bundle(s: int, **more: Any) -> bundle_pb2.Bundle:
        return bundle_pb2.Bundle(
            bundle_id=7, worker="w1", reservations=[held(s, **more)], expires_in={"seconds": s}
        )

    clock = stepped_clock()
    server.answers |= {
        "ReserveResource": reply(reservation_pb2.ReserveResourceResponse(granted=held(300))),
        "RenewReservation": reply(
            reservation_pb2.RenewReservationResponse(reservation=held(200, preempted=True))
        ),
        "AcquireBundle": reply(bundle_pb2.AcquireBundleResponse(granted=bundle(300))),
        "RenewBundle": reply(bundle_pb2.RenewBundleResponse(bundle=bundle(200, preempted=True))),
        "ReleaseBundle": reply(bundle_pb2.ReleaseBundleResponse()),
    }
    async with Client(server.address, worker="w1", config=FAST, clock=clock) as client:
        await _lost(clock, client.reservation, "slot")
        await _lost(clock, client.bundle, claims.units("slot", 1))


async def test_the_double_denies_too() -> None:
    daemon = testing.InMemoryDaemon()
    async with daemon.client("w1") as client, daemon.client("w2") as other:
        async with client.lock("tweet:1", kind="reply"):
            block = other.lock("tweet:1", kind="reply", wait=60, on_conflict=OnConflict.DENY)
            with pytest.raises(Exception, match="HELD"):
                async with block:
                    pass
        async with other.lock("tweet:2", kind="reply", wait=60, on_conflict=OnConflict.DENY) as held:
            assert held.fencing_token
