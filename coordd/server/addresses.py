"""Addresses to listen on: whether one is free, and why not, in one line.

Must not know: gRPC.
"""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from coordd.config import UNIX

TAKEN_HINT: Final = "; is another coordd running there? COORDD_ADDRESS or [server] address changes it"


class AddressUnusable(Exception):
    """The address can't be listened on; says why in one line."""


def check_address(address: str) -> None:
    """Raise AddressUnusable if `address` can't be listened on. A socket that nobody listens on is removed."""
    if address.startswith(UNIX):
        _check_socket(address, Path(address.removeprefix(UNIX)))
    else:
        _check_port(address)


def _check_socket(address: str, path: Path) -> None:
    # gRPC would take a socket's place without asking, also a living daemon's.
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AddressUnusable(f"can't listen on {address}: it is there, and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        raise AddressUnusable(f"can't listen on {address}: somebody listens there{TAKEN_HINT}")
    except FileNotFoundError:
        _check_folder(address, path.parent)
    except ConnectionRefusedError:
        path.unlink()  # of a daemon that is dead
    except OSError as error:
        raise _unusable(address, error) from error


def _check_folder(address: str, folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise AddressUnusable(f"can't listen on {address}: {folder} is no directory that can be written to")


def _check_port(address: str) -> None:
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
        raise _unusable(address, error) from error


def _unusable(address: str, error: OSError) -> AddressUnusable:
    hint = TAKEN_HINT if error.errno == errno.EADDRINUSE else ""
    return AddressUnusable(f"can't listen on {address}: {error.strerror or error}{hint}")
