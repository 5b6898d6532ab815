import pytest

from coordd.core import errors


def test_every_dynamic_part_is_in_the_metadata_as_text() -> None:
    error = errors.OutOfRange("UNITS_ABOVE_CAPACITY", "5 are more than 3.", units=5, pool="conns")
    assert str(error) == error.message == "5 are more than 3."
    assert error.reason == "UNITS_ABOVE_CAPACITY"
    assert error.metadata == {"units": "5", "pool": "conns"}


@pytest.mark.parametrize(
    "kind",
    [
        errors.InvalidArgument,
        errors.OutOfRange,
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.ResourceExhausted,
    ],
)
def test_every_error_is_a_command_error(kind: type[errors.CommandError]) -> None:
    assert issubclass(kind, errors.CommandError)
