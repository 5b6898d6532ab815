"""HTTP/2 as no client should speak it: the connection may be closed, the daemon goes on serving the others.

Owns: the hostile talks. After each, a new client is served, the log shows no trouble, and memory has not
grown. What the transport answers is its own affair (GOAWAY, RST_STREAM, silence), but it must not be a grant.
"""

import gzip
import struct
from collections.abc import Callable
from random import Random
from typing import Final

import pytest
from fuzz_daemon import Daemon
from fuzz_wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    METHOD,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    frame,
    message,
    request,
)

_MEBIBYTE: Final = 1024 * 1024
# The transport keeps what it has once allocated: all talks together settle at some 400 MiB. What grows
# without bound comes to far more.
_GROWTH_MAX: Final = 256 * _MEBIBYTE
_LOCK: Final = "/coordd.v1.EngagementService/RequestLock"
_WATCH: Final = "/coordd.v1.AdminService/WatchEvents"
_SESSION: Final = "/coordd.v1.SessionService/Connect"
_RANDOM: Final = Random(1)


def noise(wire: Wire) -> None:
    wire.send(_RANDOM.randbytes(10_000))


def http_1(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\nHost: coordd\r\n\r\n")


def tls(wire: Wire) -> None:
    wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + _RANDOM.randbytes(508))


def half_a_preface(wire: Wire) -> None:
    wire.send(PREFACE[:10])


def preface_and_silence(wire: Wire) -> None:
    wire.send(PREFACE)


def noise_after_the_preface(wire: Wire) -> None:
    wire.greet()
    wire.send(_RANDOM.randbytes(100_000))


def random_frames(wire: Wire) -> None:
    wire.greet()
    for _ in range(500):
        payload = _RANDOM.randbytes(_RANDOM.randrange(40))
        wire.send(
            frame(_RANDOM.randrange(20), payload, flags=_RANDOM.randrange(256), stream=_RANDOM.randrange(9))
        )


def frame_longer_than_allowed(wire: Wire) -> None:
    wire.greet()
    wire.send(frame(DATA, bytes(1_000_000), stream=1))


def frame_that_is_cut(wire: Wire) -> None:
    wire.greet()
    wire.send(frame(HEADERS, b"\x82", flags=END_HEADERS, stream=1, length=16_000))


def unknown_frames(wire: Wire) -> None:
    wire.greet()
    for type_ in range(10, 256):
        wire.send(frame(type_, bytes(100), stream=type_))


def settings_flood(wire: Wire) -> None:
    wire.greet()
    for _ in range(20_000):
        if not wire.send(frame(SETTINGS, struct.pack(">HI", 4, 65_535))):
            break


def ping_flood(wire: Wire) -> None:
    wire.greet()
    for _ in range(20_000):
        if not wire.send(frame(PING, bytes(8))):
            break


def absurd_settings(wire: Wire) -> None:
    wire.greet(b"".join(struct.pack(">HI", id_, 2**32 - 1) for id_ in range(1, 10)))
    wire.send(wire.call(1))


def rapid_reset(wire: Wire) -> None:
    wire.greet()
    for stream in range(1, 40_000, 2):
        block = wire.headers(request(_LOCK))
        opened = frame(HEADERS, block, flags=END_HEADERS, stream=stream)
        if not wire.send(opened + frame(RST_STREAM, bytes(4), stream=stream)):
            break


def rapid_reset_of_whole_calls(wire: Wire) -> None:
    wire.greet()
    for stream in range(1, 4_000, 2):
        if not wire.send(wire.call(stream) + frame(RST_STREAM, bytes(4), stream=stream)):
            break


def streams_without_end(wire: Wire) -> None:
    wire.greet()
    for stream in range(1, 30_000, 2):
        block = wire.headers(request(_LOCK))
        if not wire.send(frame(HEADERS, block, flags=END_HEADERS, stream=stream)):
            break


