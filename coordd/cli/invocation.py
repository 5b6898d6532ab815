"""What every command of coordctl shares: the options, the way to fail, and the channel to the daemon.

Rules: a shared option may stand before or after the command, and the later one wins; whatever a command
raises leaves as one line and an exit code. Knows the public RPCs only, never the daemon's code.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc

from coordd.cli.duration import DURATION
from coordd.cli.failure import ExitCode, Failure, failure_of_call
from coordd.cli.printer import Printer
from coordd.cli.reaching import reaching_options, reading_files, target_of
from coordd.v1 import admin_pb2_grpc, engagement_pb2_grpc, rate_limit_pb2_grpc, reservation_pb2_grpc
from coordd_client.target import Target

__all__ = ["Command", "Daemon", "Group", "Invocation", "RootGroup", "pages", "pass_invocation"]

DEFAULT_ADDRESS = "127.0.0.1:7651"
DEFAULT_TIMEOUT_NS = 10 * 10**9
PAGE_SIZE_MAX = 1_000  # of the List RPCs
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")  # as the daemon's own setting
_PORT_MAX = 65_535
# A dead network is noticed by a ping. Servers tolerate one per 5 min on a silent stream and hang up on more.
_KEEPALIVE_MS = 330_000

_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A daemon that has come back should be noticed; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # The daemon is in the fleet's own network; a proxy for the outside would be asked for 127.0.0.1 too.
    ("grpc.enable_http_proxy", 0),
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Item = TypeVar("Item", bound=Message)


class Daemon:
    """The daemon's services over one channel.

    Args: command: the path of the command that calls, for its errors.  target: where it is, and who asks.
    timeout_ns: how long one call may take.  item: what the command is about, for its errors too.
    Raises: OSError if a file for TLS can't be read.
    """

    def __init__(self, *, command: str, target: Target, timeout_ns: int, item: str = "ITEM") -> None:
        self._command = command
        self._item = item
        self._address = target.address
        self._timeout_ns = timeout_ns
        self._metadata = target.metadata()
        self._channel: grpc.Channel = target.open(
            grpc.insecure_channel, grpc.secure_channel, _CHANNEL_OPTIONS
        )
        self.engagement = engagement_pb2_grpc.EngagementServiceStub(self._channel)
        self.reservation = reservation_pb2_grpc.ReservationServiceStub(self._channel)
        self.rate_limit = rate_limit_pb2_grpc.RateLimitServiceStub(self._channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self._channel)
        self.health: Any = health_pb2_grpc.HealthStub(self._channel)

    def close(self) -> None:
        """Close the channel; open streams are cancelled."""
        self._channel.close()

    def ask(self, rpc: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """Call an RPC that changes nothing. Raises: Failure."""
        with self._errors(self._timeout_ns, changes=False):
            return rpc(request, timeout=self._timeout_ns / 1e9, metadata=self._metadata)

    def change(self, rpc: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """Call an RPC that changes something: a lost answer may mean that it did. Raises: Failure."""
        with self._errors(self._timeout_ns, changes=True):
            return rpc(request, timeout=self._timeout_ns / 1e9, metadata=self._metadata)

    def stream(
        self,
        rpc: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        *,
        wait_ns: int | None,
    ) -> Iterator[Response]:
        """Yield what an RPC streams.

        Args: wait_ns: how long the daemon itself was told to wait; None for a stream without an end.
        Raises: Failure.
        """
        timeout_ns = None if wait_ns is None else wait_ns + self._timeout_ns
        with self._errors(timeout_ns or 0, changes=False):
            timeout_s = None if timeout_ns is None else timeout_ns / 1e9
            yield from rpc(request, timeout=timeout_s, metadata=self._metadata)

    @contextmanager
    def _errors(self, timeout_ns: int, *, changes: bool) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise failure_of_call(
                error, command=self._command, address=self._address, timeout_ns=timeout_ns, changes=changes,
                item=self._item,
            ) from error  # fmt: skip


@dataclass
class Invocation:
    """One run of coordctl: what its shared options say, and what they lead to."""

    address: str = DEFAULT_ADDRESS
    namespace: str = ""
    token_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout: int = DEFAULT_TIMEOUT_NS
    as_json: bool = False

    @cached_property
    def daemon(self) -> Daemon:
        """The channel, opened when first needed and closed with the command."""
        ctx = click.get_current_context()
        daemon = self.connect(ctx.command_path, self.timeout, item=ctx.params.get("item", "ITEM"))
        ctx.call_on_close(daemon.close)
        return daemon

    def connect(self, command: str, timeout_ns: int, *, item: str = "ITEM") -> Daemon:
        """Return a channel to close. Args: as Daemon's. Raises: Failure."""
        with reading_files(command):
            return Daemon(command=command, target=target_of(self), timeout_ns=timeout_ns, item=item)

    @cached_property
    def printer(self) -> Printer:
        """Where results go."""
        return Printer(as_json=self.as_json)

    def note(self, line: str) -> None:
        """Tell the operator something that is not the result; never goes to stdout."""
        click.echo(line, err=True)

    def failure(self, line: str, exit_code: ExitCode) -> Failure:
        """What a command raises to end without success."""
        return Failure(f"{click.get_current_context().command_path}: {line}", exit_code)


