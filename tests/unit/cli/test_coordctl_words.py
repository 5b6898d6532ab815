import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from coordd.cli.duration import duration_of, format_duration, parse_duration
from coordd.cli.words import choices, enum_value, instant, printable, refusal_sentence, word
from coordd.v1 import common_pb2, engagement_pb2

S = 10**9


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("30s", 30 * S), ("5m", 300 * S), ("1h30m", 5400 * S), ("7d", 604_800 * S), ("250ms", S // 4),
        ("1.5s", 3 * S // 2), ("0s", 0), ("1d1h1m1s1ms", 90_061 * S + S // 1000),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, duration_ns: int) -> None:
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-5s", "5 m", "5x", "1h30", "nan", "1e3s", "٣s", "99999999d", "5s\n"]
)
def test_what_is_no_duration_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer than"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"), (1_200_000, "1.2ms"), (850_000, "0.85ms"), (S, "1s"), (59_999_999_999, "59.999s"),
        (60 * S, "1m"), (900 * S, "15m"), (86_400 * S, "1d"), (90_061 * S, "1d1h1m1s"), (-5 * S, "-5s"),
    ],
)  # fmt: skip
def test_durations_are_written(duration_ns: int, text: str) -> None:
    assert format_duration(duration_ns) == text


@given(st.integers(0, 10 * 365 * 86_400))
def test_whole_seconds_that_are_shown_can_be_typed_in_again(seconds: int) -> None:
    assert parse_duration(format_duration(seconds * S)) == seconds * S


def test_an_absent_duration_stays_absent() -> None:
    assert duration_of(None) is None
    assert duration_of(S // 2) == Duration(nanos=500_000_000)


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    assert printable(text).isprintable()


def test_an_escape_sequence_is_shown_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\u2028é") == "a\\x1b[2Jb\\u2028é"


def test_words_and_enum_values() -> None:
    assert choices(engagement_pb2.Outcome) == ["success", "failure", "unknown"]
    assert enum_value(engagement_pb2.Outcome, "unknown") == engagement_pb2.OUTCOME_UNKNOWN
    assert word(common_pb2.RefusalReason, common_pb2.REFUSAL_REASON_HELD) == "HELD"
    assert word(common_pb2.RefusalReason, 999) == "999"


def test_instants_are_utc() -> None:
    timestamp = Timestamp(seconds=1_795_449_648, nanos=123_456_789)
    assert instant(timestamp) == "2026-11-23T16:00:48Z"
    assert instant(timestamp, timespec="milliseconds") == "2026-11-23T16:00:48.123Z"


@pytest.mark.parametrize("reason", common_pb2.RefusalReason.values())
def test_every_reason_has_a_sentence_with_its_name(reason: common_pb2.RefusalReason.ValueType) -> None:
    refusal = common_pb2.Refusal(reason=reason, subject="tweet:1", holder="w1", window=Duration(seconds=900))
    sentence = refusal_sentence(refusal)
    assert "tweet:1" in sentence
    assert f"({word(common_pb2.RefusalReason, reason)})" in sentence
    assert reason == common_pb2.REFUSAL_REASON_UNSPECIFIED or "stands in the way" not in sentence
