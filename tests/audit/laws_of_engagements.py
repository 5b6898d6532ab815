"""Laws of the daemon's own history of engagements (semantics 3.4-3.8)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from audit import history as h
from audit.grants import Grant, Grants, is_sure, may_have_worked
from audit.timeline import NEVER
from audit.violation import Violation


def told(grants: Grants) -> list[tuple[int, h.Engagement]]:
    """Return every entry that was ever told, with when."""
    found = []
    for each in grants.history.operations:
        answer, at = each.answer, each.returned_at or 0
        if isinstance(answer, h.Released):
            found += [(at, entry) for entry in answer.engagements]
        elif isinstance(answer, h.Item | h.Recent):
            entry = answer.last if isinstance(answer, h.Item) else answer.latest
            found += [(at, entry)] if entry else []
    for dump in grants.history.of(h.Dumped):
        found += [(dump.at, entry) for entry in dump.engagements or ()]
    return found


def history_does_not_change(grants: Grants) -> Iterator[Violation]:
    """3.4, 3.8: an end writes one entry, whoever reads it, and however often."""
    first: dict[int, h.Engagement] = {}
    for at, entry in told(grants):
        if first.setdefault(entry.token, entry) != entry:
            yield Violation(at, "history does not change", f"{first[entry.token]} has become {entry}")
    for dump in grants.history.of(h.Dumped):
        seen: set[int] = set()
        for entry in dump.engagements or ():
            if entry.token in seen:
                yield Violation(dump.at, "history does not change", f"{entry.token} has two entries")
            seen.add(entry.token)


def history_agrees_with_releases(grants: Grants) -> Iterator[Violation]:
    """3.4, 3.8: history says what the first release said; UNKNOWN only where none may have been in time."""
    for at, entry in told(grants):
        grant = grants.by_id.get(entry.token)
        if grant is None or not isinstance(grant.held, h.Lock):
            continue
        known = (grant.held.item, grant.held.kind, grant.worker)
        if (entry.item, entry.kind, entry.worker) != known:
            yield Violation(at, "history agrees with releases", f"{entry} is of {grant.held}")
        elif not _may_say(grant, entry.outcome, at):
            outcome = f"{entry.token} ended with {entry.outcome}, says history by {at}"
            yield Violation(at, "history agrees with releases", f"{outcome}; nothing makes it so")


def _may_say(grant: Grant, outcome: str, at: int) -> bool:
    """Return whether something may have ended the lock so by then."""
    for each in grant.ended_by:
        if each.called_at <= at and may_have_worked(each):
            if isinstance(each.ask, h.Release):
                said = each.ask.outcomes.get(grant.id, each.ask.outcome)
                if said == outcome:
                    return True
            elif outcome == "UNKNOWN":
                return True
    return outcome == "UNKNOWN" and min(grant.lease_least, grant.cut) <= at


def a_release_is_in_history(grants: Grants) -> Iterator[Violation]:
    """3.4: what was acknowledged is there, with its outcome; and so is, once, whatever is over."""
    for dump in grants.history.of(h.Dumped):
        if dump.engagements is None:
            continue
        entries = {entry.token: entry for entry in dump.engagements}
        for grant in grants.of(h.Lock):
            if grant.ends_most < dump.at and grant.id not in entries:
                text = f"{grant.id} was over by {grant.ends_most}; history has nothing of it at {dump.at}"
                yield Violation(dump.at, "a release is in history", text)
    for operation, grant in _releases(grants):
        answer = operation.answer
        if isinstance(answer, h.Released) and isinstance(operation.ask, h.Release):
            entry = next((each for each in answer.engagements if each.token == grant.id), None)
            if entry is None and operation.ask.of == "lock":
                text = f"the release of {grant.id} told nothing of it"
                yield Violation(operation.returned_at or 0, "a release is in history", text)


def _releases(grants: Grants) -> Iterator[tuple[h.Operation, Grant]]:
    for grant in grants.of(h.Lock):
        for operation in grant.ended_by:
            if is_sure(operation):
                yield operation, grant


def reads_see_what_was_released(grants: Grants) -> Iterator[Violation]:
    """1.1, 3.9: what was acknowledged before a question was asked, its answer knows."""
    released = _released(grants)
    for operation in grants.history.operations:
        seen = _seen(operation)
        if seen is None:
            continue
        known = [
            entry
            for by, entry in released[seen.item]
            if by < operation.called_at and _is_within(grants, entry, operation)
        ]
        latest = max((entry.daemon_at for entry in known), default=0)
        if latest > (seen.entry.daemon_at if seen.entry else 0):
            text = f"{operation.method} of {seen.item} at {operation.called_at} saw {seen.entry}"
            yield Violation(operation.returned_at or 0, "reads see what was released", text)


@dataclass(frozen=True)
class _Seen:
    """What a question about an item saw, of whatever kind."""

    item: str
    entry: h.Engagement | None


def _seen(operation: h.Operation) -> _Seen | None:
    ask, answer = operation.ask, operation.answer
    if isinstance(ask, h.ReadItem) and isinstance(answer, h.Item) and not ask.kind:
        return _Seen(ask.item, answer.last)
    if isinstance(ask, h.ReadRecent) and isinstance(answer, h.Recent) and not ask.kinds:
        return _Seen(ask.item, answer.latest)
    return None


def _released(grants: Grants) -> dict[str, list[tuple[int, h.Engagement]]]:
    """Return what counts and was acknowledged, with by when, by item."""
    found: dict[str, list[tuple[int, h.Engagement]]] = defaultdict(list)
    for operation, grant in _releases(grants):
        if isinstance(operation.answer, h.Released) and operation.returned_at is not None:
            for entry in operation.answer.engagements:
                if entry.token == grant.id and entry.outcome in {"SUCCESS", "UNKNOWN"}:
                    found[entry.item].append((operation.returned_at, entry))
    return found


def _is_within(grants: Grants, entry: h.Engagement, operation: h.Operation) -> bool:
    """Return whether it was surely recent enough for the question."""
    if not isinstance(operation.ask, h.ReadRecent):
        return True
    at = operation.returned_at or 0
    runs = grants.timeline.during(at, at)
    offset = runs[0].offset if len(runs) == 1 else None
    return offset is not None and at + offset[1] - entry.daemon_at < operation.ask.within_ns


def intervals_hold(grants: Grants) -> Iterator[Violation]:
    """3.5, 3.6: nobody engages again within the interval, by the daemon's own stamps."""
    entries: dict[str, dict[int, h.Engagement]] = defaultdict(dict)
    for _, entry in told(grants):
        if entry.outcome in {"SUCCESS", "UNKNOWN"}:
            entries[entry.item][entry.token] = entry
    for grant in grants.of(h.Lock):
        assert isinstance(grant.held, h.Lock)
        for entry in entries[grant.held.item].values():
            now = grant.held.daemon_granted_at
            until = entry.daemon_at + _interval(grants, grant, entry)
            if entry.token < grant.id and entry.daemon_at <= now < until:
                text = f"{grant.id} ({grant.held.kind}) was granted at {now}"
                yield Violation(grant.told, "intervals hold", f"{text}, before {until}, after {entry}")