def header_bomb(wire: Wire) -> None:
    """A few bytes, each of which stands for 4 kB of the table."""
    wire.greet()
    first = wire.headers([*request(), ("x-bomb", "y" * 3_900)])
    again = wire.headers([("x-bomb", "y" * 3_900)])
    wire.send(frame(HEADERS, first + again * 10_000, flags=END_HEADERS | END_STREAM, stream=1)[:16_000])
    wire.send(wire.call(3))


def large_header(wire: Wire) -> None:
    wire.greet()
    wire.send(wire.call(1, request(METHOD, ("x-large", "y" * 12_000))))


def continuation_flood(wire: Wire) -> None:
    wire.greet()
    wire.send(frame(HEADERS, wire.headers(request()), stream=1))
    block = frame(CONTINUATION, b"\x00\x06x-more\x7f\x81\x3d" + b"y" * 8_000, stream=1)
    for _ in range(3_000):
        if not wire.send(block):
            break


def window_update_overflow(wire: Wire) -> None:
    wire.greet()
    for _ in range(3):
        wire.send(frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1)))
    wire.send(frame(WINDOW_UPDATE, bytes(4)))


def window_of_nothing(wire: Wire) -> None:
    """Asks for answers and leaves no room for any."""
    wire.greet(struct.pack(">HI", 4, 0))
    for stream in range(1, 400, 2):
        wire.send(wire.call(stream))


def watches_that_are_never_read(wire: Wire) -> None:
    wire.greet(struct.pack(">HI", 4, 0))
    for stream in range(1, 200, 2):
        wire.send(wire.call(stream, request(_WATCH)))


def streams_used_out_of_order(wire: Wire) -> None:
    wire.greet()
    wire.send(wire.call(9))
    wire.send(wire.call(3))
    wire.send(wire.call(9))
    wire.send(wire.call(2))
    wire.send(frame(DATA, message(), stream=77))


def depends_on_itself(wire: Wire) -> None:
    wire.greet()
    for stream in range(1, 2_000, 2):
        wire.send(frame(PRIORITY, struct.pack(">IB", stream, 255), stream=stream))


def push_from_a_client(wire: Wire) -> None:
    wire.greet()
    wire.send(
        frame(PUSH_PROMISE, struct.pack(">I", 2) + wire.headers(request()), flags=END_HEADERS, stream=1)
    )


def goes_away_and_asks(wire: Wire) -> None:
    wire.greet()
    wire.send(frame(GOAWAY, bytes(8)) + wire.call(1))


def broken_compression_of_headers(wire: Wire) -> None:
    wire.greet()
    wire.send(frame(HEADERS, b"\xff" * 200, flags=END_HEADERS | END_STREAM, stream=1))


def fields_that_may_not_be(wire: Wire) -> None:
    wire.greet()
    odd = [
        [(":method", "POST")],
        request("nonsense"),
        request("/" + "x" * 9_000),
        request(METHOD, (":method", "GET")),
        request(METHOD, ("content-type", "text/html")),
        request(METHOD, ("te", "gzip")),
        request(METHOD, ("grpc-timeout", "soon")),
        request(METHOD, ("grpc-timeout", "99999999999H")),
        request(METHOD, ("grpc-timeout", "-1S")),
        request(METHOD, ("grpc-timeout", "0n")),
        request(METHOD, ("grpc-encoding", "nonsense")),
        request(METHOD, ("Upper-Case", "x")),
        request(METHOD, ("connection", "close")),
        request(METHOD, ("x-null", "a\x00b\r\nc: d")),
        request(METHOD, ("x-bad-bin", "not base64 !")),
        request(METHOD, ("content-length", "5000000")),
        [*request(), (":path", METHOD), (":late", "pseudo")],
    ]
    for number, fields in enumerate(odd):
        wire.send(wire.call(1 + 2 * number, fields))


