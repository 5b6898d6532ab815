"""coordctl's commands on the daemon itself: how it fares, what happens, and stepping in."""

from functools import partial

import click
from rich.text import Text

from coordd.cli.failure import ExitCode
from coordd.cli.invocation import Command, Invocation, pass_invocation
from coordd.cli.limit_commands import gate_text, learned_text, override_count, windows_text
from coordd.cli.number import WholeNumber
from coordd.cli.printer import Column, Listing, cell
from coordd.cli.words import choices, counted, enum_value, instant, length, word
from coordd.v1 import admin_pb2, common_pb2, rate_limit_pb2

__all__ = ["drain", "force_release", "status", "watch"]

_HEALTH_STYLES = {
    rate_limit_pb2.HEALTH_HEALTHY: "bold green",
    rate_limit_pb2.HEALTH_WARNING: "bold yellow",
    rate_limit_pb2.HEALTH_CRITICAL: "bold red",
}


def _health(health: rate_limit_pb2.Health.ValueType) -> Text:
    return Text(word(rate_limit_pb2.Health, health), _HEALTH_STYLES.get(health, ""))


_ENDPOINTS: tuple[Column[rate_limit_pb2.EndpointStatus], ...] = (
    Column("ENDPOINT", lambda endpoint: endpoint.endpoint),
    Column("HEALTH", lambda endpoint: _health(endpoint.health)),
    Column("USED", lambda endpoint: f"{endpoint.utilisation:.0%}", right=True),
    Column("WINDOWS", lambda endpoint: windows_text(endpoint.windows)),
    Column("WORKERS", lambda endpoint: endpoint.active_workers, right=True),
    Column("QUEUED", lambda endpoint: endpoint.queued, right=True),
    Column("GATE", lambda endpoint: gate_text(endpoint.gate)),
    Column("LEARNED", lambda endpoint: learned_text(endpoint.learned)),
    Column("429S", lambda endpoint: endpoint.violations, right=True),
)


def _headline(
    at: str, daemon: admin_pb2.GetStatusResponse, system: rate_limit_pb2.GetSystemStatusResponse
) -> Text:
    line = (
        cell(f"coordd {daemon.version} at {at}: endpoints ").append_text(_health(system.health)).append(", ")
    )
    line.append("DRAINING" if daemon.draining else "granting", "bold red" if daemon.draining else "")
    return line.append(f", up {length(daemon.uptime)}, clock {instant(daemon.now)}")


def _counts(daemon: admin_pb2.GetStatusResponse) -> Text:
    mean = f", {length(daemon.commit_time_mean)} each" if daemon.HasField("commit_time_mean") else ""
    return Text(
        f"live     {counted(daemon.locks, 'lock')}, {counted(daemon.reservations, 'reservation')}, "
        f"{counted(daemon.permits, 'permit')}, {counted(daemon.bookings, 'booking')}, "
        f"{counted(daemon.bundles, 'bundle')}\n"
        f"workers  {counted(daemon.sessions, 'session')}\n"
        f"waiting  {counted(daemon.waiters, 'waiter')}, {daemon.waiters_away:,} of them away; "
        f"{counted(daemon.escalations, 'escalation')} to decide\n"
        f"{_quotas(daemon)}"
        f"done     {counted(daemon.commands, 'command')} in {counted(daemon.commits, 'commit')}{mean}; "
        f"last id {daemon.last_id}"
    )


def _quotas(daemon: admin_pb2.GetStatusResponse) -> str:
    taken = ", ".join(f"{each.quota} {each.used:,} of {each.limit:,}" for each in daemon.quotas)
    return f"quotas   {taken}\n" if taken else ""


def _overrides(count: int) -> Text:
    return Text(f"{counted(count, 'setting')} changed by operators: see 'coordctl pools', 'coordctl limits'")


