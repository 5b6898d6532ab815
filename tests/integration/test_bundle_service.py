"""BundleService over the wire: one commit, waits, events, a drain; and bad input, which changes nothing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from daemon_api import Api, TimeSource, length, nothing_changes, refusal, rest, stream_refusal, until
from google.protobuf.duration_pb2 import Duration

from coordd.server import Daemon
from coordd.v1 import admin_pb2, bundle_pb2, common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2

NEVER = 2**63 - 1
INVALID, LATE, NONE, RANGE = "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "OUT_OF_RANGE"


def lock(item: str = "i", kind: str = "analysis", **more: Any) -> bundle_pb2.Claim:
    return bundle_pb2.Claim(lock=bundle_pb2.LockClaim(item=item, kind=kind, **more))


def units(count: int = 2, type_: str = "slot", **more: Any) -> bundle_pb2.Claim:
    return bundle_pb2.Claim(reservation=bundle_pb2.ReservationClaim(type=type_, units=count, **more))


def permit(endpoint: str = "post", count: int = 1) -> bundle_pb2.Claim:
    return bundle_pb2.Claim(permit=bundle_pb2.PermitClaim(endpoint=endpoint, permits=count))


def never(item: str = "i", within: Any = None, **more: Any) -> bundle_pb2.NotEngaged:
    return bundle_pb2.NotEngaged(item=item, within=within or length(3600), **more)


def acquire(*claims: bundle_pb2.Claim, worker: str = "w1", **more: Any) -> bundle_pb2.AcquireBundleRequest:
    return bundle_pb2.AcquireBundleRequest(worker=worker, claims=claims, **more)


async def take(api: Api, *claims: bundle_pb2.Claim, **more: Any) -> Any:
    response = await api.bundle.AcquireBundle(acquire(*claims, **more))
    assert response.HasField("granted"), response
    return response.granted


def release(bundle: Any, outcome: int = engagement_pb2.OUTCOME_SUCCESS, **more: Any) -> Any:
    given = {"bundle_id": bundle.bundle_id, "worker": bundle.worker, "outcome": outcome}
    return bundle_pb2.ReleaseBundleRequest(**given | more)


async def counts(api: Api) -> tuple[int, int, int, int]:
    status = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
    return status.locks, status.reservations, status.permits, status.bundles


async def test_a_bundle_is_granted_renewed_and_released_whole(api: Api) -> None:
    bundle = await take(api, permit(), units(), lock(ttl=length(60)), not_engaged=[never()])
    assert [each.item for each in bundle.locks] == ["i"]
    assert [(each.type, each.units) for each in bundle.reservations] == [("slot", 2)]
    assert [each.endpoint for each in bundle.permits] == ["post"]
    assert list(bundle.lease_ids) == [bundle.locks[0].fencing_token, bundle.reservations[0].reservation_id]
    assert 0 < bundle.expires_in.ToNanoseconds() <= 60 * 10**9
    assert await counts(api) == (1, 1, 1, 1)
    renew = bundle_pb2.RenewBundleRequest(bundle_id=bundle.bundle_id, worker="w1")
    renewed = (await api.bundle.RenewBundle(renew)).bundle
    assert renewed.locks[0].expires_at.ToNanoseconds() > bundle.locks[0].expires_at.ToNanoseconds()
    usage = bundle_pb2.PermitUsage(
        permit_id=bundle.permits[0].permit_id,
        endpoint="post",
        result=rate_limit_pb2.USAGE_RESULT_NOT_SENT,
    )
    released = await api.bundle.ReleaseBundle(release(bundle, usages=[usage]))
    assert (released.already_released, released.refunded) == (False, 1)
    assert [entry.outcome for entry in released.engagements] == [engagement_pb2.OUTCOME_SUCCESS]
    assert await counts(api) == (0, 0, 0, 0)
    again = await api.bundle.ReleaseBundle(release(bundle, usages=[usage]))
    assert (again.already_released, again.refunded, len(again.engagements)) == (True, 0, 0)


async def test_the_same_request_has_the_same_bundle_also_as_a_wait(api: Api) -> None:
    bundle = await take(api, lock(), permit(), request_id="r")
    again = await take(api, permit(), lock(), request_id="r")
    assert again.bundle_id == bundle.bundle_id
    wait = bundle_pb2.AwaitBundleRequest(worker="w1", claims=[lock(), permit()], request_id="r")
    [event] = [event async for event in rest(api.bundle.AwaitBundle(wait))]
    assert event.granted.bundle_id == bundle.bundle_id
    code = (await refusal(api.bundle.AcquireBundle(acquire(lock(), request_id="r"))))[0]
    assert code == "ALREADY_EXISTS"


async def test_a_wait_tells_what_blocks_it_and_ends_with_all_of_it(api: Api) -> None:
    held = await api.lock("w2")
    wait = bundle_pb2.AwaitBundleRequest(worker="w1", claims=[permit(), lock()], wait_timeout=length(60))
    stream = api.bundle.AwaitBundle(wait)
    blocked_by = (await stream.read()).queued.blocked_by
    assert (blocked_by.reason, blocked_by.subject) == (common_pb2.REFUSAL_REASON_HELD, "i")
    await api.unlock(held)
    *_, last = [event async for event in rest(stream)]
    assert (len(last.granted.locks), len(last.granted.permits)) == (1, 1)


async def test_a_grant_whose_stream_has_gone_goes_back_whole(api: Api) -> None:
    held = await api.lock("w2")
    claims = [lock(), units(), permit()]
    streams = []
    for worker in ("w1", "w3"):
        wait = bundle_pb2.AwaitBundleRequest(worker=worker, claims=claims, wait_timeout=length(60))
        stream = api.bundle.AwaitBundle(wait)
        assert (await stream.read()).HasField("queued")
        streams.append(stream)
    streams[0].cancel()
    await api.unlock(held)
    *_, last = [event async for event in rest(streams[1])]
    assert last.granted.worker == "w3"

    async def is_alone() -> bool:
        return await counts(api) == (1, 1, 1, 1)

    await until(is_alone)


async def test_watchers_see_the_bundle_and_not_its_members(api: Api) -> None:
    watch = api.admin.WatchEvents(admin_pb2.WatchEventsRequest(worker="w1"))
    await watch.initial_metadata()
    bundle = await take(api, lock(), units(), permit())
    await api.bundle.ReleaseBundle(release(bundle))
    seen = [await watch.read() for _ in range(2)]
    assert [(event.type, event.subject, event.id, event.units) for event in seen] == [
        (admin_pb2.EVENT_TYPE_GRANTED, admin_pb2.SUBJECT_BUNDLE, bundle.bundle_id, 3),
        (admin_pb2.EVENT_TYPE_RELEASED, admin_pb2.SUBJECT_BUNDLE, bundle.bundle_id, 3),
    ]
    watch.cancel()


async def test_an_operator_may_take_a_bundle(api: Api) -> None:
    bundle = await take(api, lock(), units())
    force = admin_pb2.ForceReleaseRequest(id=bundle.bundle_id, reason="test")
    taken = await api.admin.ForceRelease(force)
    assert (taken.subject, taken.worker) == (admin_pb2.SUBJECT_BUNDLE, "w1")
    assert await counts(api) == (0, 0, 0, 0)


async def test_a_daemon_that_drains_grants_no_bundle_and_takes_them_back(api: Api) -> None:
    bundle = await take(api, lock())
    await api.admin.Drain(admin_pb2.DrainRequest(reason="test"))
    code, reason, _ = await refusal(api.bundle.AcquireBundle(acquire(lock("j"))))
    assert (code, reason) == ("UNAVAILABLE", "DRAINING")
    wait = bundle_pb2.AwaitBundleRequest(worker="w1", claims=[lock("j")])
    assert (await stream_refusal(api.bundle.AwaitBundle(wait)))[:2] == ("UNAVAILABLE", "DRAINING")
    renew = bundle_pb2.RenewBundleRequest(bundle_id=bundle.bundle_id, worker="w1")
    assert (await api.bundle.RenewBundle(renew)).bundle.bundle_id == bundle.bundle_id
    assert not (await api.bundle.ReleaseBundle(release(bundle))).already_released


# ---- bad input


@pytest.fixture
async def unchanged(api: Api, daemon: Daemon, time_source: TimeSource) -> AsyncIterator[Any]:
    """A bundle, and the whole state after the test as it was before, ids given included."""
    bundle = await take(api, lock(), units(), permit(), request_id="bundle-1")
    async with nothing_changes(daemon, time_source):
        yield bundle


def named(bundle: Any, **more: Any) -> dict[str, Any]:
    return {"bundle_id": bundle.bundle_id, "worker": "w1"} | more


FORMS = [
    (INVALID, "INVALID_COUNT", acquire()),
    (INVALID, "INVALID_COUNT", acquire(*(lock(f"i{n}") for n in range(17)))),
    (INVALID, "INVALID_COUNT", acquire(permit(), not_engaged=[never()] * 17)),
    (INVALID, "INVALID_CLAIM", acquire(bundle_pb2.Claim())),
    (INVALID, "INVALID_ID", acquire(lock("j"), worker="")),
    (INVALID, "INVALID_ID", acquire(lock(""))),
    (INVALID, "INVALID_ID", acquire(lock("j\n"))),
    (INVALID, "INVALID_ID", acquire(lock("j", kind=""))),
    (INVALID, "INVALID_ID", acquire(lock("j"), request_id="x" * 129)),
    (INVALID, "INVALID_ID", acquire(units(type_=""))),
    (INVALID, "INVALID_ID", acquire(permit(""))),
    (INVALID, "INVALID_ID", acquire(permit(), not_engaged=[never("")])),
    (INVALID, "INVALID_DURATION", acquire(lock("j", ttl=length(0.01)))),
    (INVALID, "INVALID_DURATION", acquire(lock("j", ttl=Duration(seconds=2**62)))),
    (INVALID, "INVALID_DURATION", acquire(units(ttl=length(86_401)))),
    (INVALID, "INVALID_DURATION", acquire(permit(), not_engaged=[bundle_pb2.NotEngaged(item="j")])),
    (INVALID, "INVALID_DURATION", acquire(permit(), not_engaged=[never(within=Duration(nanos=-1))])),
    (INVALID, "INVALID_QUALITY", acquire(lock("j"), quality=1.5)),
    (INVALID, "INVALID_ENUM", acquire(lock("j"), priority=9)),
    (INVALID, "UNKNOWN_KIND", acquire(lock("j", kind="nope"))),
    (INVALID, "UNKNOWN_KIND", acquire(permit(), not_engaged=[never(kinds=["nope"])])),
    (INVALID, "UNKNOWN_TYPE", acquire(units(type_="nope"))),
    (INVALID, "UNKNOWN_ENDPOINT", acquire(permit("nope"))),
    (INVALID, "DUPLICATE_CLAIM", acquire(lock("j"), lock("j", kind="reply"))),
    (INVALID, "DUPLICATE_CLAIM", acquire(permit(), permit(count=2))),
    (INVALID, "DUPLICATE_CLAIM", acquire(units(1), units(1))),
    (RANGE, "UNITS_ABOVE_CAPACITY", acquire(units(4))),
    (RANGE, "UNITS_ABOVE_CAPACITY", acquire(units(2**32 - 1))),
    (RANGE, "PERMITS_ABOVE_LIMIT", acquire(permit(count=4))),
    (RANGE, "PERMITS_ABOVE_LIMIT", acquire(lock(), permit(count=2**32 - 1))),
    (RANGE, "BEYOND_HISTORY", acquire(permit(), not_engaged=[never(within=length(86_400 * 3_000))])),
    ("ALREADY_EXISTS", "REQUEST_ID_REUSED", acquire(lock(), request_id="bundle-1")),
    (NONE, "UNKNOWN_ID", bundle_pb2.RenewBundleRequest(bundle_id=NEVER, worker="w1")),
    (NONE, "UNKNOWN_ID", bundle_pb2.RenewBundleRequest(worker="w1")),
    (INVALID, "INVALID_ID", bundle_pb2.RenewBundleRequest(bundle_id=1)),
    (NONE, "UNKNOWN_ID", bundle_pb2.ReleaseBundleRequest(bundle_id=NEVER, worker="w1")),
    (INVALID, "INVALID_ENUM", bundle_pb2.ReleaseBundleRequest(bundle_id=1, worker="w1", outcome=9)),
    (INVALID, "INVALID_ENUM", bundle_pb2.ReleaseBundleRequest(bundle_id=1, worker="w1", work_result=3)),
    (
        INVALID,
        "INVALID_DURATION",
        bundle_pb2.ReleaseBundleRequest(bundle_id=1, worker="w1", latency=Duration(nanos=-1)),
    ),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("code", "reason", "request_"), FORMS, ids=lambda value: str(value)[:24])
async def test_a_wrong_form(api: Api, code: str, reason: str, request_: Any) -> None:
    method = getattr(api.bundle, type(request_).__name__.removesuffix("Request"))
    assert (await refusal(method(request_)))[:2] == (code, reason)


async def test_the_wrong_one_of_several_claims_is_named(api: Api) -> None:
    for claim, field in ((lock("j", kind=""), "claims[1].kind"), (bundle_pb2.Claim(), "claims[1]")):
        _, _, metadata = await refusal(api.bundle.AcquireBundle(acquire(permit(), claim)))
        assert metadata["field"] == field


async def test_a_wrong_release_or_renewal(api: Api, unchanged: Any) -> None:
    bundle, other = unchanged, NEVER
    token, right = bundle.locks[0].fencing_token, bundle.permits[0].permit_id

    def usage(**more: Any) -> Any:
        given = {"permit_id": right, "endpoint": "post", "result": 1}
        return bundle_pb2.PermitUsage(**given | more)

    def outcome(**more: Any) -> Any:
        return bundle_pb2.LockOutcome(**{"fencing_token": token, "outcome": 1} | more)

    for code, reason, fields in (
        (LATE, "NOT_HOLDER", {"worker": "w2", "outcome": 1}),
        (INVALID, "INVALID_ENUM", {}),
        (INVALID, "INVALID_ENUM", {"outcomes": [outcome(outcome=0)]}),
        (NONE, "UNKNOWN_ID", {"outcome": 1, "outcomes": [outcome(fencing_token=other)]}),
        (INVALID, "INVALID_COUNT", {"outcome": 1, "outcomes": [outcome()] * 17}),
        (INVALID, "INVALID_COUNT", {"outcome": 1, "usages": [usage()] * 17}),
        (INVALID, "INVALID_ENUM", {"outcome": 1, "usages": [usage(result=0)]}),
        (INVALID, "INVALID_ID", {"outcome": 1, "usages": [usage(endpoint="")]}),
        (INVALID, "UNKNOWN_ENDPOINT", {"outcome": 1, "usages": [usage(endpoint="nope")]}),
        (LATE, "NOT_HOLDER", {"outcome": 1, "usages": [usage(endpoint="brief")]}),
        (INVALID, "INVALID_COUNT", {"outcome": 1, "usages": [usage(status_code=99)]}),
        (LATE, "NOT_HOLDER", {"outcome": 1, "usages": [usage(permit_id=bundle.bundle_id)]}),
    ):
        request = bundle_pb2.ReleaseBundleRequest(**named(bundle, **fields))
        assert (await refusal(api.bundle.ReleaseBundle(request)))[:2] == (code, reason), fields
    renew = bundle_pb2.RenewBundleRequest(**named(bundle, worker="w2"))
    assert (await refusal(api.bundle.RenewBundle(renew)))[:2] == (LATE, "NOT_HOLDER")


async def test_what_a_bundle_holds_others_may_not_and_its_holder_may_end_singly(api: Api) -> None:
    bundle = await take(api, lock(), units(3))
    busy = await api.engagement.RequestLock(
        engagement_pb2.RequestLockRequest(item="i", kind="analysis", worker="w2")
    )
    assert busy.refused.holder == "w1"
    await api.unlock(bundle.locks[0])
    await api.reservation.ReleaseResource(
        reservation_pb2.ReleaseResourceRequest(
            reservation_id=bundle.reservations[0].reservation_id, worker="w1"
        )
    )
    assert await counts(api) == (0, 0, 0, 0)
    assert (await api.bundle.ReleaseBundle(release(bundle))).already_released


async def test_a_stream_refuses_a_wrong_form_as_well(api: Api) -> None:
    for fields, reason in (
        ({"claims": []}, "INVALID_COUNT"),
        ({"claims": [lock()], "wait_timeout": length(0)}, "INVALID_DURATION"),
        ({"claims": [lock()], "on_conflict": 9}, "INVALID_ENUM"),
    ):
        wait = bundle_pb2.AwaitBundleRequest(worker="w1", **fields)
        assert (await stream_refusal(api.bundle.AwaitBundle(wait)))[:2] == (INVALID, reason)