def bodies_that_are_no_messages(wire: Wire) -> None:
    wire.greet()
    odd = [
        b"",
        b"\x00",
        message(b"\xff" * 50),
        message(b"", length=2**32 - 1),
        message(b"abc", length=10),
        message(b"not gzip", is_compressed=True),
        message() * 50,
        b"\x07" + message(),
        _RANDOM.randbytes(5_000),
    ]
    for number, body in enumerate(odd):
        wire.send(wire.call(1 + 2 * number, request(_LOCK), body))


def gzip_bomb(wire: Wire) -> None:
    wire.greet()
    bomb = message(gzip.compress(bytes(40 * _MEBIBYTE), 9), is_compressed=True)
    fields = request(_LOCK, ("grpc-encoding", "gzip"))
    wire.send(frame(HEADERS, wire.headers(fields), flags=END_HEADERS, stream=1))
    for at in range(0, len(bomb), 16_000):
        is_last = at + 16_000 >= len(bomb)
        wire.send(frame(DATA, bomb[at : at + 16_000], flags=END_STREAM if is_last else 0, stream=1))


def message_without_end(wire: Wire) -> None:
    """Sends the largest message there may be, a byte at a time, and never its last."""
    wire.greet()
    wire.send(frame(HEADERS, wire.headers(request(_LOCK)), flags=END_HEADERS, stream=1))
    wire.send(frame(DATA, message(b"", length=_MEBIBYTE), stream=1))
    for _ in range(2_000):
        wire.send(frame(DATA, b"x", stream=1))


def session_of_noise(wire: Wire) -> None:
    wire.greet()
    wire.send(frame(HEADERS, wire.headers(request(_SESSION)), flags=END_HEADERS, stream=1))
    for _ in range(2_000):
        if not wire.send(frame(DATA, message(_RANDOM.randbytes(5)), stream=1)):
            break


TALKS: Final[list[Callable[[Wire], None]]] = [
    noise, http_1, tls, half_a_preface, preface_and_silence, noise_after_the_preface, random_frames,
    frame_longer_than_allowed, frame_that_is_cut, unknown_frames, settings_flood, ping_flood, absurd_settings,
    rapid_reset, rapid_reset_of_whole_calls, streams_without_end, header_bomb, large_header,
    continuation_flood, window_update_overflow, window_of_nothing, watches_that_are_never_read,
    streams_used_out_of_order,
    depends_on_itself, push_from_a_client, goes_away_and_asks, broken_compression_of_headers,
    fields_that_may_not_be, bodies_that_are_no_messages, gzip_bomb,
    message_without_end, session_of_noise,
]  # fmt: skip


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
def test_a_hostile_talk_hurts_nobody_else(daemon: Daemon, talk: Callable[[Wire], None]) -> None:
    before = daemon.rss()
    with Wire(daemon.place) as wire:
        talk(wire)
        # A new client is served while this one is still there ...
        daemon.check()
        wire.heard(HEADERS)
    # ... and once it has gone.
    daemon.check()
    assert daemon.rss() - before < _GROWTH_MAX


def test_calls_that_are_taken_back_at_once_keep_nobody_out(daemon: Daemon) -> None:
    """Grpc cancels some by lot when a few hundred wait to be taken, whoever's they are: they ask again."""
    for _ in range(5):
        with Wire(daemon.place) as wire:
            rapid_reset_of_whole_calls(wire)
            for _ in range(5):
                daemon.check()


def test_a_wire_that_speaks_well_is_answered(daemon: Daemon) -> None:
    """Or else the talks would all be refused for what they have in common."""
    with Wire(daemon.place) as wire:
        wire.greet()
        wire.send(wire.call(1))
        assert wire.heard(HEADERS) == 2


def test_many_who_say_nothing_hurt_nobody(daemon: Daemon) -> None:
    before = daemon.rss()
    wires = [Wire(daemon.place) for _ in range(300)]
    try:
        for wire in wires[::2]:
            wire.greet()
        daemon.check()
    finally:
        for wire in wires:
            wire.__exit__(None, None, None)
    daemon.check()
    assert daemon.rss() - before < _GROWTH_MAX
