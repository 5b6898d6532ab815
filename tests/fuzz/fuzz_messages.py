"""Messages of any type, hostile or nearly right, made from the proto descriptors: nothing to keep in step.

Rules: of a message's fields few are hostile and most are right, with names and ids that the daemon knows, so
that it gets past the checks of form and meets the state machine; or else only the first field's check would
ever be tried. Why a seeded generator and not Hypothesis: what a call meets depends on all that were made
before it, so a single example neither replays nor shrinks; a seed replays the whole.
"""

import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_DEPTH_MAX: Final = 4
_WELL_KNOWN: Final = ("google.protobuf.Duration", "google.protobuf.Timestamp")
_HOSTILE_CHANCE: Final = 1 / 16
_ABSENT_CHANCE: Final = 1 / 3
# Without these hardly any message is right.
_NEEDED: Final = {
    "item", "worker", "kind", "type", "endpoint", "operation", "name", "outcome", "result", "reason",
    "claims", "within", "decision", "decided_by",
}  # fmt: skip

# What is right, by field, where its type does not say.
_RIGHT: Final[dict[str, list[Any]]] = {
    "item": ["i", "j", "tweet:1"],
    "worker": ["w1", "w2"],
    "kind": ["reply", "like", "analysis"],
    "kinds": ["reply", "like"],
    "type": ["slot", "slot", "burst", "memory"],
    "resource_id": ["m1", "m2"],
    "operation": ["tweet", "search"],
    "endpoint": ["post", "brief"],
    "name": ["small", "burst", "content_pipeline"],
    "request_id": ["", "r1", "r2", "r3", "r4"],
    "reason": ["because"],
    "page_token": [""],
    "status_code": [200, 429, 503],
    "quality": [0.0, 0.5, 0.95],
    "weight": [1.0, 2.0],
    "capacity": [2, 3],
    "limit": [30, 50],
    "units": [1, 2],
    "permits": [1, 2],
    "unused_units": [0, 1],
    "unpin": [False],
}
# In seconds; a wait that lasted longer would only make the test last longer.
_LENGTHS: Final = {"wait_timeout": [0.002, 0.02], "window": [900, 3600]}
_TEXTS: Final = [
    "",
    " ",
    "\x00",
    "\n",
    "\u202e",
    "x" * 65,
    "x" * 129,
    "ü" * 512,
    "a" * 100_000,
    "'; --",
    "%s{}",
]
_REALS: Final = [0.0, -0.0, 1.0, -1.0, 1e300, 5e-324, float("inf"), float("-inf"), float("nan")]
_RANGES: Final = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_EDGES: Final = [0, 1, 2, 100, 1_000_000_000, 2**31 - 1, 2**53, 2**62]


