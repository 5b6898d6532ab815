"""The law of gates (semantics 10.5-10.7), as far as it needs no length of a pause."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from audit import history as h
from audit.grants import Grant, Grants, is_sure
from audit.violation import Violation


def one_probe_at_a_time(grants: Grants) -> Iterator[Violation]:
    """10.6: after a 429 was reported one permit at a time is given, until upstream lets a call in.

    Judged between the report and whatever else is heard of the endpoint, or said of it.
    """
    heard = _heard(grants)
    given: dict[str, list[Grant]] = defaultdict(list)
    for grant in grants.of(h.Permit):
        if isinstance(grant.held, h.Permit):
            given[grant.held.endpoint].append(grant)
    for endpoint, reports in heard.items():
        for at, until in _shut(reports):
            after = [each for each in given[endpoint] if at < each.low and each.high < until]
            for probe, another in pairwise(after):
                if another.held.daemon_granted_at < probe.held.daemon_until:
                    text = f"{endpoint}: {another.id} was given beside {probe.id}; a 429 was reported by {at}"
                    yield Violation(another.told, "one probe at a time", text)


def _heard(grants: Grants) -> dict[str, list[tuple[int, int]]]:
    """Return what was heard of each endpoint: since when, and by when it shut the gate (0: not)."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for reports in grants.reports.values():
        for operation, usage in reports:
            is_refused = usage.status == 429 and usage.result != "NOT_SENT" and is_sure(operation)
            shut = operation.returned_at if is_refused and isinstance(operation.answer, h.Settled) else None
            found[usage.endpoint].append((operation.called_at, shut or 0))
    for change in grants.changes:
        if isinstance(change.ask, h.SetLimit):
            found[change.ask.endpoint].append((change.called_at, 0))
    for started in grants.history.of(h.Started):
        for reports_of in found.values():
            reports_of.append((started.at, 0))
    return {endpoint: sorted(entries) for endpoint, entries in found.items()}


def _shut(reports: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield from when until when the gate is surely shut: after a refusal, up to the next word."""
    for (_, by), (until, _) in pairwise([*reports, (1 << 62, 0)]):
        if by:
            yield by, until
