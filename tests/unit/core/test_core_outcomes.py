from core_desk import Desk

from coordd.core.outcomes import Reason, grant_id


def test_a_lock_is_named_by_its_token_and_anything_else_by_its_id(desk: Desk) -> None:
    lock, permit, booking, held = desk.lock(), desk.permit(), desk.book(), desk.reserve()
    assert [grant_id(grant) for grant in (lock, permit, booking, held)] == [
        lock.token,
        permit.id,
        booking.id,
        held.id,
    ]


def test_reasons_are_numbered_without_gaps() -> None:
    assert [reason.value for reason in Reason] == list(range(1, len(Reason) + 1))
