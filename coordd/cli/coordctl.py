"""`coordctl`: look into a running daemon and step in. Uses the public RPCs only, but for what is about files.

Owns the list of commands and their help; what they do is in the modules beside it.
"""

import os
import sys
from io import TextIOWrapper

# gRPC's C core would write its own lines about a lost connection to stderr, beside ours; read at import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click
from click.shell_completion import get_completion_class

from coordd.cli.escalation_commands import escalations, resolve
from coordd.cli.file_commands import backup, doctor
from coordd.cli.forecast_commands import forecasts
from coordd.cli.health_command import health
from coordd.cli.invocation import Command, RootGroup
from coordd.cli.limit_commands import capacity, limits, pools, reservations
from coordd.cli.lock_commands import lock, locks, release, show, stats
from coordd.cli.operator_commands import drain, force_release, status, watch
from coordd.cli.session_commands import sessions

__all__ = ["coordctl", "main"]

_EPILOG = """\b
Durations: 250ms, 30s, 5m, 1h30m, 7d. Instants are UTC, on the daemon's clock.
--address, --namespace, --timeout and --json may stand before or after the command.

\b
Exit codes:
  0    done
  1    refused: it works, but not now (held, recently engaged, ...)
  2    the command line is wrong
  3    the daemon is not reachable, draining or stopping, or gave no answer in time
  4    the daemon answered with an error (unknown name, lease lost, not the holder, ...)
  130  ended by Ctrl-C        141  the reader of the output has gone

\b
Shell completion, switched on for good:
  bash  echo 'eval "$(coordctl completion bash)"' >> ~/.bashrc
  zsh   echo 'eval "$(coordctl completion zsh)"' >> ~/.zshrc
  fish  coordctl completion fish > ~/.config/fish/completions/coordctl.fish
"""


@click.group(cls=RootGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="coordd", prog_name="coordctl", message="%(prog)s %(version)s")
def coordctl() -> None:
    """Look into a running coordd and step in."""


@click.command(cls=Command, short_help="Print the script that completes in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes coordctl's commands in SHELL.

    \b
    bash  eval "$(coordctl completion bash)"
    zsh   eval "$(coordctl completion zsh)"
    fish  coordctl completion fish | source
    """  # noqa: D301 - click's own sign for lines to leave alone, a control character
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click cannot complete in {shell}")
    click.echo(kind(coordctl, {}, "coordctl", "_COORDCTL_COMPLETE").source())


for _command in (
    status, health, locks, show, lock, release, reservations, pools, limits, capacity, forecasts, sessions,
    escalations, resolve, stats, watch, force_release, drain, backup, doctor, completion,
):  # fmt: skip
    coordctl.add_command(_command)


def main() -> None:
    """Run coordctl on the program's arguments, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that has no letter for a name gets its number
            stream.reconfigure(errors="backslashreplace")
    coordctl(prog_name="coordctl")


if __name__ == "__main__":
    main()
