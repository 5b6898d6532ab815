"""ReservationService over the wire."""

from typing import Any

from daemon_api import Api, length

from coordd.v1 import common_pb2
from coordd.v1 import reservation_pb2 as pb


async def request(api: Api, type_: str, **more: Any) -> Any:
    return await api.reservation.ReserveResource(
        pb.ReserveResourceRequest(**{"type": type_, "worker": "w2"} | more)
    )


async def release(api: Api, held: Any, **more: Any) -> Any:
    return await api.reservation.ReleaseResource(
        pb.ReleaseResourceRequest(reservation_id=held.reservation_id, worker=held.worker, **more)
    )


async def check(api: Api, type_: str, **more: Any) -> Any:
    return await api.reservation.CheckAvailability(pb.CheckAvailabilityRequest(type=type_, **more))


async def test_a_resource_is_exclusive_by_its_id(api: Api) -> None:
    held = await api.reserve("db_connection", resource_id="primary", ttl=length(60))
    assert (held.type, held.resource_id, held.pool, held.units) == ("db_connection", "primary", "", 0)
    refused = (await request(api, "db_connection", resource_id="primary")).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_HELD
    assert (refused.subject, refused.holder) == ("db_connection/primary", "w1")
    assert (await request(api, "db_connection", resource_id="replica")).HasField("granted")


async def test_units_come_from_a_pool_until_it_is_empty(api: Api) -> None:
    held = await api.reserve("slot", units=2)
    assert (held.pool, held.units) == ("small", 2)
    refused = (await request(api, "slot", units=2)).refused
    assert (refused.reason, refused.subject) == (common_pb2.REFUSAL_REASON_UNITS_TAKEN, "small")
    assert (await request(api, "slot")).granted.units == 1
    assert not (await release(api, held)).already_released
    assert (await request(api, "slot", units=2)).HasField("granted")


async def test_a_release_can_be_repeated(api: Api) -> None:
    held = await api.reserve("slot")
    assert not (await release(api, held)).already_released
    assert (await release(api, held)).already_released


async def test_a_renewal_moves_the_end(api: Api) -> None:
    held = await api.reserve("memory", resource_id="m", ttl=length(60))
    response = await api.reservation.RenewReservation(
        pb.RenewReservationRequest(reservation_id=held.reservation_id, worker="w1", ttl=length(600))
    )
    assert response.reservation.expires_in.ToSeconds() > 60


async def test_the_same_request_id_gets_the_same_reservation(api: Api) -> None:
    first = await api.reserve("slot", units=2, request_id="r")
    again = await api.reserve("slot", units=2, request_id="r")
    assert again.reservation_id == first.reservation_id
    assert (await check(api, "slot")).free_units == 1


async def test_availability_says_what_a_request_would_get(api: Api) -> None:
    free = await check(api, "slot", units=3)
    assert (free.available, free.free_units, free.capacity) == (True, 3, 3)
    assert free.estimated_wait.ToSeconds() == 0
    held = await api.reserve("slot", units=3)
    taken = await check(api, "slot")
    assert (taken.available, taken.queue_position, taken.free_units) == (False, 1, 0)
    assert taken.blocked_by.reason == common_pb2.REFUSAL_REASON_UNITS_TAKEN
    assert not taken.HasField("estimated_wait")
    await release(api, held)
    await api.reserve("slot", units=3)
    assert (await check(api, "slot")).HasField("estimated_wait")


async def test_a_quota_refills_by_window_and_unused_units_go_back(api: Api) -> None:
    ask = pb.ReserveApiQuotaRequest(worker="w1", operation="tweet", units=50)
    held = (await api.reservation.ReserveApiQuota(ask)).granted
    assert (held.type, held.resource_id, held.pool, held.units) == ("api_quota", "tweet", "api_tweets", 50)
    one = pb.ReserveApiQuotaRequest(worker="w2", operation="tweet")
    refused = (await api.reservation.ReserveApiQuota(one)).refused
    assert refused.reason == common_pb2.REFUSAL_REASON_WINDOW_FULL
    assert refused.window.ToSeconds() == 3600
    await release(api, held, unused_units=10)
    assert (await api.reservation.ReserveApiQuota(one)).granted.units == 1
    other = pb.ReserveApiQuotaRequest(worker="w2", operation="search")
    assert (await api.reservation.ReserveApiQuota(other)).granted.pool == "api_requests"


async def test_reservations_are_listed_in_pages(api: Api) -> None:
    for number in range(3):
        await api.reserve("memory", "w1" if number else "w2", resource_id=f"m{number}")
    await api.reserve("slot")
    first = await api.reservation.ListReservations(pb.ListReservationsRequest(page_size=3))
    assert [held.resource_id for held in first.reservations] == ["m0", "m1", "m2"]
    second = await api.reservation.ListReservations(
        pb.ListReservationsRequest(page_size=3, page_token=first.next_page_token)
    )
    assert [held.type for held in second.reservations] == ["slot"]
    assert not second.next_page_token
    own = await api.reservation.ListReservations(pb.ListReservationsRequest(worker="w1", type="memory"))
    assert [held.resource_id for held in own.reservations] == ["m1", "m2"]
