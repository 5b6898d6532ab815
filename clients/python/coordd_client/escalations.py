"""Escalations, as calls: what a coordination worker needs of AdminService, without I/O."""

from coordd.v1 import admin_pb2 as pb
from coordd_client import arguments
from coordd_client.messages import Call, Method, instant, seconds
from coordd_client.values import Decision, Escalation, Priority

_SERVICE = "/coordd.v1.AdminService/"

WATCH = Method(_SERVICE + "WatchEscalations", pb.WatchEscalationsRequest, pb.WatchEscalationsResponse)
RESOLVE = Method(_SERVICE + "ResolveEscalation", pb.ResolveEscalationRequest, pb.ResolveEscalationResponse)
# A watch is begun anew after so long; it is not felt.
WATCH_S = 86_400.0


def resolve_escalation(
    worker: str, escalation_id: int, decision: Decision, *, reason: str = ""
) -> Call[Escalation]:
    """Decides an escalation, as this worker; returns it, closed. The first decision counts.

    GRANT puts the waiter before all others, DENY refuses it, WAIT leaves it where it is, and PREEMPT also
    takes what it waits for from its holder, who is told and has the configured grace to give it up.
    Raises: EscalationClosed where somebody was faster or the wait is over; NotPreemptible where there is no
        one holder; NotFound, InvalidRequest, Unavailable, DeadlineExceeded.
    """
    request = pb.ResolveEscalationRequest(
        escalation_id=arguments.identifier("escalation_id", escalation_id),
        decision=arguments.choice("decision", Decision, decision),
        decided_by=worker,
        reason=arguments.text("reason", reason),
    )
    return Call(RESOLVE, request, lambda reply: read_escalation(reply.escalation))


def read_escalation(message: pb.Escalation) -> Escalation:
    """Reads an escalation."""
    return Escalation(
        escalation_id=message.escalation_id,
        subject=message.subject,
        worker=message.worker,
        priority=Priority(message.priority),
        waited_s=seconds(message.waited),
        holder=message.holder,
        holder_id=message.holder_id,
        opened_at=instant(message.opened_at),
        decide_by=instant(message.decide_by),
        decide_within_s=seconds(message.decide_within),
        default_decision=Decision(message.default_decision),
        decision=Decision(message.decision),
        decided_by=message.decided_by,
        is_open=message.is_open,
    )