@click.command(cls=Command, short_help="Show how the daemon and the endpoints fare.")
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show how the daemon and every endpoint fare, on one screen."""
    daemon = invocation.daemon
    own = daemon.ask(daemon.admin.GetStatus, admin_pb2.GetStatusRequest())
    system = daemon.ask(daemon.rate_limit.GetSystemStatus, rate_limit_pb2.GetSystemStatusRequest())
    if invocation.as_json:
        invocation.printer.messages(daemon=own, system=system)
        return
    changed = override_count(daemon)
    at = f"{invocation.address}{invocation.namespace and f', namespace {invocation.namespace}'}"
    invocation.printer.view(_headline(at, own, system), _counts(own))
    if changed:
        invocation.printer.view(_overrides(changed))
    if system.endpoints:
        invocation.printer.view(Text(), Listing(system.endpoints, _ENDPOINTS))


_EVENT_STYLES = {
    admin_pb2.EVENT_TYPE_GRANTED: "green",
    admin_pb2.EVENT_TYPE_EXPIRED: "magenta",
    admin_pb2.EVENT_TYPE_REFUSED: "yellow",
    admin_pb2.EVENT_TYPE_FORCED: "red",
    admin_pb2.EVENT_TYPE_UPDATED: "red",
    admin_pb2.EVENT_TYPE_ALERT: "bold red",
    admin_pb2.EVENT_TYPE_LEARNED: "yellow",
    admin_pb2.EVENT_TYPE_CLOSED: "red",
    admin_pb2.EVENT_TYPE_OPENED: "green",
}


def _event_tail(event: admin_pb2.WatchEventsResponse) -> str:
    """What not every event has."""
    # A bundle's name lists what is in it; their number behind the last one would read as that one's.
    has_units = event.units and event.subject != admin_pb2.SUBJECT_BUNDLE
    parts = [
        f"({event.kind})" if event.kind else "",
        f"x{event.units}" if has_units else "",
        f"worker {event.worker}" if event.worker else "",
        f"#{event.id}" if event.id else "",
        word(common_pb2.RefusalReason, event.refusal_reason) if event.refusal_reason else "",
        event.detail,
    ]
    return " ".join(part for part in parts if part)


def _event_line(event: admin_pb2.WatchEventsResponse) -> Text:
    # Appended, for a style given to Text itself would be the whole line's.
    line = Text().append(instant(event.at, timespec="milliseconds"), "dim").append("  ")
    line.append(f"{word(admin_pb2.EventType, event.type):<9}", _EVENT_STYLES.get(event.type, ""))
    line.append(f"  {word(admin_pb2.Subject, event.subject).lower():<11}  ")
    return line.append_text(cell(event.name)).append(" ").append_text(cell(_event_tail(event)))


@click.command(cls=Command, short_help="Print what happens from now on, a line an event.")
@click.option(
    "--subject", "subjects", type=click.Choice(choices(admin_pb2.Subject)), multiple=True, help="Only these."
)
@click.option(
    "--type", "types", type=click.Choice(choices(admin_pb2.EventType)), multiple=True, help="Only these."
)
@click.option("--worker", default="", help="Only this worker's.")
@pass_invocation
def watch(invocation: Invocation, subjects: tuple[str, ...], types: tuple[str, ...], worker: str) -> None:
    """Print what happens from now on, a line an event, until Ctrl-C (exit code 130).

    --subject and --type may be given several times. --timeout does not end a watch.
    """
    request = admin_pb2.WatchEventsRequest(
        subjects=[enum_value(admin_pb2.Subject, name) for name in subjects],
        types=[enum_value(admin_pb2.EventType, name) for name in types],
        worker=worker,
    )
    daemon = invocation.daemon
    for event in daemon.stream(daemon.admin.WatchEvents, request, wait_ns=None):
        if event.missed and not invocation.as_json:
            missed = counted(event.missed, "event")
            invocation.note(f"{missed} missed here: they came faster than they were read")
        invocation.printer.message(event, partial(_event_line, event))
    raise invocation.failure("the daemon ended the stream; is it stopping?", ExitCode.UNAVAILABLE)


@click.command("force-release", cls=Command, short_help="Take a lock, reservation, booking or bundle away.")
@click.argument("id_", metavar="ID", type=WholeNumber(1, 2**64 - 1))
@click.option("--reason", required=True, help="Why; logged and shown to watchers.")
@pass_invocation
def force_release(invocation: Invocation, id_: int, reason: str) -> None:
    """Take the lock, reservation, booking or bundle ID from its holder.

    ID is a fencing token, or a reservation's, booking's or bundle's id. A lock leaves UNKNOWN in the history:
    its holder may have acted.
    """
    request = admin_pb2.ForceReleaseRequest(id=id_, reason=reason)
    answer = invocation.daemon.change(invocation.daemon.admin.ForceRelease, request)
    subject = word(admin_pb2.Subject, answer.subject).lower()
    invocation.printer.message(
        answer, lambda: cell(f"took {subject} {id_} on {answer.name} from {answer.worker or 'nobody'}")
    )


@click.command(cls=Command, short_help="Stop granting, or grant again.")
@click.option("--undo", is_flag=True, help="Grant again.")
@click.option("--reason", default="", help="Why; logged.")
@pass_invocation
def drain(invocation: Invocation, *, undo: bool, reason: str) -> None:
    """Stop granting: new requests are turned away, renewals and releases go on."""
    request = admin_pb2.DrainRequest(undo=undo, reason=reason)
    answer = invocation.daemon.change(invocation.daemon.admin.Drain, request)
    state = (
        "draining: nothing new is granted, 'coordctl drain --undo' ends it" if answer.draining else "granting"
    )
    invocation.printer.message(answer, lambda: cell(state))