class Messages:
    """Makes messages. `ids`: what the daemon has given out so far, to be named again."""

    def __init__(self, random: Random) -> None:
        self.ids: list[int] = [1]
        self._random = random

    def make(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Return a message of one type."""
        message = GetMessageClass(descriptor)()
        left_out = self._others(descriptor)
        for field in descriptor.fields:
            if field.name not in left_out and (depth < _DEPTH_MAX or field.message_type is None):
                self._fill(message, field, depth)
        return message

    def _others(self, descriptor: Descriptor) -> set[str]:
        """Return those of each `oneof` that are not the one: mostly the first, as in most first messages."""
        others: set[str] = set()
        for oneof in descriptor.oneofs:
            names = [field.name for field in oneof.fields]
            others |= {*names} - {self._random.choice(names[:1] * 2 + names)}
        return others

    def _fill(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        is_hostile = self._random.random() < _HOSTILE_CHANCE
        is_needed = is_hostile or field.name in _NEEDED or field.containing_oneof is not None
        if not is_needed and self._random.random() < _ABSENT_CHANCE:
            return
        if field.is_repeated:
            for _ in range(self._random.randint(int(is_needed and not is_hostile), 300 if is_hostile else 2)):
                self._add(message, field, depth)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self._inner(field, depth, is_hostile=is_hostile))
        else:
            setattr(message, field.name, self._scalar(field, is_hostile=is_hostile))

    def _add(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        values, entry = getattr(message, field.name), field.message_type
        if entry is None:
            values.append(self._scalar(field))
        elif entry.GetOptions().map_entry:
            key = self._scalar(entry.fields_by_name["key"])
            values[key] = self._scalar(entry.fields_by_name["value"])
        else:
            values.append(self._inner(field, depth))

    def _inner(self, field: FieldDescriptor, depth: int, *, is_hostile: bool = False) -> Message:
        descriptor = field.message_type
        assert descriptor is not None
        if descriptor.full_name not in _WELL_KNOWN:
            return self.make(descriptor, depth + 1)
        if is_hostile:
            seconds = self._integer(FieldDescriptor.TYPE_INT64)
            nanos = self._integer(FieldDescriptor.TYPE_INT32)
        else:
            length_s = self._random.choice(_LENGTHS.get(field.name, [1, 60]))
            seconds, nanos = int(length_s), round(length_s % 1 * 1e9)
        made: Message = GetMessageClass(descriptor)(seconds=seconds, nanos=nanos)
        return made

    def _scalar(self, field: FieldDescriptor, *, is_hostile: bool = False) -> Any:
        if field.enum_type is not None:
            known = [value.number for value in field.enum_type.values]
            return self._random.choice([0, -1, 99, 2**31 - 1] if is_hostile else known[1:])
        if is_hostile:
            return self._hostile(field.type)
        if field.name in _RIGHT:
            return self._random.choice(_RIGHT[field.name])
        if field.type in _RANGES and (field.name == "fencing_token" or field.name.endswith("id")):
            return self._random.choice(self.ids[-6:])
        return self._random.choice(_PLAIN.get(field.type, [0, 1, 2, 3]))

    def _hostile(self, type_: int) -> Any:
        if type_ in _RANGES:
            return self._integer(type_)
        if type_ in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return self._random.choice(_REALS)
        if type_ == FieldDescriptor.TYPE_BOOL:
            return True
        if type_ == FieldDescriptor.TYPE_BYTES:
            return self._random.randbytes(40)
        points = [self._random.choice([0x20, 0x7F, 0xFF, 0x2028, 0xFFFF, 0x1F600]) for _ in range(8)]
        return self._random.choice([*_TEXTS, "".join(map(chr, points))])

    def _integer(self, type_: int) -> int:
        low, high = _RANGES[type_]
        edges = [low, high, *(edge for edge in (*_EDGES, -1) if low <= edge <= high)]
        return self._random.choice([*edges, self._random.randint(low, high)])

    def garbled(self, data: bytes) -> bytes:
        """Return what is nearly `data`."""
        return self._random.choice(_GARBLERS)(self._random, data)


_PLAIN: Final[dict[int, list[Any]]] = {
    FieldDescriptor.TYPE_BOOL: [False, True],
    FieldDescriptor.TYPE_BYTES: [b"x"],
    FieldDescriptor.TYPE_STRING: ["a", "b"],
    FieldDescriptor.TYPE_DOUBLE: [0.5],
    FieldDescriptor.TYPE_FLOAT: [0.5],
}


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _exchanged(random: Random, data: bytes) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.randbytes(1) + data[at + 1 :]


def _nested(random: Random, data: bytes) -> bytes:
    """Return a message within a message within ..., deeper than any parser goes."""
    for _ in range(random.randint(90, 300)):
        data = b"\x0a" + _varint(len(data)) + data
    return data


def _varint(value: int) -> bytes:
    if value < 128:
        return struct.pack("B", value)
    return struct.pack("B", value & 127 | 128) + _varint(value >> 7)


_GARBLERS: Final[list[Callable[[Random, bytes], bytes]]] = [
    _cut,
    _exchanged,
    _nested,
    lambda random, data: data + random.randbytes(20),
    lambda _, data: data * 2,
    lambda _, data: data + b"\x0b" * 200,  # groups that never end
    lambda random, _: random.randbytes(60),
]
