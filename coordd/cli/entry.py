"""What the commands `coordd` and `coordctl` start: the real ones, if what they need is installed.

Owns: the answer to an installation without the extra `daemon`, which is all that a client needs.
Must not know, hence not import before a command is run: anything outside the standard library.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Final

__all__ = ["coordctl", "coordd"]

# As for a wrong command line: nothing was done, and trying again is no use.
EXIT_INCOMPLETE: Final = 2


def coordd() -> None:
    """Run `coordd`, and exit."""
    _run("coordd", "coordd.cli.daemon")


def coordctl() -> None:
    """Run `coordctl`, and exit."""
    _run("coordctl", "coordd.cli.coordctl")


def _run(command: str, module: str) -> None:
    try:
        # By name: neither command may import the other's code.
        main: Callable[[], None] = import_module(module).main
        main()
    except ModuleNotFoundError as error:
        # One of ours that is missing is a bug, and is told as such.
        if error.name is None or error.name.partition(".")[0] == "coordd":
            raise
        print(f"{command} needs the daemon's dependencies: pip install 'coordd[daemon]'", file=sys.stderr)
        sys.exit(EXIT_INCOMPLETE)
