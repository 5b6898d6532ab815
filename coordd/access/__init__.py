"""Who may do what: identities, how they are recognised, and what each call takes.

Rules: whoever is not known is nobody; what a method takes stands in one table, and a method that is not in it
is not served. Pure: no I/O, clock, randomness or wire.
"""

from coordd.access.denials import Denial, NotIdentified, NotPermitted
from coordd.access.directory import Directory
from coordd.access.identity import ANYTHING, Identity, Names, Role
from coordd.access.policy import LEAST_ROLES, least_role
from coordd.access.tokens import TOKEN_BYTES, fingerprint, spell_token

__all__ = [
    "ANYTHING",
    "LEAST_ROLES",
    "TOKEN_BYTES",
    "Denial",
    "Directory",
    "Identity",
    "Names",
    "NotIdentified",
    "NotPermitted",
    "Role",
    "fingerprint",
    "least_role",
    "spell_token",
]
