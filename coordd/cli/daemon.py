"""`coordd`: starts the daemon, or checks its configuration.

Owns: the exit codes, and that whoever starts the daemon gets a line to act upon and no traceback.
Must not know: how the daemon does its work.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

import click

from coordd.cli.settings_text import settings_lines
from coordd.config import ConfigError, Settings, load

__all__ = ["main"]

# As click's own for a wrong command line. The codes from 3 up are the server's.
EXIT_CONFIG: Final = 2

_SERVE_EPILOG: Final = """\b
Exit codes:
  0  stopped by a signal
  2  wrong configuration, or a wrong command line
  3  the data file can't be used: in use, corrupt, of a newer version, not ours, or out of reach
  4  a commit failed, for instance on a full disk; nothing unsaved was acknowledged
  5  the address can't be listened on
"""
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="coordd", message="%(prog)s %(version)s")
def main() -> None:
    """Decide, for a fleet of workers, who may act on what, how many at once, and when."""


@main.command(epilog=_SERVE_EPILOG)
@click.option("--config", type=_FILE, metavar="FILE", help="coordd.toml. Without it all defaults hold.")
def serve(config: Path | None) -> None:
    """Start the daemon in the foreground.

    Settings come from FILE; COORDD_ADDRESS, COORDD_DATA_PATH and COORDD_LOG_LEVEL go before it.
    """
    settings = _load(config)
    # Late, so that a wrong file is told at once and not after gRPC has been loaded.
    from coordd.server import run  # noqa: PLC0415

    sys.exit(run(settings))


@main.command()
@click.argument("file", type=_FILE)
def check_config(file: Path) -> None:
    """Check FILE (and the environment over it) and print every setting that then holds.

    Exit code 2 and one problem a line on stderr if it is refused.
    """
    for line in settings_lines(_load(file)):
        print(line)


def _load(file: Path | None) -> Settings:
    try:
        return load(file)
    except ConfigError as error:
        _fail(error.problems, EXIT_CONFIG)


def _fail(lines: Iterable[str], code: int) -> NoReturn:
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(code)
