"""coordctl's commands on what is scarce: reservations, pools, limits and what is left of an endpoint."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress

import click
from rich.text import Text

from coordd.cli.duration import duration_of, parse_duration
from coordd.cli.failure import ExitCode, Failure
from coordd.cli.invocation import Command, Daemon, Group, Invocation, pages, pass_invocation
from coordd.cli.number import WholeNumber
from coordd.cli.printer import Column, Listing, cell
from coordd.cli.words import counted, instant, length, word
from coordd.v1 import admin_pb2, rate_limit_pb2, reservation_pb2

__all__ = [
    "capacity",
    "complete_endpoint",
    "gate_text",
    "learned_text",
    "limits",
    "override_count",
    "pools",
    "reservations",
    "windows_text",
]

_COMPLETION_TIMEOUT_NS = 10**9  # nobody waits longer for a Tab
_LIMIT_MAX = 10**9  # of a pool's units and a window's calls


def windows_text(windows: Iterable[rate_limit_pb2.WindowCapacity]) -> Text:
    """Every window's used and limit in one cell, the nearly full ones in colour: `15m 12/180  1h 40/720`."""
    text = Text()
    for window in windows:
        share = window.used / window.limit if window.limit else 1
        style = "red" if share > 0.95 else "yellow" if share >= 0.8 else ""  # GetSystemStatus's own bounds
        text.append("  " if text else "").append(
            f"{length(window.window)} {window.used}/{window.limit}", style
        )
    return text


_GATE_STYLES = {
    rate_limit_pb2.GATE_STATE_CLOSED: "red",
    rate_limit_pb2.GATE_STATE_PROBING: "yellow",
}


def gate_text(gate: rate_limit_pb2.Gate) -> Text:
    """A gate in one cell: `open`, `closed 12s`, `probing`."""
    state = word(rate_limit_pb2.GateState, gate.state).lower() if gate.state else "-"
    if gate.state == rate_limit_pb2.GATE_STATE_CLOSED:
        state += f" {length(gate.opens_in)}"
    return Text(state, _GATE_STYLES.get(gate.state, ""))


def learned_text(learned: Iterable[rate_limit_pb2.LearnedLimit]) -> Text:
    """What upstream teaches in one cell: `15m 90 of 180`, and what it only suggests: `1h 900 (set 720)`."""
    text = Text()
    for limit in learned:
        said = f"{length(limit.window)} {limit.limit}"
        said += f" of {limit.configured}" if limit.in_force else f" (set {limit.configured})"
        text.append("  " if text else "").append(said, "yellow" if limit.in_force else "")
    return text or Text("-")


class WindowType(click.ParamType[admin_pb2.WindowLimit]):
    """`15m=180`: a window and what it allows."""

    name = "window"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> admin_pb2.WindowLimit:
        """The message for it."""
        if isinstance(value, admin_pb2.WindowLimit):
            return value
        match = re.fullmatch(r"(.+)=(\d{1,10})", str(value), re.ASCII)
        if not match or not 1 <= int(match[2]) <= _LIMIT_MAX:
            self.fail(
                f"{value!r} is not WINDOW=LIMIT with a limit of 1..1e9; write it like 15m=180", param, ctx
            )
        try:
            return admin_pb2.WindowLimit(window=duration_of(parse_duration(match[1])), limit=int(match[2]))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_WINDOW_OPTION_HELP = "A window's new limit, as 15m=180; may be given several times."

_RESERVATIONS: tuple[Column[reservation_pb2.Reservation], ...] = (
    Column("ID", lambda reservation: reservation.reservation_id, right=True),
    Column("TYPE", lambda reservation: reservation.type),
    Column("RESOURCE", lambda reservation: reservation.resource_id or "-"),
    Column("POOL", lambda reservation: reservation.pool or "-"),
    Column("UNITS", lambda reservation: reservation.units, right=True),
    Column("WORKER", lambda reservation: reservation.worker),
    Column("GRANTED", lambda reservation: instant(reservation.granted_at)),
    Column("EXPIRES IN", lambda reservation: length(reservation.expires_in), right=True),
)


