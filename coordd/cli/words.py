"""Protobuf's enum values, instants and texts as words on a terminal, and an operator's words as enums."""

from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from coordd.cli.duration import format_duration
from coordd.v1 import common_pb2

__all__ = ["choices", "counted", "enum_value", "instant", "length", "printable", "refusal_sentence", "word"]


def printable(text: str) -> str:
    """The text with everything escaped that could move the cursor, break the line or change colours.

    Why: an upstream's headers and other people's reasons come through here, and a terminal obeys them.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def _prefix(enum: EnumDescriptor) -> str:
    name: str = enum.values_by_number[0].name
    return name.removesuffix("UNSPECIFIED")


# `Any`, because protobuf's enum wrappers have no public type in common.
def choices(wrapper: Any) -> list[str]:
    """The words an operator may choose from: `success`, `failure`, ... without the unspecified one."""
    enum: EnumDescriptor = wrapper.DESCRIPTOR
    return [value.name.removeprefix(_prefix(enum)).lower() for value in enum.values if value.number]


def enum_value(wrapper: Any, name: str) -> Any:
    """The enum value for one of `choices(wrapper)`."""
    return wrapper.Value(_prefix(wrapper.DESCRIPTOR) + name.upper())


def word(wrapper: Any, number: int) -> str:
    """An enum value without its prefix, as `HELD`; of a newer daemon's unknown value its number."""
    enum: EnumDescriptor = wrapper.DESCRIPTOR
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(_prefix(enum)) if value else str(number)


def counted(count: int, noun: str) -> str:
    """A count and what it counts: `1 lock`, `1,234 locks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def instant(timestamp: Timestamp, *, timespec: str = "seconds") -> str:
    """An instant in UTC, as the daemon's log writes it: `2026-11-23T16:00:48Z`."""
    seconds, microseconds = timestamp.seconds, timestamp.nanos // 1000
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds, tzinfo=None)
    return at.isoformat(timespec=timespec) + "Z"


def length(duration: Duration) -> str:
    """A duration in words that can be typed in again: `1h30m`."""
    return format_duration(duration.ToNanoseconds())


_SENTENCES = {
    common_pb2.REFUSAL_REASON_HELD: "{subject} is held by {holder}",
    common_pb2.REFUSAL_REASON_LOCK_DELAY: "{subject} rests: its last holder's lease ran out unreleased",
    common_pb2.REFUSAL_REASON_RECENTLY_ENGAGED: "{holder} has acted on {subject} recently",
    common_pb2.REFUSAL_REASON_UNITS_TAKEN: "{subject} has too few free units",
    common_pb2.REFUSAL_REASON_WINDOW_FULL: "the {window} window of {subject} is full",
    common_pb2.REFUSAL_REASON_QUEUED_AHEAD: "others who wait for {subject} go first",
    common_pb2.REFUSAL_REASON_BOOKING_EARLY: "the booking's time for {subject} has not come yet",
    common_pb2.REFUSAL_REASON_WAIT_TIMEOUT: "the wait for {subject} ran out of time",
    common_pb2.REFUSAL_REASON_SESSION_CLOSED: "the wait for {subject} ended with its worker's session",
    common_pb2.REFUSAL_REASON_SUPERSEDED: "a later wait for {subject} with this request id has replaced it",
    common_pb2.REFUSAL_REASON_GATE: "upstream has refused calls of {subject}: its gate is closed",
    common_pb2.REFUSAL_REASON_WOULD_TIME_OUT: "the wait for {subject} would last longer than it may",
    common_pb2.REFUSAL_REASON_ESCALATION_DENIED: "a coordination worker has decided against it: {subject}",
    common_pb2.REFUSAL_REASON_HEADROOM: "what is left of {subject} is kept for more urgent requests",
    common_pb2.REFUSAL_REASON_PACED: "calls of {subject} are spread evenly, and it is not time for the next",
}


def refusal_sentence(refusal: common_pb2.Refusal) -> str:
    """What stands in the way and until when: `tweet:1 is held by w7 (HELD), can succeed in 4m30s`."""
    sentence = _SENTENCES.get(refusal.reason, "{subject} stands in the way").format(
        subject=refusal.subject or "what was asked for",
        holder=refusal.holder or "another worker",
        window=length(refusal.window),
    )
    sentence += f" ({word(common_pb2.RefusalReason, refusal.reason)})"
    if refusal.HasField("retry_after"):
        sentence += f", can succeed in {length(refusal.retry_after)}"
    return sentence
