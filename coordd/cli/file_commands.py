"""coordctl's commands on a data file itself: what is wrong with it, and a copy of it."""

import time
from pathlib import Path

import click

from coordd.cli.failure import ExitCode
from coordd.cli.invocation import Command, Invocation, pass_invocation

__all__ = ["backup", "doctor"]

# By a finding's gravity.
_EXIT_CODES = {"odd": ExitCode.REFUSED, "broken": ExitCode.ERROR}


@click.command(cls=Command, short_help="Check a data file, and explain what is wrong.")
@click.argument("file", type=click.Path(path_type=Path))
@pass_invocation
def doctor(invocation: Invocation, file: Path) -> None:
    """Check the data file FILE, with or without a daemon that serves it, and explain what is wrong.

    It only looks: nothing is written to the file or beside it. FILE is on this machine; no daemon is asked.

    \b
    Exit codes:
      0  sound; there may be notes
      1  odd: a daemon serves it, but somebody should look
      4  broken: a daemon refuses it, or could do wrong with it
    """  # noqa: D301 - click's own sign for lines to leave alone, a control character
    # Late: of what all other commands have no use.
    import msgspec  # noqa: PLC0415

    from coordd.cli.file_report import show  # noqa: PLC0415
    from coordd.doctor import examine  # noqa: PLC0415

    report = examine(file, time.time_ns())
    verdict = report.gravest.value if report.gravest else "sound"
    if invocation.as_json:
        click.echo(msgspec.json.encode({"verdict": verdict, **msgspec.to_builtins(report)}))
    else:
        show(report, invocation.printer)
    if verdict in _EXIT_CODES:
        raise click.exceptions.Exit(_EXIT_CODES[verdict])


@click.command(cls=Command, short_help="Copy all that the daemon keeps to a new file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="DATAFILE",
    help="Copy this data file on this machine, whether a daemon serves it or not, instead of asking one.",
)
@pass_invocation
def backup(invocation: Invocation, file: Path, data: Path | None) -> None:
    """Copy all that the daemon keeps, as of one instant, to the new file FILE, while it goes on.

    FILE is on this machine, of mode 0600, and there only once the copy is whole, sound and on disk; what is
    there already is left alone. A daemon starts on it as on its own: docs/operations.md, Restore.
    --timeout does not end it.
    """
    # Late: of what all other commands have no use.
    import sqlite3  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    from coordd.cli.backup import summary, take  # noqa: PLC0415
    from coordd.store.looking import ChangedMeanwhile  # noqa: PLC0415
    from coordd.store.protocol import StoreError  # noqa: PLC0415

    try:
        taken = take(invocation, file, data)
    except ChangedMeanwhile:
        line = "a daemon has begun to serve the file meanwhile; ask again"
        raise invocation.failure(line, ExitCode.UNAVAILABLE) from None
    except (OSError, sqlite3.Error, StoreError) as error:
        raise invocation.failure(str(error), ExitCode.ERROR) from error
    if invocation.as_json:
        click.echo(msgspec.json.encode(taken))
    else:
        click.echo(summary(taken))