@click.command(cls=Command)
@click.option("--worker", default="", help="Only this worker's.")
@click.option("--type", "type_", default="", help="Only of this type.")
@click.option("--limit", type=WholeNumber(1), help="At most so many.  [default: all]")
@pass_invocation
def reservations(invocation: Invocation, worker: str, type_: str, limit: int | None) -> None:
    """List the live reservations, oldest id first."""

    def fetch(page_size: int, page_token: str) -> tuple[Iterable[reservation_pb2.Reservation], str]:
        request = reservation_pb2.ListReservationsRequest(
            page_size=page_size, page_token=page_token, worker=worker, type=type_
        )
        response = invocation.daemon.ask(invocation.daemon.reservation.ListReservations, request)
        return response.reservations, response.next_page_token

    invocation.printer.rows(pages(fetch, limit), _RESERVATIONS, none="no reservations")


def _set_by(pool: admin_pb2.Pool) -> str:
    if pool.is_overridden:
        return "operator"
    return "its workers" if pool.capacity_min else "config"


_POOLS: tuple[Column[admin_pb2.Pool], ...] = (
    Column("POOL", lambda pool: pool.name),
    Column("CAPACITY", lambda pool: pool.capacity, right=True),
    Column("BOUNDS", lambda pool: f"{pool.capacity_min}..{pool.capacity_max}" if pool.capacity_min else "-"),
    Column("USED", lambda pool: pool.used, right=True),
    Column("FREE", lambda pool: pool.free, right=True),
    Column("QUEUED", lambda pool: pool.queued, right=True),
    Column("WINDOWS", lambda pool: windows_text(pool.windows) if pool.windows else "held"),
    Column("ALLOCATION", lambda pool: pool.allocation),
    Column("OVERFLOW", lambda pool: pool.overflow),
    Column("SET BY", _set_by),
)


def _pools(daemon: Daemon) -> Iterator[admin_pb2.Pool]:
    def fetch(page_size: int, page_token: str) -> tuple[Iterable[admin_pb2.Pool], str]:
        request = admin_pb2.ListPoolsRequest(page_size=page_size, page_token=page_token)
        response = daemon.ask(daemon.admin.ListPools, request)
        return response.pools, response.next_page_token

    return pages(fetch)


def _limits(daemon: Daemon) -> Iterator[admin_pb2.Limit]:
    def fetch(page_size: int, page_token: str) -> tuple[Iterable[admin_pb2.Limit], str]:
        request = admin_pb2.ListLimitsRequest(page_size=page_size, page_token=page_token)
        response = daemon.ask(daemon.admin.ListLimits, request)
        return response.limits, response.next_page_token

    return pages(fetch)


def override_count(daemon: Daemon) -> int:
    """How many pools and limits an operator has set otherwise than the file. Raises: Failure."""
    pools_changed = sum(pool.is_overridden for pool in _pools(daemon))
    return pools_changed + sum(limit.is_overridden for limit in _limits(daemon))


def _complete(ctx: click.Context, names: Callable[[Daemon], Iterable[str]], incomplete: str) -> list[str]:
    """The daemon's names that begin so; none if it does not answer while one waits for a Tab."""
    invocation = ctx.ensure_object(Invocation)
    with suppress(Failure), closing(invocation.connect("completion", _COMPLETION_TIMEOUT_NS)) as daemon:
        return [name for name in names(daemon) if name.startswith(incomplete)]
    return []


