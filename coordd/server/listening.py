"""Opens the port, or the socket, that the settings name.

Rules: without TLS only where nobody from outside can reach it, unless told so (the settings see to that); a
socket has its permissions before anybody can connect to it.
Must not know: what is served there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from coordd.config import UNIX, Settings
from coordd.server.addresses import TAKEN_HINT, AddressUnusable, check_address
from coordd.server.tls import Certificates


def listen(server: grpc.aio.Server, settings: Settings) -> str:
    """Let `server` listen; return the address, with the port that was found.

    Raises: AddressUnusable, Misconfigured.
    """
    address = settings.server.address
    credentials = Certificates(settings.tls).credentials() if settings.tls.certificate else None
    check_address(address)
    try:
        with _permitting(int(settings.server.socket_mode, 8)):
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
    except RuntimeError as error:  # somebody was faster
        raise AddressUnusable(f"can't listen on {address}{TAKEN_HINT}") from error
    return address if address.startswith(UNIX) else f"{address.rpartition(':')[0]}:{port}"


@contextmanager
def _permitting(mode: int) -> Iterator[None]:
    """Give files made meanwhile these permissions at most.

    Why not chmod afterwards: until then whoever is quick could connect.
    """
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)
