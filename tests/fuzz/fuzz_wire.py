"""A client of HTTP/2 that says just what it is told to, however wrong: frames and bytes as they are."""

import contextlib
import socket
import struct
from types import TracebackType
from typing import Final, Self

import hpack

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
_FRAME_HEADER_BYTES: Final = 9
METHOD: Final = "/coordd.v1.AdminService/GetStatus"
# What has not been answered by then is not going to be.
_PATIENCE_S: Final = 2.0


def frame(
    type_: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, length: int | None = None
) -> bytes:
    """Return a frame; `length`: what it says of itself, if that is not the truth."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", type_, flags, stream) + payload


def request(path: str = METHOD, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the header fields of a gRPC call; those of the same name in `more` replace them."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "coordd",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return [*({**fields, **{key: value for key, value in more if key in fields}}).items()] + [
        pair for pair in more if pair[0] not in fields
    ]


def message(data: bytes = b"", *, length: int | None = None, is_compressed: bool = False) -> bytes:
    """Return a gRPC message with its prefix; `length`: what that says, if it is not the truth."""
    return struct.pack(">BI", is_compressed, len(data) if length is None else length) + data


class Wire:
    """One connection."""

    def __init__(self, place: tuple[str, int]) -> None:
        self._socket = socket.create_connection(place, _PATIENCE_S)
        self._encoder = hpack.Encoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def greet(self, settings: bytes = b"") -> None:
        """Begin as a client does."""
        self.send(PREFACE + frame(SETTINGS, settings))

    def send(self, data: bytes) -> bool:
        """Send bytes; return whether the other side still took them."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def headers(self, fields: list[tuple[str, str]]) -> bytes:
        """Return header fields as the connection's compression has them."""
        encoded: bytes = self._encoder.encode(fields)
        return encoded

    def call(
        self, stream: int, fields: list[tuple[str, str]] | None = None, body: bytes | None = None
    ) -> bytes:
        """Return the frames of a whole call."""
        block = self.headers(request() if fields is None else fields)
        return frame(HEADERS, block, flags=END_HEADERS, stream=stream) + frame(
            DATA, message() if body is None else body, flags=END_STREAM, stream=stream
        )

    def heard(self, type_: int) -> int:
        """Return how many frames of a type come until the other side closes, or has no more to say."""
        self._socket.settimeout(_PATIENCE_S / 4)
        data = b""
        with contextlib.suppress(OSError):
            while more := self._socket.recv(65_536):
                data += more
        count = 0
        while len(data) >= _FRAME_HEADER_BYTES:
            count += data[3] == type_
            data = data[_FRAME_HEADER_BYTES + int.from_bytes(data[:3]) :]
        return count
