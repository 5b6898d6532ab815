"""Events: one for everything that changed something or was refused, none for the rest."""

import typing
from typing import Any

import pytest
from msgspec.structs import replace

from coordd.core import commands, outcomes
from coordd.core.errors import InvalidArgument
from coordd.core.limits import SECOND
from coordd.core.outcomes import Reason, Refused
from coordd.core.records import (
    Booking,
    Bundle,
    Engagement,
    Escalation,
    Gate,
    Lock,
    Outcome,
    Permit,
    Reservation,
    Session,
)
from coordd.core.waiters import Waiter
from coordd.engine import Event
from coordd.rpc import events
from coordd.v1 import admin_pb2 as pb
from coordd.v1 import common_pb2

LOCK = Lock(token=1, item="i", kind="like", worker="w", granted_at=1, expires_at=2, ttl_ns=1)
UNITS = Reservation(
    id=2, type="t", resource_id="", pool="p", units=3, worker="w", granted_at=1, expires_at=2, ttl_ns=1
)
RESOURCE = Reservation(
    id=3, type="t", resource_id="r", pool="", units=0, worker="w", granted_at=1, expires_at=2, ttl_ns=1
)
PERMIT = Permit(id=4, endpoint="e", worker="w", count=5, granted_at=1, use_by=2)
BOOKING = Booking(id=5, endpoint="e", worker="w", count=6, booked_at=1, execute_at=2, claim_until=3, use_by=4)
ENGAGEMENT = Engagement(
    token=1, item="i", kind="like", worker="w", outcome=Outcome.UNKNOWN, at=2, granted_at=1, ended_by=0
)
_CLAIMS = '[[["i","k"]],[["t","r",1],["u","",1]],[["e",1]]]'
BUNDLE = Bundle(id=8, worker="w", granted_at=1, members="[1,4]", claims=_CLAIMS, held=(LOCK, PERMIT))
SESSION = Session(
    worker="w", id=8, worker_class="fast", weight_milli=1, labels="{}", opened_at=1, expires_at=2, ttl_ns=1
)
KEPT = outcomes.SessionKept(held=(1,), first_end=9, keepalive_ns=3)
ESCALATION = Escalation(
    id=9,
    waiter_id=7,
    subject="i",
    worker="w",
    priority=2,
    waited_ns=1,
    holder="v",
    holder_id=1,
    opened_at=1,
    decide_by=2,
)
REQUEST = commands.RequestLock(item="i", kind="like", worker="w")
REFUSED = Refused(reason=Reason.HELD, subject="i")
WAITER = Waiter(7, REQUEST, 0, 0, 0)
USAGE = commands.RecordUsage(
    endpoint="e",
    worker="w",
    id=4,
    is_sent=True,
    is_success=False,
    status_code=429,
    headers=(("Retry-After", "1\n2"),),
)
G, R, X = pb.EVENT_TYPE_GRANTED, pb.EVENT_TYPE_RELEASED, pb.EVENT_TYPE_EXPIRED


def told(outcome: Any, command: Any = None) -> pb.WatchEventsResponse | None:
    return events.told(Event(at=3 * SECOND, command=command, outcome=outcome))


