"""What the end of a block says to the daemon."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from client_servers import ScriptedServer, reply

from coordd.v1 import bundle_pb2, reservation_pb2
from coordd.v1 import rate_limit_pb2 as pb
from coordd_client import Client, HeldLock, HeldPermit, LeaseLost, Outcome, UsageResult, claims
from coordd_client.testing import InMemoryDaemon


def _nothing(_: Any) -> None:
    pass


class _FailedWork(Exception):
    pass


@pytest.mark.parametrize(
    ("say", "raises", "expected"),
    [
        (_nothing, False, Outcome.SUCCESS),
        (_nothing, True, Outcome.FAILURE),
        (HeldLock.failed, False, Outcome.FAILURE),
        (HeldLock.unknown, False, Outcome.UNKNOWN),
        (HeldLock.unknown, True, Outcome.UNKNOWN),
        (HeldLock.succeeded, True, Outcome.SUCCESS),
        (lambda held: (held.unknown(), held.succeeded()), True, Outcome.SUCCESS),
    ],
)
async def test_the_end_of_a_lock_goes_into_history(
    daemon: InMemoryDaemon, say: Callable[[HeldLock], object], *, raises: bool, expected: Outcome
):
    async with daemon.client("w1") as client:
        try:
            async with client.lock("tweet:1", kind="reply") as held:
                assert held.fencing_token == held.grant.fencing_token == 1
                say(held)
                if raises:
                    raise _FailedWork
        except _FailedWork:
            assert raises
    (engagement,) = daemon.history
    assert (engagement.item, engagement.kind, engagement.worker) == ("tweet:1", "reply", "w1")
    assert engagement.outcome is expected


@pytest.fixture
def granting(server: ScriptedServer) -> ScriptedServer:
    permit = pb.Permit(permit_id=5, endpoint="post", worker="w1", permits=2, use_within={"seconds": 10})
    server.answers["CanMakeRequest"] = reply(pb.CanMakeRequestResponse(granted=permit))
    server.answers["RecordUsage"] = reply(pb.RecordUsageResponse())
    return server


@pytest.mark.parametrize(
    ("say", "raises", "expected", "status_code"),
    [
        (_nothing, False, UsageResult.SUCCESS, 0),
        (_nothing, True, UsageResult.FAILURE, 0),
        (HeldPermit.failed, False, UsageResult.FAILURE, 0),
        (HeldPermit.not_sent, False, UsageResult.NOT_SENT, 0),
        (HeldPermit.not_sent, True, UsageResult.NOT_SENT, 0),
        (lambda held: held.response(201), False, UsageResult.SUCCESS, 201),
        (lambda held: held.response(201), True, UsageResult.SUCCESS, 201),
        (lambda held: held.response(429), False, UsageResult.FAILURE, 429),
        (lambda held: (held.response(404), held.succeeded()), True, UsageResult.SUCCESS, 404),
    ],
)
async def test_the_end_of_a_permit_settles_it(
    granting: ScriptedServer,
    client: Client,
    *,
    say: Callable[[HeldPermit], object],
    raises: bool,
    expected: UsageResult,
    status_code: int,
):
    try:
        async with client.permit("post", 2) as held:
            assert held.permit_id == 5
            assert 0 < held.use_within_s <= 10.0
            say(held)
            if raises:
                raise _FailedWork
    except _FailedWork:
        assert raises
    (request,) = granting.requests("RecordUsage")
    assert (request.endpoint, request.worker, request.permit_id) == ("post", "w1", 5)
    assert (request.result, request.status_code) == (expected, status_code)


@pytest.mark.parametrize("make", [dict, list])
async def test_headers_are_handed_over_as_they_came(
    granting: ScriptedServer, client: Client, make: Callable[[Any], Any]
):
    pairs = [("X-RateLimit-Remaining", "3"), ("Retry-After", "7")]
    async with client.permit("post") as held:
        held.response(429, make(pairs))
    (request,) = granting.requests("RecordUsage")
    assert [(header.name, header.value) for header in request.headers] == pairs


async def test_headers_that_the_daemon_would_refuse_do_not_cost_the_report(
    granting: ScriptedServer, client: Client
):
    unfit = [("", "x"), ("n" * 257, "x"), ("Set-Cookie", "v" * 4097), ("X-Raw", "\udcff")]
    many = [("X-Same", str(n)) for n in range(150)]
    async with client.permit("post") as held:
        held.response(200, unfit + many)
    (request,) = granting.requests("RecordUsage")
    assert [(header.name, header.value) for header in request.headers] == many[:100]


async def test_time_to_use_a_permit_is_counted_on_ones_own_clock(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client, client.permit("post") as held:
        assert held.use_within_s == 10.0
        await daemon.advance(4)
        assert held.use_within_s == 6.0
        await daemon.advance(40)
        assert held.use_within_s == 0.0, "late, but what is under way is not cancelled"


async def test_a_reservation_gives_back_what_it_did_not_use(server: ScriptedServer, client: Client):
    granted = reservation_pb2.Reservation(reservation_id=9, worker="w1", expires_in={"seconds": 60})
    server.answers["ReserveResource"] = reply(reservation_pb2.ReserveResourceResponse(granted=granted))
    server.answers["ReleaseResource"] = reply(reservation_pb2.ReleaseResourceResponse())
    async with client.reservation("api_quota", "tweet", units=5, ttl=60) as held:
        assert held.reservation_id == 9
        held.unused(2)
    (asked,) = server.requests("ReserveResource")
    assert (asked.type, asked.resource_id, asked.units, asked.ttl.ToSeconds()) == (
        "api_quota",
        "tweet",
        5,
        60,
    )
    (released,) = server.requests("ReleaseResource")
    assert (released.reservation_id, released.worker, released.unused_units) == (9, "w1", 2)


async def released(
    server: ScriptedServer, client: Client, work: Any
) -> reservation_pb2.ReleaseResourceRequest:
    granted = reservation_pb2.Reservation(reservation_id=9, worker="w1", expires_in={"seconds": 60})
    server.answers["ReserveResource"] = reply(reservation_pb2.ReserveResourceResponse(granted=granted))
    server.answers["ReleaseResource"] = reply(reservation_pb2.ReleaseResourceResponse())
    with contextlib.suppress(_FailedWork):
        async with client.reservation("db_connection", ttl=60) as held:
            work(held)
    (request,) = server.requests("ReleaseResource")
    return request


async def test_a_clean_end_says_that_the_work_went_well_and_how_long_it_took(
    server: ScriptedServer, client: Client
):
    request = await released(server, client, lambda _: None)
    assert request.work_result == reservation_pb2.WORK_RESULT_SUCCESS
    assert 0 < request.latency.ToNanoseconds() < 60 * 10**9


async def test_what_the_block_says_of_its_latency_is_told(server: ScriptedServer, client: Client):
    request = await released(server, client, lambda held: held.latency(1.5))
    assert request.work_result == reservation_pb2.WORK_RESULT_SUCCESS
    assert request.latency.ToMilliseconds() == 1500


async def test_so_does_a_bundle_of_its_reservations(server: ScriptedServer, client: Client):
    held = reservation_pb2.Reservation(reservation_id=9, worker="w1", expires_in={"seconds": 60})
    for reservations in ([held], []):
        granted = bundle_pb2.Bundle(
            bundle_id=8, worker="w1", reservations=reservations, expires_in={"seconds": 60}
        )
        server.answers["AcquireBundle"] = reply(bundle_pb2.AcquireBundleResponse(granted=granted))
        server.answers["ReleaseBundle"] = reply(bundle_pb2.ReleaseBundleResponse())
        for work in (lambda _: None, lambda bundle: bundle.latency(1.5), lambda bundle: bundle.overloaded()):
            async with client.bundle(claims.units("db_connection", 1)) as bundle:
                work(bundle)
    plain, measured, overloaded, *of_none = server.requests("ReleaseBundle")
    assert plain.work_result == measured.work_result == reservation_pb2.WORK_RESULT_SUCCESS
    assert 0 < plain.latency.ToNanoseconds() < 60 * 10**9
    assert measured.latency.ToMilliseconds() == 1500
    assert overloaded.work_result == reservation_pb2.WORK_RESULT_OVERLOADED
    assert not overloaded.HasField("latency")
    assert {each.work_result for each in of_none} == {reservation_pb2.WORK_RESULT_UNSPECIFIED}
    assert not any(each.HasField("latency") for each in of_none)


async def test_an_exception_says_nothing_of_the_resource(server: ScriptedServer, client: Client):
    request = await released(server, client, _fail)
    assert request.work_result == reservation_pb2.WORK_RESULT_UNSPECIFIED
    assert not request.HasField("latency")


async def test_an_overloaded_resource_is_told_whatever_comes_of_the_block(
    server: ScriptedServer, client: Client
):
    def work(held: Any) -> None:
        held.overloaded()
        _fail(held)

    request = await released(server, client, work)
    assert request.work_result == reservation_pb2.WORK_RESULT_OVERLOADED
    with pytest.raises(TypeError):
        client.reservation("db_connection").latency("long")  # type: ignore[arg-type]


def _fail(_: object) -> None:
    raise _FailedWork


async def test_a_block_is_entered_once_and_holds_nothing_before(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        block = client.lock("tweet:1", kind="reply")
        with pytest.raises(RuntimeError, match="before the block"):
            _ = block.fencing_token
        async with block:
            pass
        with pytest.raises(RuntimeError, match="only once"):
            await block.__aenter__()
    assert len(daemon.history) == 1


async def test_a_block_shows_what_it_is(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        lock = client.lock("tweet:1001", kind="reply", ttl=900)
        assert repr(lock) == "HeldLock('tweet:1001', kind='reply', not held yet)"
        async with lock:
            await daemon.advance(0.5)
            assert repr(lock) == "HeldLock('tweet:1001', kind='reply', token=1, left 899 s)"
        assert repr(lock) == "HeldLock('tweet:1001', kind='reply', token=1, ended)"
        units = client.reservation("memory", units=2, ttl=60)
        assert repr(units) == "HeldReservation('memory', units=2, not held yet)"
        async with units, client.reservation("content", "a", ttl=60) as resource:
            assert repr(units) == "HeldReservation('memory', units=2, id=2, left 60 s)"
            assert repr(resource) == "HeldReservation('content', 'a', id=3, left 60 s)"
        async with client.permit("post", 2) as permit:
            assert repr(permit) == "HeldPermit('post', permits=2, id=4, left 10 s)"


async def test_nothing_is_left_after_the_block(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        async with client.lock("tweet:1", kind="reply") as lock, client.permit("post") as permit:
            assert lock.left_s > 0
            assert permit.use_within_s > 0
        assert (lock.left_s, permit.left_s, permit.use_within_s) == (0.0, 0.0, 0.0)
        with pytest.raises(_FailedWork):
            async with client.lock("tweet:2", kind="reply") as lock:
                raise _FailedWork
        assert lock.left_s == 0.0
        with pytest.raises(LeaseLost):
            async with client.lock("tweet:3", kind="reply") as lock:
                daemon.force_release(lock.fencing_token)
        assert lock.left_s == 0.0


async def test_closing_while_something_is_held_names_it(daemon: InMemoryDaemon):
    client = daemon.client("w1")
    async with client.lock("tweet:1", kind="reply", ttl=60), client.permit("post"):
        with pytest.warns(ResourceWarning) as warned:
            await client.close()
    told = sorted(str(each.message) for each in warned)
    assert told == [
        "the client is closed while it holds HeldLock('tweet:1', kind='reply', token=1, left 60 s)",
        "the client is closed while it holds HeldPermit('post', permits=1, id=2, left 10 s)",
    ]
    assert {each.filename for each in warned} == {__file__}
    await client.close()


async def test_so_does_the_end_of_its_block(daemon: InMemoryDaemon):
    async with daemon.client("w1") as client:
        block = client.lock("tweet:1", kind="reply", ttl=60)
        await block.__aenter__()
        with pytest.warns(ResourceWarning, match="holds HeldLock") as warned:
            await client.__aexit__(None, None, None)
        await block.__aexit__(None, None, None)
    assert warned[0].filename == __file__
