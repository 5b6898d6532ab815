"""The daemon's certificate, its key, and whose clients' certificates it takes, as the files say.

Rules: files that changed are read again at the next handshake, hence without a restart, and hold for
connections from then on; what can't be used is told and changes nothing. Called by threads of gRPC's.
"""

import ssl
from pathlib import Path
from typing import Final

import grpc
import structlog

from coordd.config import TlsSettings

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_ENCRYPTED: Final = b"ENCRYPTED"

Stamp = tuple[tuple[int, ...], ...]


class Misconfigured(Exception):
    """What the settings name can't be used; says why in one line."""


class Certificates:
    """The files of `[tls]`. Args: settings: with a certificate and a key."""

    def __init__(self, settings: TlsSettings) -> None:
        self._certificate, self._key = settings.certificate or Path(), settings.key or Path()
        self._client_ca = settings.client_ca
        self._seen: Stamp = ()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with. Raises: Misconfigured."""
        self._seen = self._stamp()
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._changed,  # type: ignore[arg-type] # None is no change; the stubs don't know
            require_client_authentication=self._client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files say if it is new and can be used. Called before each handshake."""
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            read = self._read()
        except Misconfigured as error:
            _logger.error("the new certificates can't be used; the old ones hold", error=str(error))
            return None
        _logger.info("certificates read again", certificate=str(self._certificate))
        return read

    def _stamp(self) -> Stamp:
        """Return what differs once a file has been written or replaced."""
        return tuple(map(_file_stamp, self._files()))

    def _files(self) -> tuple[Path, ...]:
        return (self._certificate, self._key, *([self._client_ca] if self._client_ca else []))

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, *client_cas = map(_bytes_of, self._files())
        self._check(key)
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=client_cas[0] if client_cas else None
        )

    def _check(self, key: bytes) -> None:
        # gRPC itself would take anything, and then fail each handshake with nothing but a line of its own.
        if _ENCRYPTED in key:
            raise Misconfigured(f"{self._key}: has a password; coordd takes a key without one")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{self._certificate} and {self._key}: {_reason(error)}") from error
        try:
            context.load_verify_locations(self._client_ca or self._certificate)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{self._client_ca}: {_reason(error)}") from error


def _file_stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{path}: can't be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not the certificate's"
    return "is not PEM, or not what it should be"