TOLD = [
    (REQUEST, outcomes.Granted(grant=LOCK), (G, pb.SUBJECT_LOCK, 1, "i", "like", 0, "")),
    (None, outcomes.Granted(grant=UNITS), (G, pb.SUBJECT_RESERVATION, 2, "p", "t", 3, "")),
    (None, outcomes.Granted(grant=RESOURCE), (G, pb.SUBJECT_RESERVATION, 3, "t/r", "t", 0, "")),
    (None, outcomes.Granted(grant=PERMIT), (G, pb.SUBJECT_PERMIT, 4, "e", "", 5, "")),
    (None, outcomes.Booked(booking=BOOKING), (G, pb.SUBJECT_BOOKING, 5, "e", "", 6, "")),
    (REQUEST, REFUSED, (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_LOCK, 0, "i", "like", 0, "")),
    (
        commands.ReserveResource(type="t", worker="w", units=3),
        Refused(reason=Reason.UNITS_TAKEN, subject="p"),
        (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_RESERVATION, 0, "t", "t", 3, "p"),
    ),
    (
        commands.TakePermit(endpoint="e", worker="w", count=2),
        Refused(reason=Reason.WINDOW_FULL, subject="e"),
        (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_PERMIT, 0, "e", "", 2, ""),
    ),
    (REQUEST, outcomes.Queued(id=7), (pb.EVENT_TYPE_QUEUED, pb.SUBJECT_LOCK, 0, "i", "like", 0, "")),
    (
        REQUEST,
        outcomes.Queued(id=7, is_resumed=True),
        (pb.EVENT_TYPE_QUEUED, pb.SUBJECT_LOCK, 0, "i", "like", 0, "resumed"),
    ),
    (
        None,
        outcomes.Renewed(grant=LOCK),
        (pb.EVENT_TYPE_RENEWED, pb.SUBJECT_LOCK, 1, "i", "like", 0, ""),
    ),
    (
        None,
        outcomes.LockReleased(engagement=ENGAGEMENT),
        (R, pb.SUBJECT_LOCK, 1, "i", "like", 0, "unknown"),
    ),
    (
        commands.ReleaseResource(id=2, worker="w", unused_units=2),
        outcomes.ResourceReleased(reservation=UNITS),
        (R, pb.SUBJECT_RESERVATION, 2, "p", "t", 3, "2 unused"),
    ),
    (
        USAGE,
        outcomes.UsageRecorded(permit=PERMIT),
        (R, pb.SUBJECT_PERMIT, 4, "e", "", 5, 'failure, status 429, headers [["Retry-After", "1\\n2"]]'),
    ),
    (None, outcomes.BookingCancelled(booking=BOOKING), (R, pb.SUBJECT_BOOKING, 5, "e", "", 6, "")),
    (
        None,
        outcomes.GrantReturned(grant=LOCK),
        (R, pb.SUBJECT_LOCK, 1, "i", "like", 0, "its waiter was gone"),
    ),
    (
        commands.ForceRelease(id=1, reason="stuck"),
        outcomes.Forced(grant=LOCK),
        (pb.EVENT_TYPE_FORCED, pb.SUBJECT_LOCK, 1, "i", "like", 0, "stuck"),
    ),
    (
        None,
        outcomes.Updated(subject="p"),
        (pb.EVENT_TYPE_UPDATED, pb.SUBJECT_SETTING, 0, "p", "", 0, ""),
    ),
    (
        None,
        outcomes.WaitGranted(waiter=WAITER, grant=LOCK),
        (G, pb.SUBJECT_LOCK, 1, "i", "like", 0, "after a wait"),
    ),
    (
        None,
        outcomes.WaitRefused(waiter=WAITER, refused=REFUSED),
        (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_LOCK, 0, "i", "like", 0, ""),
    ),
    (
        None,
        outcomes.WaitVoided(waiter=WAITER, error=InvalidArgument("UNKNOWN_KIND", "kind like is not known")),
        (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_LOCK, 0, "i", "like", 0, "UNKNOWN_KIND"),
    ),
    (None, outcomes.Expired(grant=PERMIT), (X, pb.SUBJECT_PERMIT, 4, "e", "", 5, "")),
    (None, outcomes.Expired(grant=BOOKING), (X, pb.SUBJECT_BOOKING, 5, "e", "", 6, "")),
    (None, outcomes.Granted(grant=BUNDLE), (G, pb.SUBJECT_BUNDLE, 8, "i, t/r, u, e", "", 4, "")),
    (
        None,
        outcomes.BundleEnded(bundle=BUNDLE),
        (R, pb.SUBJECT_BUNDLE, 8, "i, t/r, u, e", "", 4, "its last member has ended"),
    ),
    (None, outcomes.Expired(grant=BUNDLE), (X, pb.SUBJECT_BUNDLE, 8, "i, t/r, u, e", "", 4, "")),
    (
        commands.AcquireBundle(
            worker="w", locks=(REQUEST,), permits=(commands.TakePermit(endpoint="e", worker="w"),)
        ),
        REFUSED,
        (pb.EVENT_TYPE_REFUSED, pb.SUBJECT_BUNDLE, 0, f"{REQUEST.item}, e", "", 2, REFUSED.subject),
    ),
    (None, outcomes.BundleReleased(bundle=BUNDLE), (R, pb.SUBJECT_BUNDLE, 8, "i, t/r, u, e", "", 4, "")),
    (
        None,
        outcomes.Preempted(grant=LOCK, at=8 * SECOND),
        (pb.EVENT_TYPE_PREEMPTED, pb.SUBJECT_LOCK, 1, "i", "like", 0, "in 5s"),
    ),
    (
        None,
        outcomes.Preempted(grant=LOCK, at=3 * SECOND),
        (pb.EVENT_TYPE_PREEMPTED, pb.SUBJECT_LOCK, 1, "i", "like", 0, "taken"),
    ),
    (
        None,
        outcomes.SessionOpened(session=SESSION, is_resumed=True, kept=KEPT, weight_milli=1_000),
        (pb.EVENT_TYPE_OPENED, pb.SUBJECT_SESSION, 8, "w", "fast", 0, "resumed"),
    ),
    (
        None,
        outcomes.SessionClosed(session=SESSION, released=3),
        (R, pb.SUBJECT_SESSION, 8, "w", "fast", 0, "3 released"),
    ),
    (
        None,
        outcomes.GivenBack(grant=LOCK),
        (R, pb.SUBJECT_LOCK, 1, "i", "like", 0, "its worker has closed its session"),
    ),
    (None, outcomes.SessionExpired(session=SESSION), (X, pb.SUBJECT_SESSION, 8, "w", "fast", 0, "")),
    (
        None,
        outcomes.EscalationChanged(escalation=ESCALATION, is_open=True),
        (pb.EVENT_TYPE_OPENED, pb.SUBJECT_ESCALATION, 9, "i", "", 0, ""),
    ),
    (
        None,
        outcomes.EscalationChanged(
            escalation=replace(ESCALATION, decision=3, decided_by="me"), is_open=False
        ),
        (pb.EVENT_TYPE_RESOLVED, pb.SUBJECT_ESCALATION, 9, "i", "", 0, "preempt by me"),
    ),
    (
        None,
        outcomes.GateChanged(gate=Gate("e", closed_until=5 * SECOND, strikes=2)),
        (pb.EVENT_TYPE_CLOSED, pb.SUBJECT_GATE, 0, "e", "", 0, "for 2s, 2 refusals in a row"),
    ),
    (
        None,
        outcomes.GateChanged(gate=Gate("e", closed_until=1)),
        (pb.EVENT_TYPE_CLOSED, pb.SUBJECT_GATE, 0, "e", "", 0, "the next call probes"),
    ),
    (
        None,
        outcomes.GateChanged(gate=Gate("e", closed_until=1, probe_id=4)),
        (pb.EVENT_TYPE_CLOSED, pb.SUBJECT_GATE, 0, "e", "", 0, "probe 4"),
    ),
    (
        None,
        outcomes.GateChanged(gate=Gate("e")),
        (pb.EVENT_TYPE_OPENED, pb.SUBJECT_GATE, 0, "e", "", 0, ""),
    ),
    (
        None,
        outcomes.LimitLearned(
            subject="limit/e", window_ns=900 * SECOND, value=25, configured=50, is_in_force=True
        ),
        (
            pb.EVENT_TYPE_LEARNED,
            pb.SUBJECT_SETTING,
            0,
            "limit/e",
            "",
            0,
            "upstream allows 25 in 15m, configured are 50",
        ),
    ),
    (
        None,
        outcomes.LimitLearned(
            subject="limit/e", window_ns=900 * SECOND, value=50, configured=50, is_in_force=True
        ),
        (
            pb.EVENT_TYPE_LEARNED,
            pb.SUBJECT_SETTING,
            0,
            "limit/e",
            "",
            0,
            "upstream allows 50 in 15m, as configured",
        ),
    ),
    (
        None,
        outcomes.LimitLearned(
            subject="limit/e", window_ns=SECOND, value=60, configured=50, is_in_force=False
        ),
        (
            pb.EVENT_TYPE_ALERT,
            pb.SUBJECT_SETTING,
            0,
            "limit/e",
            "",
            0,
            "upstream allows 60 in 1s, configured are 50",
        ),
    ),
    (
        None,
        outcomes.Alert(subject="limit/e", detail="Look."),
        (pb.EVENT_TYPE_ALERT, pb.SUBJECT_SETTING, 0, "limit/e", "", 0, "Look."),
    ),
    (
        None,
        outcomes.CapacityChanged(pool="p", before=7, after=6),
        (pb.EVENT_TYPE_LEARNED, pb.SUBJECT_SETTING, 0, "pool/p", "", 0, "capacity 7 -> 6"),
    ),
]


