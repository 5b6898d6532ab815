"""How coordctl gets to the daemon: TLS, certificates and the token, from options and the environment.

Rule: no option takes the token itself, for a command line is everybody's to read on the machine.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from coordd.cli.failure import ExitCode, Failure
from coordd_client.errors import InvalidRequest
from coordd_client.target import Target, Tls

__all__ = ["TOKEN_VARIABLE", "reaching_options", "reading_files", "target_of"]

TOKEN_VARIABLE = "COORDD_TOKEN"  # noqa: S105  -- its name
_FILE = click.Path(path_type=Path, dir_okay=False)


def reaching_options(remember: Callable[..., Any], *, is_root: bool) -> list[click.Parameter]:
    """The options; only the root reads the environment."""

    def file(name: str, variable: str, text: str) -> click.Option:
        help_ = f"{text}  [env: {variable}]"
        return click.Option(
            [f"--{name}"], type=_FILE, metavar="FILE", envvar=variable if is_root else None,
            callback=remember, expose_value=False, help=help_,
        )  # fmt: skip

    return [
        click.Option(
            ["--token-file"], type=_FILE, metavar="FILE", callback=remember, expose_value=False,
            help=f"Who asks: a file with a token. Without it the token in {TOKEN_VARIABLE}, if there is one.",
        ),
        click.Option(
            ["--tls"], is_flag=True, flag_value=True, default=None, callback=remember, expose_value=False,
            help="Talk TLS, and trust the CAs that the public trusts; --ca and --cert mean it, too.",
        ),
        file("ca", "COORDD_CA", "The CA of the daemon's certificate, in PEM."),
        file("cert", "COORDD_CERT", "A certificate to show, in PEM; with --key."),
        file("key", "COORDD_KEY", "Its private key, in PEM."),
    ]  # fmt: skip


def target_of(invocation: Any) -> Target:
    """Return the daemon that an invocation's options mean. Raises: InvalidRequest, OSError."""
    return Target(
        invocation.address,
        tls=_tls(invocation),
        token=_token(invocation.token_file),
        namespace=invocation.namespace or None,
    )


@contextmanager
def reading_files(command: str) -> Iterator[None]:
    """Make Failures of what is wrong with the options, and with the files that they name."""
    try:
        yield
    except InvalidRequest as error:
        raise Failure(f"{command}: {error.args[0]}{_ADVICE.get(error.reason, '')}", ExitCode.USAGE) from error
    except OSError as error:
        raise Failure(f"{command}: can't read {error.filename}: {error.strerror}", ExitCode.USAGE) from error


_ADVICE = {"TOKEN_IN_THE_CLEAR": " (with coordctl: --tls or --ca)", "INVALID_TLS": " (--cert and --key)"}


def _tls(invocation: Any) -> Tls | None:
    if not (invocation.tls or invocation.ca or invocation.cert or invocation.key):
        return None
    return Tls(ca=invocation.ca, certificate=invocation.cert, key=invocation.key)


def _token(file: Path | None) -> str | None:
    return os.environ.get(TOKEN_VARIABLE) or None if file is None else file.read_text("ascii", "replace")
