"""coordctl's command on what endpoints are expected to be asked for, and how true what they promise is."""

from collections.abc import Iterable, Iterator

import click

from coordd.cli.failure import ExitCode
from coordd.cli.invocation import Command, Invocation, pass_invocation
from coordd.cli.limit_commands import complete_endpoint
from coordd.cli.printer import Column, Listing
from coordd.cli.words import length, word
from coordd.v1 import common_pb2, rate_limit_pb2

__all__ = ["forecasts"]

_Row = tuple[rate_limit_pb2.EndpointStatus, rate_limit_pb2.ClassForecast | None]

_FORECASTS: tuple[Column[_Row], ...] = (
    Column("ENDPOINT", lambda row: row[0].endpoint),
    Column("CLASS", lambda row: word(common_pb2.Priority, row[1].priority).lower() if row[1] else "-"),
    Column("PER HOUR", lambda row: f"{row[1].per_s * 3600:,.1f}" if row[1] else "-", right=True),
    Column("KEPT", lambda row: row[1].kept if row[1] else "-", right=True),
    Column("PROMISES OFF BY", lambda row: _error(row[0]), right=True),
)


def _error(endpoint: rate_limit_pb2.EndpointStatus) -> str:
    return length(endpoint.scheduling_error) if endpoint.HasField("scheduling_error") else "-"


def _rows(endpoints: Iterable[rate_limit_pb2.EndpointStatus]) -> Iterator[_Row]:
    for endpoint in endpoints:
        for forecast in endpoint.forecasts or [None]:
            yield endpoint, forecast


@click.command(cls=Command, short_help="Say what is expected to be asked for.")
@click.argument("endpoint", required=False, shell_complete=complete_endpoint)
@pass_invocation
def forecasts(invocation: Invocation, endpoint: str | None) -> None:
    """Say what each class is expected to ask of each endpoint, or of ENDPOINT.

    KEPT: calls that lower classes leave to it now, in the fullest window. PROMISES OFF BY: how far off, on
    average, the times were that waiters and bookings were told.
    """
    request = rate_limit_pb2.GetSystemStatusRequest()
    answer = invocation.daemon.ask(invocation.daemon.rate_limit.GetSystemStatus, request)
    endpoints = [status for status in answer.endpoints if endpoint in {None, status.endpoint}]
    if endpoint and not endpoints:
        message = f"the endpoint {endpoint!r} is not configured; see 'coordctl limits'"
        raise invocation.failure(message, ExitCode.ERROR)
    if invocation.as_json or not endpoints:
        invocation.printer.rows(endpoints, (), none="no limits")
    else:
        invocation.printer.view(Listing(list(_rows(endpoints)), _FORECASTS))
