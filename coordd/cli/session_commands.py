"""coordctl's command on workers' sessions."""

from collections.abc import Iterable

import click

from coordd.cli.invocation import Command, Invocation, pages, pass_invocation
from coordd.cli.number import WholeNumber
from coordd.cli.printer import Column
from coordd.cli.words import instant, length
from coordd.v1 import admin_pb2

__all__ = ["sessions"]


def _labels(session: admin_pb2.SessionInfo) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(session.labels.items()))


_SESSIONS: tuple[Column[admin_pb2.SessionInfo], ...] = (
    Column("WORKER", lambda session: session.worker),
    Column("CLASS", lambda session: session.worker_class),
    Column("WEIGHT", lambda session: f"{session.weight:g}", right=True),
    Column("HOLDS", lambda session: session.held, right=True),
    Column("CONNECTED", lambda session: "yes" if session.connected else "no"),
    Column("OPENED", lambda session: instant(session.opened_at)),
    Column("ENDS IN", lambda session: length(session.expires_in), right=True),
    Column("LABELS", _labels),
)


@click.command(cls=Command, short_help="List the workers that are there.")
@click.option("--limit", type=WholeNumber(1), help="At most so many.  [default: all]")
@pass_invocation
def sessions(invocation: Invocation, limit: int | None) -> None:
    """List the open sessions, by worker: what each keeps, and when it ends without another keepalive."""

    def fetch(page_size: int, page_token: str) -> tuple[Iterable[admin_pb2.SessionInfo], str]:
        request = admin_pb2.ListSessionsRequest(page_size=page_size, page_token=page_token)
        response = invocation.daemon.ask(invocation.daemon.admin.ListSessions, request)
        return response.sessions, response.next_page_token

    invocation.printer.rows(pages(fetch, limit), _SESSIONS, none="no sessions")
