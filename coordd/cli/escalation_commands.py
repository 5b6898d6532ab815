"""coordctl's commands on escalations: conflicts that somebody is asked to decide."""

from collections.abc import Iterable
from functools import partial

import click
from rich.text import Text

from coordd.cli.failure import ExitCode
from coordd.cli.invocation import Command, Invocation, pages, pass_invocation
from coordd.cli.number import WholeNumber
from coordd.cli.printer import Column, cell
from coordd.cli.words import choices, enum_value, length, word
from coordd.v1 import admin_pb2, common_pb2

__all__ = ["escalations", "resolve"]


def _decision(number: int) -> str:
    return word(admin_pb2.Decision, number).lower()


_ESCALATIONS: tuple[Column[admin_pb2.Escalation], ...] = (
    Column("ID", lambda escalation: escalation.escalation_id, right=True),
    Column("ABOUT", lambda escalation: escalation.subject),
    Column("WAITS", lambda escalation: escalation.worker),
    Column("CLASS", lambda escalation: word(common_pb2.Priority, escalation.priority)),
    Column("WAITED", lambda escalation: length(escalation.waited), right=True),
    Column("HOLDER", lambda escalation: escalation.holder or "-"),
    Column("TOKEN", lambda escalation: escalation.holder_id or "-", right=True),
    Column("DECIDE WITHIN", lambda escalation: length(escalation.decide_within), right=True),
    Column("ELSE", lambda escalation: _decision(escalation.default_decision)),
)


def _held(escalation: admin_pb2.Escalation) -> str:
    return f", held by {escalation.holder} #{escalation.holder_id}" if escalation.holder else ""


def _line(escalation: admin_pb2.Escalation) -> Text:
    """One that was opened or closed, as a line."""
    about = f"#{escalation.escalation_id} {escalation.subject}: {escalation.worker} waits{_held(escalation)}"
    if escalation.is_open:
        within, default = length(escalation.decide_within), _decision(escalation.default_decision)
        return Text("OPENED  ", "yellow").append_text(
            cell(f"{about}; decide within {within}, else {default}")
        )
    decided = f"{_decision(escalation.decision)} by {escalation.decided_by}" if escalation.decision else ""
    return Text("CLOSED  ", "green").append_text(cell(f"{about}; {decided or 'the wait is over'}"))


@click.command(cls=Command, short_help="List the conflicts that somebody is asked to decide.")
@click.option("--watch", is_flag=True, help="Then print each one that is opened or closed, until Ctrl-C.")
@pass_invocation
def escalations(invocation: Invocation, *, watch: bool) -> None:
    """List the open escalations, oldest first: who waits, who holds it, and how long there is to decide.

    Decide one with 'coordctl resolve ID'.
    """
    daemon = invocation.daemon
    if not watch:

        def fetch(size: int, token: str) -> tuple[Iterable[admin_pb2.Escalation], str]:
            page = admin_pb2.ListEscalationsRequest(page_size=size, page_token=token)
            response = daemon.ask(daemon.admin.ListEscalations, page)
            return response.escalations, response.next_page_token

        invocation.printer.rows(pages(fetch), _ESCALATIONS, none="no escalations")
        return
    request = admin_pb2.WatchEscalationsRequest()
    for message in daemon.stream(daemon.admin.WatchEscalations, request, wait_ns=None):
        escalation = message.escalation
        invocation.printer.message(escalation, partial(_line, escalation))
    raise invocation.failure("the daemon ended the stream; is it stopping?", ExitCode.UNAVAILABLE)


@click.command(cls=Command, short_help="Decide a conflict.")
@click.argument("id_", metavar="ID", type=WholeNumber(1, 2**64 - 1))
@click.argument("decision", type=click.Choice(choices(admin_pb2.Decision)))
@click.option("--by", required=True, help="Who decides; logged and shown to watchers.")
@click.option("--reason", default="", help="Why; logged and shown to watchers.")
@pass_invocation
def resolve(invocation: Invocation, id_: int, decision: str, by: str, reason: str) -> None:
    """Decide the escalation ID.

    grant: the waiter goes first. deny: it is refused. preempt: the holder is told, has the configured grace
    to give it up, and then loses it; the waiter goes first. wait: it waits on where it is.
    """
    request = admin_pb2.ResolveEscalationRequest(
        escalation_id=id_, decision=enum_value(admin_pb2.Decision, decision), decided_by=by, reason=reason
    )
    answer = invocation.daemon.change(invocation.daemon.admin.ResolveEscalation, request)
    escalation = answer.escalation
    invocation.printer.message(
        answer,
        lambda: cell(
            f"decided {decision}: {escalation.subject}, {escalation.worker} waits{_held(escalation)}"
        ),
    )
