"""`coordd`: starts the daemon, checks its configuration, or tries it on a trace.

Owns: the exit codes, and that whoever starts the daemon gets a line to act upon and no traceback.
Must not know: how the daemon does its work.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Final

# gRPC's C core would write lines of its own between ours, of whatever a client does wrong; read at import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from coordd.cli.loading import FILE, settings_or_exit
from coordd.cli.settings_text import settings_lines
from coordd.cli.simulation import simulate
from coordd.cli.starting import quick_imports
from coordd.cli.token import token
from coordd.config import load

__all__ = ["main"]

_SERVE_EPILOG: Final = """\b
Exit codes:
  0  stopped by a signal
  2  wrong configuration, a file it names that can't be used, or a wrong command line
  3  the data file can't be used: in use, corrupt, of a newer version, not ours, or out of reach
  4  a commit failed, for instance on a full disk; nothing unsaved was acknowledged
  5  the address can't be listened on
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="coordd", message="%(prog)s %(version)s")
def main() -> None:
    """Decide, for a fleet of workers, who may act on what, how many at once, and when."""


@main.command(epilog=_SERVE_EPILOG)
@click.option("--config", type=FILE, metavar="FILE", help="coordd.toml. Without it all defaults hold.")
def serve(config: Path | None) -> None:
    """Start the daemon in the foreground.

    Settings come from FILE; COORDD_ADDRESS, COORDD_DATA_PATH and COORDD_LOG_LEVEL go before it.
    SIGTERM stops the daemon well, SIGHUP has it read them again.
    """
    settings = settings_or_exit(config)
    # Late, so that a wrong file is told at once and not after gRPC has been loaded.
    with quick_imports():
        from coordd.server import run  # noqa: PLC0415

    sys.exit(run(settings, partial(load, config)))


@main.command()
@click.argument("file", type=FILE)
def check_config(file: Path) -> None:
    """Check FILE (and the environment over it) and print every setting that then holds.

    Exit code 2 and one problem a line on stderr if it is refused.
    """
    for line in settings_lines(settings_or_exit(file)):
        print(line)


main.add_command(simulate)
main.add_command(token)
