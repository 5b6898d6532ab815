import pytest

from coordd.core import commands


def test_commands_are_frozen() -> None:
    command = commands.LeaveWait(id=1)
    with pytest.raises(AttributeError):
        command.id = 2  # type: ignore[misc]


def test_not_saying_how_long_to_wait_means_not_to_wait() -> None:
    assert commands.RequestLock(item="a", kind="like", worker="w1").wait_ns == 0
    assert commands.ReserveResource(type="db", worker="w1").wait_ns == 0
    assert commands.TakePermit(endpoint="e", worker="w1").wait_ns == 0
