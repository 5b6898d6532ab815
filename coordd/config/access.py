"""The tables of who may reach the daemon, and as whom: TLS, identities, the audit log.

Owns: their keys, and what they may not say together. Rule: no refusal repeats what stands where a token's
hash should, for it may be the token.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from coordd.access import Directory, Identity, Names, Role
from coordd.config.problems import Problems
from coordd.config.values import DEFAULT_NAMESPACE, FilePath, Section, Shown
from coordd.core.limits import WORKER_BYTES_MAX

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAMES_MAX: Final = 100

ROLES: Final = {role.name.lower(): role for role in (Role.OBSERVER, Role.WORKER, Role.OPERATOR)}


def _check_fingerprints(value: object) -> object:
    if not isinstance(value, list) or not all(
        isinstance(each, str) and _SHA256.fullmatch(each) for each in value
    ):
        raise ValueError(
            "is a list of SHA-256 sums in hex, 64 digits each, not of tokens; `coordd token` makes both"
        )
    return value


Patterns = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=WORKER_BYTES_MAX)]],
    Field(max_length=_NAMES_MAX),
    Shown("names", f"up to {_NAMES_MAX}; `*` at the end of one: all that begin so"),
]
CertificateNames = Annotated[list[str], Field(max_length=_NAMES_MAX), Shown("names", f"up to {_NAMES_MAX}")]
Fingerprints = Annotated[
    list[str],
    BeforeValidator(_check_fingerprints),
    Field(max_length=_NAMES_MAX),
    Shown("SHA-256 in hex", f"up to {_NAMES_MAX}"),
]


class TlsSettings(Section):
    """TLS for the port. Files that change are read again, without a restart, for connections from then on."""

    certificate: FilePath = Field(
        None,
        description="The daemon's certificate in PEM, and behind it those that lead to its CA. With it the "
        "port speaks TLS only.",
    )
    key: FilePath = Field(None, description="The certificate's private key in PEM, without a password.")
    client_ca: FilePath = Field(
        None,
        description="Certificates of CAs in PEM. With it every client must have a certificate of one of them "
        "(mTLS).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        Problems.raise_any(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.certificate and not self.key:
            yield "key", "is required where there is a `certificate`"
        if self.key and not self.certificate:
            yield "certificate", "is required where there is a `key`"
        if self.client_ca and not self.certificate and not self.key:
            yield "client_ca", "needs a `certificate` and a `key`"


class IdentitySettings(Section):
    """Somebody who may call. Without any identity whoever reaches the port may do anything."""

    role: Literal["observer", "worker", "operator"] = Field(
        description="`observer` looks; `worker` also takes, renews and gives back, in the names of its "
        "`workers`; `operator` may do anything, in any name.",
    )
    workers: Patterns = Field([], description="In whose names a `worker` may act. None: in its own, NAME.")
    namespaces: Patterns = Field(
        [], description="Where it may call. None: in `default` only; `*`: in all that there are."
    )
    token_sha256: Fingerprints = Field(
        [],
        description="Of each token that it may show; two while one replaces the other. `coordd token` "
        "makes a token and prints the line to put here.",
    )
    certificates: CertificateNames = Field(
        [],
        description="Of each certificate that it may show: one of its alternative names (DNS, URI, address, "
        "mail), or where it has none its common name. Needs `[tls] client_ca`.",
    )

    def marks(self) -> Iterator[tuple[str, str]]:
        """Yield all that it is recognised by, with its key."""
        yield from (("token_sha256", each) for each in self.token_sha256)
        yield from (("certificates", each) for each in self.certificates)

    def identity(self, name: str) -> Identity:
        """Return who it is."""
        return Identity(
            name=name,
            role=ROLES[self.role],
            workers=Names.of(*(self.workers or [name])),
            namespaces=Names.of(*(self.namespaces or [DEFAULT_NAMESPACE])),
        )


class AuditSettings(Section):
    """What operators did, and who was refused. It is in the log, too, from the level `info`."""

    path: FilePath = Field(
        None, description="A file to which a JSON line is added for each. Made where it is missing."
    )


def directory(identities: Mapping[str, IdentitySettings]) -> Directory:
    """Return everybody who is known."""
    known = {name: settings.identity(name) for name, settings in identities.items()}
    return Directory(
        fingerprints={
            each: known[name] for name, settings in identities.items() for each in settings.token_sha256
        },
        certificates={
            each: known[name] for name, settings in identities.items() for each in settings.certificates
        },
    )


def identity_problems(
    identities: Mapping[str, IdentitySettings], tls: TlsSettings, namespaces: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield what the identities may not say together, with its key."""
    owners: dict[tuple[str, str], str] = {}
    for name, identity in identities.items():
        if not identity.token_sha256 and not identity.certificates:
            yield name, "can't be recognised: it has neither `token_sha256` nor `certificates`"
        if identity.certificates and not tls.client_ca:
            yield f"{name}.certificates", "needs [tls] client_ca: nobody else is asked for a certificate"
        for namespace in identity.namespaces:
            if not namespace.endswith("*") and namespace not in namespaces:
                yield f"{name}.namespaces", f"there is no namespace {namespace!r}"
        for key, value in identity.marks():
            if (owner := owners.setdefault((key, value), name)) != name:
                yield f"{name}.{key}", f"has one that is {owner}'s, too"
