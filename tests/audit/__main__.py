"""`python -m audit FILE...`: judges saved histories; exit code 1 if anything was broken."""

import sys
from collections.abc import Sequence
from pathlib import Path

from audit.history import History
from audit.judge import audit


def main(paths: Sequence[str]) -> int:
    """Judge each file, and say what was broken in it."""
    found = [(path, violation) for path in paths for violation in audit(History.load(Path(path)))]
    for path, violation in found:
        sys.stdout.write(f"{path}: {violation}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
