"""Bearer tokens: how one is written, and what is kept of it.

Rule: a token is kept nowhere, only its SHA-256. A plain hash is enough: whoever has it would have to guess
256 random bits, which no salt and no slow hash makes any harder.
"""

import base64
import hashlib
from typing import Final

TOKEN_BYTES: Final = 32
# So that people, and tools that look for secrets in the wrong places, see what it is.
_PREFIX: Final = "coordd_"


def spell_token(bits: bytes) -> str:
    """Return TOKEN_BYTES random bytes as a token."""
    return _PREFIX + base64.urlsafe_b64encode(bits).rstrip(b"=").decode()


def fingerprint(token: str) -> str:
    """Return the SHA-256 of a token, in hex."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
