"""The daemon to talk to: where it is, how it is known, and who the client says it is.

Rule: a token leaves only through TLS, a Unix socket or loopback; elsewhere anybody on the way could take it.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import grpc

from coordd_client import arguments
from coordd_client.errors import InvalidRequest

__all__ = ["Target", "Tls"]

ChannelT = TypeVar("ChannelT")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """How the daemon is known, and where it asks for certificates the client. Files in PEM, read once.

    Attributes:
        ca: the CA of the daemon's certificate. None: those that the public trusts, as gRPC brings them.
        certificate: the client's own, with those that lead to its CA.
        key: the certificate's private key.
        server_name: what the daemon's certificate is for, where that is not the address.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidRequest("a certificate and its key go together", reason="INVALID_TLS")

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns what a channel is opened with. Raises: OSError if a file can't be read."""
        return grpc.ssl_channel_credentials(*map(_read, (self.ca, self.key, self.certificate)))


@dataclass(frozen=True, slots=True)
class Target:
    """One daemon, and the namespace in it. Raises: TypeError; InvalidRequest, also where a token may not go.

    Attributes:
        address: `host:port`, or `unix:/path`.
        tls: how to talk TLS. None: in the clear.
        token: a bearer token.
        namespace: the fleet's world in a daemon that several share.
    """

    address: str
    _: KW_ONLY
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    namespace: str | None = None

    def __post_init__(self) -> None:
        arguments.text("address", self.address)
        if self.token is not None and self.tls is None and not _is_private(self.address):
            raise InvalidRequest(
                f"a token would go to {self.address} in the clear; give tls=Tls(...)",
                reason="TOKEN_IN_THE_CLEAR",
            )
        _ = self.metadata()

    def metadata(self) -> Metadata:
        """Returns what goes with every call."""
        namespace = self.namespace
        named = () if namespace is None else (("coordd-namespace", arguments.header("namespace", namespace)),)
        return (*named, *(() if self.token is None else (("authorization", f"Bearer {_token(self.token)}"),)))

    def open(
        self,
        insecure: Callable[..., ChannelT],
        secure: Callable[..., ChannelT],
        options: Sequence[tuple[str, Any]],
    ) -> ChannelT:
        """Returns a channel, by grpc's functions for one in the clear and one with TLS."""
        if self.tls is None:
            return insecure(self.address, options=options)
        name = self.tls.server_name
        named = [("grpc.ssl_target_name_override", name)] if name else []
        return secure(self.address, self.tls.credentials(), options=[*options, *named])


def _token(token: str) -> str:
    """Returns a token without the line's end that files have. Raises: InvalidRequest, not showing it."""
    stripped = arguments.text("token", token).strip()
    if not stripped.isascii() or not stripped.isprintable() or not stripped or " " in stripped:
        raise InvalidRequest("token is empty, or has characters that no token has", reason="INVALID_TOKEN")
    return stripped


def _is_private(address: str) -> bool:
    """Returns whether what goes there does not leave this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