def _complete_pool(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return _complete(ctx, lambda daemon: (pool.name for pool in _pools(daemon)), incomplete)


def complete_endpoint(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The names of endpoints that begin so, for a shell."""
    return _complete(ctx, lambda daemon: (limit.endpoint for limit in _limits(daemon)), incomplete)


@click.group(cls=Group, invoke_without_command=True, short_help="List the pools, or change one.")
@click.pass_context
def pools(ctx: click.Context) -> None:
    """List the pools by name, or change one with `pools set`."""
    if ctx.invoked_subcommand is None:
        invocation = ctx.ensure_object(Invocation)
        invocation.printer.rows(_pools(invocation.daemon), _POOLS, none="no pools")


_OPTIONS = {"capacity": "--capacity", "windows": "--window"}


@contextmanager
def _advice_on_the_other_option(given: str) -> Iterator[None]:
    """Say which option would do where the pool is of the other sort than the operator thought."""
    try:
        yield
    except Failure as failure:
        other = failure.metadata.get("field", "")
        if failure.reason != "INVALID_COUNT" or other == given or other not in _OPTIONS:
            raise
        raise Failure(f"{failure.message}; use {_OPTIONS[other]}", ExitCode.ERROR) from failure


@pools.command("set", short_help="Change a pool's capacity or windows.")
@click.argument("name", shell_complete=_complete_pool)
@click.option(
    "--capacity", type=WholeNumber(1, _LIMIT_MAX), help="New capacity, of a pool whose units are held."
)
@click.option(
    "--window", "windows", type=WindowType(), metavar="WINDOW=LIMIT", multiple=True, help=_WINDOW_OPTION_HELP
)
@click.option("--unpin", is_flag=True, help="Let a pool that has bounds adapt again.")
@pass_invocation
def set_pool(
    invocation: Invocation,
    name: str,
    capacity: int | None,
    windows: tuple[admin_pb2.WindowLimit, ...],
    *,
    unpin: bool,
) -> None:
    """Change a pool's capacity or windows.

    It is kept over restarts until the configuration file says something new for the same pool. To get back,
    set the file's value again; a pool that adapts is pinned by --capacity, and adapts again with --unpin.
    """
    if [capacity is not None, bool(windows), unpin].count(True) != 1:
        raise click.UsageError(
            "give one of --capacity for a pool that is held, --window for one that refills, or --unpin"
        )
    request = admin_pb2.UpdatePoolRequest(name=name, capacity=capacity or 0, windows=windows, unpin=unpin)
    with _advice_on_the_other_option("capacity" if capacity else "windows"):
        answer = invocation.daemon.change(invocation.daemon.admin.UpdatePool, request)
    invocation.printer.message(answer.pool, lambda: Listing([answer.pool], _POOLS))


_LIMITS: tuple[Column[admin_pb2.Limit], ...] = (
    Column("ENDPOINT", lambda limit: limit.endpoint),
    Column("ALLOCATION", lambda limit: limit.allocation),
    Column("WINDOWS", lambda limit: windows_text(limit.windows)),
    Column("GATE", lambda limit: gate_text(limit.gate)),
    Column("LEARNED", lambda limit: learned_text(limit.learned)),
    Column("USE WITHIN", lambda limit: length(limit.use_within), right=True),
    Column("CLAIM WITHIN", lambda limit: length(limit.claim_window), right=True),
    Column("QUEUED", lambda limit: limit.queued, right=True),
    Column("BOOKINGS", lambda limit: limit.bookings, right=True),
    Column("SET BY", lambda limit: "operator" if limit.is_overridden else "config"),
)


@click.group(cls=Group, invoke_without_command=True, short_help="List the endpoints' limits, or change one.")
@click.pass_context
def limits(ctx: click.Context) -> None:
    """List the endpoints' limits by name, or change one with `limits set`."""
    if ctx.invoked_subcommand is None:
        invocation = ctx.ensure_object(Invocation)
        invocation.printer.rows(_limits(invocation.daemon), _LIMITS, none="no limits")


@limits.command("set", short_help="Change an endpoint's windows.")
@click.argument("endpoint", shell_complete=complete_endpoint)
@click.option(
    "--window", "windows", type=WindowType(), metavar="WINDOW=LIMIT", multiple=True, required=True,
    help=_WINDOW_OPTION_HELP,
)  # fmt: skip
@pass_invocation
def set_limit(invocation: Invocation, endpoint: str, windows: tuple[admin_pb2.WindowLimit, ...]) -> None:
    """Change an endpoint's windows.

    It is kept over restarts until the configuration file says something new for the same window. To get back,
    set the file's value again.
    """
    request = admin_pb2.UpdateLimitRequest(endpoint=endpoint, windows=windows)
    answer = invocation.daemon.change(invocation.daemon.admin.UpdateLimit, request)
    invocation.printer.message(answer.limit, lambda: Listing([answer.limit], _LIMITS))


_Share = tuple[rate_limit_pb2.WorkerAllocation, rate_limit_pb2.WindowAllocation]

# A row for each worker and window: a worker's numbers of one window are read together.
_SHARES: tuple[Column[_Share], ...] = (
    Column("WORKER", lambda share: share[0].worker),
    Column("WINDOW", lambda share: length(share[1].window)),
    Column("USED", lambda share: share[1].used, right=True),
    Column("ALLOCATED", lambda share: share[1].allocated, right=True),
    Column("REMAINING", lambda share: share[1].remaining, right=True),
    Column("OWN", lambda share: share[1].own, right=True),
    Column("LENT", lambda share: share[1].lent, right=True),
    Column("BORROWED", lambda share: share[1].borrowed, right=True),
    Column("QUEUED", lambda share: share[0].queued_permits, right=True),
    Column("WEIGHT", lambda share: f"{share[0].weight:g}", right=True),
    Column("EFFICIENCY", lambda share: f"{share[0].efficiency:.0%}", right=True),
    Column("WANTS PER HOUR", lambda share: f"{share[0].demand_per_s * 3600:,.1f}", right=True),
)


@limits.command("shares", short_help="Say who shares an endpoint, and who has how much.")
@click.argument("endpoint", shell_complete=complete_endpoint)
@click.option("--worker", default="", help="Only this worker's part, of any endpoint.")
@click.option("--limit", type=WholeNumber(1), help="At most so many workers.  [default: all]")
@pass_invocation
def list_shares(invocation: Invocation, endpoint: str, worker: str, limit: int | None) -> None:
    """Say who shares ENDPOINT now, and each one's part of each window.

    OWN is a worker's part by weight, ALLOCATED what it gets if it asks for all it can. What it has LENT it is
    not expected to want; what it has BORROWED it has used beyond its own.
    """

    def fetch(page_size: int, page_token: str) -> tuple[Iterable[rate_limit_pb2.WorkerAllocation], str]:
        request = rate_limit_pb2.ListWorkerAllocationsRequest(
            endpoint=endpoint, page_size=page_size, page_token=page_token
        )
        response = invocation.daemon.ask(invocation.daemon.rate_limit.ListWorkerAllocations, request)
        return response.workers, response.next_page_token

    found = [_share_of(invocation, endpoint, worker)] if worker else list(pages(fetch, limit))
    none = f'nobody shares {endpoint} now, or it is not shared out (allocation = "fair")'
    if invocation.as_json or not found:
        invocation.printer.rows(found, (), none=none)
    else:
        shares = [(share, window) for share in found for window in share.windows]
        invocation.printer.view(Listing(shares, _SHARES))


def _share_of(invocation: Invocation, endpoint: str, worker: str) -> rate_limit_pb2.WorkerAllocation:
    request = rate_limit_pb2.GetWorkerAllocationRequest(endpoint=endpoint, worker=worker)
    answer = invocation.daemon.ask(invocation.daemon.rate_limit.GetWorkerAllocation, request)
    return rate_limit_pb2.WorkerAllocation(
        worker=worker,
        windows=answer.windows,
        weight=answer.weight,
        efficiency=answer.efficiency,
        demand_per_s=answer.demand_per_s,
    )


_WINDOWS: tuple[Column[rate_limit_pb2.WindowCapacity], ...] = (
    Column("WINDOW", lambda window: length(window.window)),
    Column("LIMIT", lambda window: window.limit, right=True),
    Column("USED", lambda window: window.used, right=True),
    Column("REMAINING", lambda window: window.remaining, right=True),
    Column("EMPTY IN", lambda window: length(window.resets_in), right=True),
    Column("EMPTY AT", lambda window: instant(window.resets_at)),
)


def _because(answer: rate_limit_pb2.GetRemainingCapacityResponse) -> str:
    match answer.gate.state:
        case rate_limit_pb2.GATE_STATE_CLOSED:
            return f"; upstream has refused one, and the gate opens in {length(answer.gate.opens_in)}"
        case rate_limit_pb2.GATE_STATE_PROBING:
            return "; upstream has refused one, and the next one probes"
    return ""


@click.command(cls=Command)
@click.argument("endpoint", shell_complete=complete_endpoint)
@pass_invocation
def capacity(invocation: Invocation, endpoint: str) -> None:
    """Say what is left of each window of ENDPOINT."""
    request = rate_limit_pb2.GetRemainingCapacityRequest(endpoint=endpoint)
    answer = invocation.daemon.ask(invocation.daemon.rate_limit.GetRemainingCapacity, request)
    if invocation.as_json:
        invocation.printer.message(answer, Text)
    else:
        headline = cell(
            f"{endpoint}: {counted(answer.remaining, 'call')} could be made now{_because(answer)}"
        )
        invocation.printer.view(headline, Listing(answer.windows, _WINDOWS))
