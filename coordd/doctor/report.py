"""What an examination finds, as a value: how bad it is, what is wrong, what to do."""

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct


class Gravity(Enum):
    """How bad a finding is, worst first."""

    # A daemon refuses the file, or could do wrong with it.
    BROKEN = "broken"
    # A daemon serves it; a person should look.
    ODD = "odd"
    # Good to know.
    NOTE = "note"


class Finding(Struct, frozen=True, kw_only=True):
    """Something to be said: in `what` what is so, in `remedy` what to do, where anything is to be done."""

    gravity: Gravity
    check: str
    what: str
    remedy: str = ""


class History(Struct, frozen=True, kw_only=True):
    """The engagements that are remembered: how many, and the instants (ns) of the first and the last."""

    count: int
    first: int
    last: int


class Report(Struct, frozen=True, kw_only=True):
    """What an examination has found. Instants in ns; what could not be read is None, or empty.

    owner: the process that serves the file, empty if none does. log_bytes: committed, not yet in the file.
    """

    path: str
    owner: str = ""
    size_bytes: int = 0
    log_bytes: int = 0
    pages: int | None = None
    pages_free: int | None = None
    page_bytes: int | None = None
    format: int | None = None
    format_newest: int
    sequence: int | None = None
    instant: int | None = None
    last_id: int | None = None
    records: dict[str, int] = {}
    history: History | None = None
    findings: Sequence[Finding] = ()

    @property
    def gravest(self) -> Gravity | None:
        """Return the gravity of the worst finding that is more than a note."""
        found = {finding.gravity for finding in self.findings}
        return next((gravity for gravity in (Gravity.BROKEN, Gravity.ODD) if gravity in found), None)
