"""The law of answers: only what docs/semantics.md says (section 16)."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from audit import history as h
from audit.grants import Grants
from audit.violation import Violation

_SEMANTICS = Path(__file__).resolve().parents[2] / "docs" / "semantics.md"

# What gRPC says by itself, or its client, with no reason.
_TRANSPORT = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"}


@cache
def documented() -> Mapping[str, frozenset[str]]:
    """Return the reasons of each status, as the table in section 16 has them."""
    _, _, section = _SEMANTICS.read_text().partition("\n## 16.")
    rows = re.findall(r"^\| ([A-Z_]+) \| (.+) \|$", section, re.MULTILINE)
    return {status: frozenset(re.findall(r"\b[A-Z][A-Z_]+[A-Z]\b", reasons)) for status, reasons in rows}


def answers_are_documented(grants: Grants) -> Iterator[Violation]:
    """16: a status has one of its reasons; INTERNAL is a bug."""
    for operation in grants.history.operations:
        answer = operation.answer
        if not isinstance(answer, h.Failed) or (not answer.reason and answer.code in _TRANSPORT):
            continue
        is_known = answer.reason in documented().get(answer.code, ())
        if answer.code == "INTERNAL" or not is_known:
            text = f"{operation.method} was answered {answer.code} {answer.reason or 'without a reason'}"
            yield Violation(operation.returned_at or 0, "answers are documented", text)
