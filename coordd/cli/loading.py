"""What the daemon's commands have in common: settings, or an end with a line for each problem."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

import click

from coordd.config import ConfigError, Settings, load

__all__ = ["EXIT_CONFIG", "FILE", "fail", "settings_or_exit"]

# As click's own for a wrong command line. The codes from 3 up are the server's.
EXIT_CONFIG: Final = 2
FILE: Final = click.Path(path_type=Path, dir_okay=False)


def settings_or_exit(file: Path | None, *, changes: Iterable[str] = ()) -> Settings:
    """Read the settings; exit with all problems if they are refused."""
    try:
        return load(file, changes=changes)
    except ConfigError as error:
        fail(error.problems, EXIT_CONFIG)


def fail(lines: Iterable[str], code: int) -> NoReturn:
    """Write the lines to stderr and exit."""
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(code)