def _interval(grants: Grants, grant: Grant, entry: h.Engagement) -> int:
    """Return the least that any configuration asks for which may have been in force at the grant."""
    assert isinstance(grant.held, h.Lock)
    kinds = [run.world.kinds.get(grant.held.kind) for run in grants.timeline.during(grant.low, grant.high)]
    return min((_interval_of(kind, grant, entry) for kind in kinds if kind), default=0)


def _interval_of(kind: h.Kind, grant: Grant, entry: h.Engagement) -> int:
    assert isinstance(grant.held, h.Lock)
    if entry.kind == grant.held.kind:
        whole = kind.min_interval_ns
    else:
        whole = kind.min_interval_after.get(entry.kind, 0)
    if entry.outcome == "UNKNOWN":
        return whole
    quality = grant.ask.quality
    if kind.bypass_quality is not None and quality >= kind.bypass_quality:
        return 0
    # The least that any way of rounding gives.
    return max(0, int(whole * (1 - quality * kind.quality_discount)) - h.SECOND // 1_000_000)


def conditions_hold(grants: Grants) -> Iterator[Violation]:
    """11.4: a bundle is granted only if nobody has acted on the items it names."""
    entries: dict[str, dict[int, h.Engagement]] = defaultdict(dict)
    for _, entry in told(grants):
        if entry.outcome in {"SUCCESS", "UNKNOWN"}:
            entries[entry.item][entry.token] = entry
    for operation in grants.history.operations:
        if not isinstance(operation.ask, h.Acquire) or not isinstance(operation.answer, h.Granted):
            continue
        held = next(iter(operation.answer.held), None)
        for condition in operation.ask.conditions:
            for entry in entries[condition.item].values():
                if held is not None and _breaks(entry, condition, held):
                    text = f"{held.id} was granted, though {entry}"
                    yield Violation(operation.returned_at or NEVER, "conditions hold", text)


def _breaks(entry: h.Engagement, condition: h.Condition, held: h.Held) -> bool:
    return (
        entry.item == condition.item
        and (not condition.kinds or entry.kind in condition.kinds)
        and entry.token < held.id
        and held.daemon_granted_at - condition.within_ns < entry.daemon_at <= held.daemon_granted_at
    )
