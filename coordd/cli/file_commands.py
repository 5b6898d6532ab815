"""coordctl's commands on a data file itself, of which no daemon is asked."""

import time
from pathlib import Path

import click

from coordd.cli.failure import ExitCode
from coordd.cli.invocation import Command, Invocation, pass_invocation

__all__ = ["doctor"]

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
