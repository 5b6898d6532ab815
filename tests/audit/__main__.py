"""`python -m audit FILE...`: judges saved histories; exit code 1 if anything was broken."""

import sys
from collections.abc import Sequence
from pathlib import Path

from audit.history import History
from audit.judge import audit, undecided


def main(paths: Sequence[str]) -> int:
    """Judge each file, and say what was broken in it."""
    code = 0
    for path in paths:
        history = History.load(Path(path))
        for violation in audit(history):
            sys.stdout.write(f"{path}: {violation}\n")
            code = 1
        sys.stdout.write(
            f"{path}: {len(history.operations)} operations; items undecided: {undecided(history)}\n"
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
