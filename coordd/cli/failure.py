"""How a command fails: one line on stderr, and an exit code that scripts can tell apart.

Rules: no traceback reaches a user; every line says what failed, why, and what to do where that is known.
"""

from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import IO, Any, cast

import click
import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coordd.cli.duration import format_duration
from coordd.cli.words import printable

__all__ = ["Away", "ExitCode", "Failure", "failure_of_call"]


class ExitCode(IntEnum):
    """What a script learns from the end of a command."""

    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    ERROR = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells count
    PIPE_CLOSED = 141  # 128 + SIGPIPE


class Failure(click.ClickException):
    """A command's end that is not success.

    Args: message: one line, without the program's name.  exit_code: see ExitCode.  reason, metadata: of the
    daemon's ErrorInfo, where it is the daemon that refuses.
    """

    def __init__(
        self,
        message: str,
        exit_code: ExitCode,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = metadata or {}
        self.exit_code = exit_code  # type: ignore[misc] # click reads it of the instance, and types it per class

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to stderr."""
        click.echo(printable(self.message), file=file, err=True)


class Away(Failure):
    """The daemon is not there, is stopping or is draining: the same call may succeed later.

    Args: message, reason: see Failure.  is_draining: whether it is there, but told by an operator to drain.
    """

    def __init__(self, message: str, *, reason: str = "", is_draining: bool = False) -> None:
        super().__init__(message, ExitCode.UNAVAILABLE, reason=reason)
        self.is_draining = is_draining


_START = "is it running? Start it with 'coordd serve --config FILE', or say where it is with --address"

# What an operator can do about an error, by ErrorInfo.reason; {item} is the command's, {id} the error's.
_REMEDIES = {
    "UNKNOWN_NAMESPACE": "--namespace or COORDD_NAMESPACE says which is meant; without, it is 'default'",
    "TOKEN_REQUIRED": "say who asks with --token-file, COORDD_TOKEN, or --cert and --key",
    "UNKNOWN_TOKEN": "see [identities] in the daemon's configuration; 'coordd token' makes one",
    "UNKNOWN_CERTIFICATE": "see [identities] in the daemon's configuration",
    "UNKNOWN_POOL": "see 'coordctl pools'",
    "UNKNOWN_ENDPOINT": "see 'coordctl limits'",
    "UNKNOWN_WINDOW": "see 'coordctl pools' and 'coordctl limits' for the windows there are",
    "NO_POOL": "see 'coordctl pools'",
    "UNKNOWN_KIND": "see 'coordctl stats' for the kinds there are",
    "UNKNOWN_ID": "see 'coordctl locks' and 'coordctl reservations' for the ids there are",
    "LEASE_LOST": "the lease had ended; see 'coordctl show {item}'",
    "NOT_HOLDER": (
        "see 'coordctl show {item}' for the holder; 'coordctl force-release {id} --reason TEXT' takes it away"
    ),
    "REQUEST_ENDED": "ask with a new --request-id",
    "REQUEST_ID_REUSED": "ask with a new --request-id",
    "DRAINING": "it grants again after 'coordctl drain --undo'",
    "STORE_UNREADABLE": "the daemon can't read its data file; see its log, and the disk",
    "STORE_FAILED": "the daemon could not write its data; see its log, then start it again",
    "CONTRADICTING_WINDOWS": "a longer window must allow at least as much as a shorter one; set both at once",
}

# The reason DRAINING is also a shutdown's, and then no operator can undo it.
_STOPPING = ("the daemon is stopping", "the daemon is shutting down", "the daemon has stopped")


def _details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo, int | None]:
    """The error's ErrorInfo (empty without one) and the delay of its RetryInfo in ns."""
    found, retry_ns = error_details_pb2.ErrorInfo(), None
    with suppress(ValueError, DecodeError):  # details that contradict the code or are garbage: not coordd's
        status = rpc_status.from_call(cast("grpc.Call", error))  # every error of a call is one
        for detail in status.details if status else ():
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                found = info
            elif detail.Unpack(retry):
                retry_ns = retry.retry_delay.ToNanoseconds()
    return found, retry_ns


_NEVER_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed")


def _unreachable(text: str, caveat: str) -> str:
    """Why there is no connection, without the chain of addresses that gRPC tried: `Connection refused`."""
    if text.startswith(_NEVER_CONNECTED):
        return text.rsplit(": ", 1)[-1]
    return text + caveat


def _advice(reason: str, names: Mapping[str, str], retry_ns: int | None) -> str:
    """What to do about an error, with the semicolon before it; "" where nobody knows."""
    if reason in _REMEDIES:
        return "; " + _REMEDIES[reason].format_map(names)
    return "" if retry_ns is None else f"; ask again in {format_duration(retry_ns)}"


def _is_stopping(text: str) -> bool:
    return text.removeprefix("the daemon is draining: ").startswith(_STOPPING)


def failure_of_call(
    error: grpc.RpcError, *, command: str, address: str, timeout_ns: int, changes: bool, item: str = "ITEM"
) -> Failure:
    """Turn a failed RPC into the line and the exit code.

    Args: command: its path, as `coordctl pools set`.  address, timeout_ns: as asked.  changes: whether the
    RPC changes anything, so that one without an answer may have taken effect.  item: what it is about.
    Returns: Away if the daemon is unavailable.
    """
    code, text = error.code(), (error.details() or "no details").removesuffix(".")
    info, retry_ns = _details(error)
    caveat = "; it may have taken effect all the same" if changes else ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        waited = format_duration(timeout_ns)
        line = f"no answer from {address} within {waited}{caveat}; give more with --timeout"
        return Failure(f"{command}: {line}", ExitCode.UNAVAILABLE)
    if code is grpc.StatusCode.UNAVAILABLE and not info.reason:
        line = f"cannot reach the daemon at {address}: {_unreachable(text, caveat)}; {_START}"
        return Away(f"{command}: {line}")
    is_draining = info.reason == "DRAINING" and not _is_stopping(text)
    line = f"{command}: {text} ({info.reason or code.name})"
    if info.reason != "DRAINING" or is_draining:
        line += _advice(info.reason, {"item": item, "id": info.metadata.get("id", "ID")}, retry_ns)
    if code is grpc.StatusCode.UNAVAILABLE:
        return Away(line, reason=info.reason, is_draining=is_draining)
    return Failure(line, ExitCode.ERROR, reason=info.reason, metadata=info.metadata)
