"""What is said on stdout once the daemon serves: where, and how to try it.

Rule: the lines can be pasted as they are, but for files and tokens that only whoever reads them has.
"""

from typing import Final

from coordd.config import UNIX, Settings

# A call that changes something and is forgotten by itself; of a kind that is there unless configured away.
_EXAMPLE: Final = '{"item": "tweet:1", "worker": "me", "kind": "reply", "ttl": "60s"}'
_METHOD: Final = "coordd.v1.EngagementService/RequestLock"


def announcement(address: str, settings: Settings) -> str:
    """Return the lines; the first is for programs, too."""
    grpcurl = " ".join(["grpcurl", *_grpcurl_options(settings), f"-d '{_EXAMPLE}'", _target(address)])
    coordctl = " ".join(["coordctl", f"--address {address}", *_coordctl_options(settings)])
    return (
        f"coordd serving on {address} (data: {settings.store.path.absolute()})\n"
        f"try: {grpcurl} {_METHOD}\n"
        f"try: {coordctl} status\n"
    )


def _target(address: str) -> str:
    return f"-unix {address.removeprefix(UNIX)}" if address.startswith(UNIX) else address


def _grpcurl_options(settings: Settings) -> list[str]:
    certificate = ["-cert CERT.pem -key KEY.pem"] if settings.tls.client_ca else []
    token = ['-H "authorization: Bearer $COORDD_TOKEN"'] if settings.identities else []
    return ["-cacert CA.pem" if settings.tls.certificate else "-plaintext", *certificate, *token]


def _coordctl_options(settings: Settings) -> list[str]:
    ca = ["--ca CA.pem"] if settings.tls.certificate else []
    return [*ca, *(["--cert CERT.pem --key KEY.pem"] if settings.tls.client_ca else [])]
