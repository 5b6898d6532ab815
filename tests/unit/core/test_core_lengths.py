import pytest

from coordd.core.lengths import spell_length
from coordd.core.limits import DAY, MILLISECOND, MINUTE, SECOND


@pytest.mark.parametrize(
    ("length_ns", "text"),
    [
        (0, "0s"),
        (7, "7ns"),
        (250 * MILLISECOND, "250ms"),
        (90 * MINUTE, "1h30m"),
        (DAY + 4 * SECOND, "1d4s"),
        (SECOND + 7, "1s"),
    ],
)
def test_lengths_are_spelt_as_the_configuration_has_them(length_ns: int, text: str) -> None:
    assert spell_length(length_ns) == text
