"""Laws of ids, stamps and repeated requests (semantics 1.4, 2)."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from operator import attrgetter

from audit import history as h
from audit.grants import Grant, Grants, Key, is_sure
from audit.violation import Violation

_ID_MAX = 1 << 53


def ids_are_unique(grants: Grants) -> Iterator[Violation]:
    """2.1: no id is ever given twice."""
    given: dict[int, tuple[object, ...]] = {}
    for operation in grants.history.operations:
        at = operation.returned_at or 0
        for id_, what in _given(operation):
            if not 0 < id_ < _ID_MAX:
                yield Violation(at, "ids are unique", f"{id_} is no id below 2^53")
            if given.setdefault(id_, what) != what:
                yield Violation(at, "ids are unique", f"{id_} is {given[id_]} and {what}")


def _given(operation: h.Operation) -> Iterator[tuple[int, tuple[object, ...]]]:
    answer = operation.answer
    who = (operation.worker, operation.request_id or operation.called_at)
    if isinstance(answer, h.Granted):
        for held in answer.held:
            yield held.id, (type(held).__name__, *who, held.daemon_granted_at)
        if answer.bundle:
            yield answer.bundle, ("bundle", *who)
    elif isinstance(answer, h.Booked):
        yield answer.id, ("booking", *who)


def ids_rise(grants: Grants) -> Iterator[Violation]:
    """2.1: what is granted later has a higher id, also across restarts."""
    yield from _rising(grants, "ids rise", lambda grant: grant.id)


def stamps_rise(grants: Grants) -> Iterator[Violation]:
    """1.4: time never runs backwards."""
    yield from _rising(grants, "time does not run back", lambda grant: grant.held.daemon_granted_at)
    last = None
    for grant in sorted(grants.by_id.values(), key=attrgetter("id")):
        if last is not None and grant.held.daemon_granted_at < last.held.daemon_granted_at:
            text = f"{grant.id} was granted at an earlier time than {last.id}"
            yield Violation(grant.told, "time does not run back", text)
        last = grant


def _rising(grants: Grants, law: str, value: object) -> Iterator[Violation]:
    """Yield whatever was asked for after another one was told, and is not above it."""
    by_told = sorted(grants.by_id.values(), key=attrgetter("told"))
    by_asked = sorted(grants.by_id.values(), key=attrgetter("asked"))
    highest: Grant | None = None
    next_told = 0
    of = value if callable(value) else attrgetter("id")
    for grant in by_asked:
        while by_told[next_told].told < grant.asked:
            earlier = by_told[next_told]
            highest = earlier if highest is None or of(earlier) > of(highest) else highest
            next_told += 1
        if highest is not None and of(grant) < of(highest):
            text = (
                f"{grant.id} was asked for after {highest.id} was told, and has {of(grant)} < {of(highest)}"
            )
            yield Violation(grant.told, law, text)


def stamps_are_true(grants: Grants) -> Iterator[Violation]:
    """1.4: within one run a grant's time lies between its question and its answer."""
    for grant in grants.by_id.values():
        runs = grants.timeline.during(grant.asked, grant.told)
        if len(runs) != 1 or (span := runs[0].true(grant.held.daemon_granted_at)) is None:
            continue
        if span[1] < grant.asked or span[0] > grant.told:
            text = f"{grant.id} was granted at {span[0]}, asked for at {grant.asked} and told at {grant.told}"
            yield Violation(grant.told, "stamps are true", text)


def a_request_has_one_answer(grants: Grants) -> Iterator[Violation]:
    """2.2: the same request id gives the same grant again, and none for a while after its end."""
    for (worker, request_id), operations in grants.attempts.items():
        found = {
            min(held.id for held in each.answer.held): each
            for each in operations
            if isinstance(each.answer, h.Granted) and each.answer.held
        }
        ids = sorted(found)
        for earlier, later in pairwise(ids):
            second = grants.by_id[later]
            if second.high < _remembered(grants, found[earlier]):
                text = f"{worker} got {earlier}, and {later} for the same {request_id!r}"
                yield Violation(second.told, "a request has one answer", text)


def _remembered(grants: Grants, operation: h.Operation) -> int:
    """Return until when the grant is surely remembered: it ends with its last member."""
    assert isinstance(operation.answer, h.Granted)
    memory = min(world.requests.memory_ns for world in grants.timeline.worlds())
    members = [grants.by_id[held.id] for held in operation.answer.held]
    if any(isinstance(each.held, h.Permit) for each in members):
        # When a permit is over is not worth knowing: its report, or its time.
        return max((each.low for each in members), default=0)
    return grants.timeline.elapsed(max(each.ends_least for each in members), memory)


def an_ended_request_was_granted(grants: Grants) -> Iterator[Violation]:
    """2.2: REQUEST_ENDED is said of a request whose grant is over."""
    for (worker, request_id), operations in grants.attempts.items():
        for ended in operations:
            if not (isinstance(ended.answer, h.Failed) and ended.answer.reason == "REQUEST_ENDED"):
                continue
            for each in operations:
                if isinstance(each.answer, h.Granted) and _lives(grants, each, ended.returned_at or 0):
                    text = f"{worker}'s {request_id!r} is said to be over, and lives"
                    yield Violation(ended.returned_at or 0, "no acknowledged grant is lost", text)


def a_request_does_not_block_itself(grants: Grants) -> Iterator[Violation]:
    """2.2: a repeat is given its grant again, and is not refused because its own worker holds the item."""
    asked: dict[tuple[str, Key], list[h.Operation]] = defaultdict(list)
    for operation in grants.history.operations:
        for key in _keys(grants, operation):
            asked[operation.worker, key].append(operation)
    for operation in grants.history.operations:
        answer, at = operation.answer, operation.returned_at or 0
        if not isinstance(answer, h.Refused) or answer.holder != operation.worker or answer.reason != "HELD":
            continue
        others = [each for key in _keys(grants, operation) for each in asked[operation.worker, key]]
        if operation.request_id and not any(_may_hold(grants, each, operation) for each in others):
            text = f"{operation.worker} holds what its {operation.request_id!r} is refused"
            yield Violation(at, "a request has one answer", text)


def _keys(grants: Grants, operation: h.Operation) -> list[Key]:
    claims = operation.ask.claims if isinstance(operation.ask, h.Acquire) else []
    return [key for claim in claims if (key := grants.claim_key(claim)) is not None]


def _may_hold(grants: Grants, other: h.Operation, refused: h.Operation) -> bool:
    """Return whether another request of the same worker may have held it when this one was refused."""
    is_later = other.called_at > (refused.returned_at or 0)
    if is_later or (other.request_id == refused.request_id and other.request_id):
        return False
    if isinstance(other.answer, h.Granted):
        return any(grants.by_id[held.id].ends_most >= refused.called_at for held in other.answer.held)
    return not is_sure(other)


def _lives(grants: Grants, operation: h.Operation, at: int) -> bool:
    assert isinstance(operation.answer, h.Granted)
    members = [grants.by_id[held.id] for held in operation.answer.held]
    return any(not isinstance(each.held, h.Permit) and each.low <= at < each.ends_least for each in members)