pass_invocation = click.make_pass_decorator(Invocation)


def pages(
    fetch: Callable[[int, str], tuple[Iterable[Item], str]], limit: int | None = None
) -> Iterator[Item]:
    """The elements of a paged list; asks for no page that is not needed.

    Args: fetch: from a page's size and token, "" at first, to its elements and the next page's token, "" at
    the end.  limit: how many elements at most; None for all.
    """

    def walk() -> Iterator[Item]:
        token = ""
        while True:
            items, token = fetch(min(limit or PAGE_SIZE_MAX, PAGE_SIZE_MAX), token)
            yield from items
            if not token:
                return

    return islice(walk(), limit)


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    invocation = ctx.ensure_object(Invocation)
    if value is not None and param.name:
        setattr(invocation, param.name, value)


def _check_address(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Refuse other forms: gRPC would take 443 for a missing port, and much else for a target."""
    address = DEFAULT_ADDRESS if value is None else value
    match = _ADDRESS.fullmatch(address)
    if not address.startswith("unix:/") and not (match and 1 <= int(match[1]) <= _PORT_MAX):
        raise click.BadParameter(
            f"{value!r} is not HOST:PORT with a port of 1..{_PORT_MAX}, nor unix:/PATH; "
            f"write it like {DEFAULT_ADDRESS}",
            ctx,
            param,
        )
    _remember(ctx, param, value)


def _check_namespace(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Refuse what a header can't carry; which namespaces there are is the daemon's to say."""
    if value and not (value.isascii() and value.isprintable()):
        raise click.BadParameter(f"{value!r} is not printable ASCII", ctx, param)
    _remember(ctx, param, value)


def _check_timeout(ctx: click.Context, param: click.Parameter, value: int | None) -> None:
    if value == 0:
        raise click.BadParameter("must be longer than 0", ctx, param)
    _remember(ctx, param, value)


def _shared_options(*, is_root: bool = False) -> list[click.Parameter]:
    """The options that stand before or after a command.

    Only the root reads the environment: after the command it would override what was written before it.
    """
    return [
        click.Option(
            ["--address"], metavar="HOST:PORT", envvar="COORDD_ADDRESS" if is_root else None,
            callback=_check_address, expose_value=False,
            help=f"Where the daemon listens, or unix:/PATH.  "
            f"[env: COORDD_ADDRESS; default: {DEFAULT_ADDRESS}]",
        ),
        click.Option(
            ["--namespace"], metavar="NAME", envvar="COORDD_NAMESPACE" if is_root else None,
            callback=_check_namespace, expose_value=False,
            help="Which fleet's, where several share a daemon.  [env: COORDD_NAMESPACE; default: default]",
        ),
        *reaching_options(_remember, is_root=is_root),
        click.Option(
            ["--timeout"], type=DURATION, callback=_check_timeout, expose_value=False,
            help="How long one call may take; added to the time a wait may last.  [default: 10s]",
        ),
        click.Option(
            ["--json", "as_json"], is_flag=True, flag_value=True, default=None, callback=_remember,
            expose_value=False, help="Print JSON: one value, or one a line where it streams.",
        ),
    ]  # fmt: skip


@contextmanager
def _one_line_errors(command_path: str) -> Iterator[None]:
    """Show a usage error as one line instead of click's four."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else command_path
        line = " ".join(error.format_message().split()).rstrip(".")
        line = line[:1].lower() + line[1:]
        raise Failure(f"{path}: {line}; see '{path} --help'", ExitCode.USAGE) from error
    except UnicodeEncodeError as error:  # protobuf's answer to bytes that are no UTF-8 on the command line
        raise Failure(f"{command_path}: an argument is not valid UTF-8", ExitCode.USAGE) from error


class Command(click.Command):
    """A command that takes the shared options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options())


class Group(click.Group):
    """A command with subcommands that takes the shared options too."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options())


class RootGroup(click.Group):
    """coordctl itself: every way a command can end without success passes here."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options(is_root=True))

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Parse what stands before the command. Raises: Failure."""
        with _one_line_errors(info_name or "coordctl"):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run the command. Raises: Failure, and Exit on Ctrl-C or when the reader has gone."""
        try:
            with _one_line_errors(ctx.command_path):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(ExitCode.PIPE_CLOSED) from None
