"""Addresses to listen on: whether one is free, and why not, in one line.

Must not know: gRPC.
"""

import errno
import socket
from typing import Final

TAKEN_HINT: Final = "; is another coordd running there? COORDD_ADDRESS or [server] address changes it"


class AddressUnusable(Exception):
    """The address can't be listened on; says why in one line."""


def check_address(address: str) -> None:
    """Raise AddressUnusable if `address` can't be listened on."""
    # grpc would say no more than that it failed, and that in several lines of its own.
    host, _, port = address.rpartition(":")
    try:
        [(family, kind, proto, _, name), *_] = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            probe.listen()
    except OSError as error:
        hint = TAKEN_HINT if error.errno == errno.EADDRINUSE else ""
        raise AddressUnusable(f"can't listen on {address}: {error.strerror or error}{hint}") from error