@pytest.mark.parametrize(("command", "outcome", "expected"), TOLD, ids=lambda value: type(value).__name__)
def test_what_is_told(command: Any, outcome: Any, expected: tuple[Any, ...]) -> None:
    event = told(outcome, command)
    assert event is not None
    shown = (event.type, event.subject, event.id, event.name, event.kind, event.units, event.detail)
    assert shown == expected
    assert event.at.seconds == 3
    assert event.worker == ("" if event.subject in (pb.SUBJECT_SETTING, pb.SUBJECT_GATE) else "w")


@pytest.mark.parametrize(
    "outcome",
    [
        outcomes.Granted(grant=LOCK, is_repeat=True),
        outcomes.Booked(booking=BOOKING, is_repeat=True),
        outcomes.LockReleased(engagement=ENGAGEMENT, is_repeat=True),
        outcomes.ResourceReleased(reservation=None),
        outcomes.UsageRecorded(permit=None),
        outcomes.BookingCancelled(booking=None),
        outcomes.GrantReturned(grant=None),
        outcomes.BundleReleased(bundle=None),
        outcomes.WaiterLeft(is_away=True),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_a_repeat_is_not_told(outcome: Any) -> None:
    commanded = {
        outcomes.UsageRecorded: USAGE,
        outcomes.ResourceReleased: commands.ReleaseResource(id=2, worker="w"),
    }
    assert told(outcome, commanded.get(type(outcome))) is None


def test_no_outcome_is_forgotten() -> None:
    every = {*typing.get_args(outcomes.Outcome), *typing.get_args(outcomes.Notice)}
    assert every - {type(outcome) for _, outcome, _ in TOLD} == {
        outcomes.WaiterLeft,
        outcomes.SessionKept,
        outcomes.EscalationResolved,
        outcomes.LeasesExpiring,
    }


def test_a_refusal_says_why() -> None:
    event = told(REFUSED, REQUEST)
    assert event is not None
    assert event.refusal_reason == common_pb2.REFUSAL_REASON_HELD


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (events.Filter(subjects=(), types=(), worker=""), True),
        (events.Filter(subjects=(pb.SUBJECT_LOCK,), types=(G,), worker="w"), True),
        (events.Filter(subjects=(pb.SUBJECT_PERMIT,), types=(), worker=""), False),
        (events.Filter(subjects=(), types=(R, X), worker=""), False),
        (events.Filter(subjects=(), types=(), worker="v"), False),
    ],
)
def test_a_watcher_sees_what_it_asked_for(wanted: events.Filter, *, passes: bool) -> None:
    event = told(outcomes.Granted(grant=LOCK))
    assert event is not None
    assert wanted.passes(event) is passes
