"""`python -m simulation`: runs seeds, and says what they found.

Rules: what is violated is told with the one command that replays it. The last line is JSON, for programs; the
exit code is 1 if anything was violated.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from simulation.seeds import Report, fresh, given


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="run one seed, and print its history if it fails")
    what.add_argument("--seeds", type=_range, metavar="A..B", help="run these, B included")
    what.add_argument("--seconds", type=float, help="run fresh seeds for so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: 1")
    parser.add_argument("--history", help="write the history of --seed to this file")
    options = parser.parse_args(arguments)
    if options.seconds is not None:
        report = fresh(options.seconds, options.jobs)
    else:
        seeds = range(options.seed, options.seed + 1) if options.seed is not None else options.seeds
        report = given(seeds, options.jobs, history=options.history)
    return _end(report)


def _range(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def _end(report: Report) -> int:
    sys.stdout.write(json.dumps(report.summary()) + "\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
