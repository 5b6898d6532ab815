"""Connections that do nothing but live: `python idle_connections.py ADDRESS COUNT`, until stdin is closed.

Each says what HTTP/2 wants to begin with, and answers pings, so that the daemon has no reason to end it.
Prints their number once the daemon has greeted all, and at the end how many it has not ended. In a process of
their own, with file descriptors of their own.
"""

import resource
import selectors
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Length (8 and 16 bits), type, flags, stream.
_HEADER: Final = struct.Struct(">BHBBI")
_SETTINGS: Final = 4
_PING: Final = 6
_ACK: Final = 1
_HELLO: Final = _PREFACE + _HEADER.pack(0, 0, _SETTINGS, 0, 0)
# So many at once, that the backlog of the daemon's socket never overflows.
_GREETING_MAX: Final = 200


class Connection:
    """One of them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.sendall(_HELLO)
        self.is_greeted = False
        self._received = b""

    def read(self) -> bool:
        """Answer what has come; return whether it is still open."""
        received = self.socket.recv(65536)
        self._received += received
        for kind, payload in self._frames():
            self.is_greeted |= kind == _SETTINGS
            self.socket.sendall(_HEADER.pack(0, len(payload), kind, _ACK, 0) + payload)
        return bool(received)

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that want an answer, with what is to be in it."""
        while len(self._received) >= _HEADER.size:
            high, low, kind, flags, _ = _HEADER.unpack_from(self._received)
            end = _HEADER.size + (high << 16) + low
            if len(self._received) < end:
                return
            payload, self._received = self._received[_HEADER.size : end], self._received[end:]
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                yield kind, payload if kind == _PING else b""


def main(address: str, count: int) -> None:
    """Hold `count` connections until stdin is closed."""
    host, _, port = address.rpartition(":")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with selectors.DefaultSelector() as selector:
        connections: list[Connection] = []
        while len(connections) < count:
            for _ in range(min(_GREETING_MAX, count - len(connections))):
                connections.append(Connection((host, int(port))))
                selector.register(connections[-1].socket, selectors.EVENT_READ, connections[-1])
            while not all(connection.is_greeted for connection in connections[-_GREETING_MAX:]):
                _answer(selector)
        print(len(connections), flush=True)  # noqa: T201
        selector.register(sys.stdin, selectors.EVENT_READ)
        while _answer(selector):
            pass
        print(len(selector.get_map()) - 1, flush=True)  # noqa: T201


def _answer(selector: selectors.BaseSelector) -> bool:
    """Answer whatever has come; return whether to go on."""
    for key, _ in selector.select():
        if key.data is None:
            return False
        if not key.data.read():
            selector.unregister(key.fileobj)
    return True


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
