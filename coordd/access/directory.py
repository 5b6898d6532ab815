"""Everybody who is known, and how they are recognised: by a token's hash, or by a certificate's names."""

import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from coordd.access.denials import NotIdentified
from coordd.access.identity import Identity
from coordd.access.tokens import fingerprint

# So much of a hash finds those to compare with. A lookup's time may tell as much of it; never of a token.
_INDEX_CHARS: Final = 8


class Directory:
    """Everybody who is known.

    Args:
        fingerprints: SHA-256 of a token, in hex -> whose it is.
        certificates: a name in a certificate -> whose it is.
    """

    def __init__(
        self, fingerprints: Mapping[str, Identity] = {}, certificates: Mapping[str, Identity] = {}
    ) -> None:
        self._by_fingerprint: dict[str, list[tuple[str, Identity]]] = {}
        for known, identity in fingerprints.items():
            self._by_fingerprint.setdefault(known[:_INDEX_CHARS], []).append((known, identity))
        self._certificates = certificates

    def of_token(self, token: str) -> Identity:
        """Return whose token it is. Raises: NotIdentified."""
        given = fingerprint(token)
        for known, identity in self._by_fingerprint.get(given[:_INDEX_CHARS], ()):
            if hmac.compare_digest(known, given):
                return identity
        raise NotIdentified("UNKNOWN_TOKEN", "The token is nobody's.")

    def of_certificate(self, names: Iterable[str]) -> Identity:
        """Return whose certificate has these names. Raises: NotIdentified, also if they are of several."""
        found = map(self._certificates.get, names)
        owners = {identity.name: identity for identity in found if identity is not None}
        if len(owners) == 1:
            return owners.popitem()[1]
        raise NotIdentified(
            "UNKNOWN_CERTIFICATE", f"The certificate is {'of several' if owners else 'nobody'}'s identity."
        )
