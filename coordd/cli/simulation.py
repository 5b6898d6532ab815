"""`coordd simulate`: what its options mean.

Must not know, hence not import before it is run: anything that `coordd serve` would have to load, too.
"""

import math
from typing import Any, Final

import click

from coordd.cli.loading import FILE, fail
from coordd.cli.number import WholeNumber
from coordd.config import parse_length
from coordd.core.lengths import spell_length
from coordd.core.limits import HOUR

__all__ = ["simulate"]

EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
WORKERS_MAX: Final = 10_000
_FACTOR_MAX: Final = 1_000_000
_AT_ONCE_MAX: Final = 1_000_000
_SERVICE_NS: Final = 500_000_000
# A wait and the work after it have to fit into the longest lease.
_LENGTH_NS_MAX: Final = 12 * HOUR

_EPILOG: Final = """\b
A trace is CSV with a header, or JSON lines, with
  time      RFC 3339, or seconds
  worker    who; * is every worker of the fleet, empty is each in turn
  what      lock:KIND:ITEM  permit:ENDPOINT[:N]  units:TYPE[:ID][:N]
            joined by + (together) or > (one after the other)
  priority  low, medium, high, critical
  count     permits, units: units, where `what` doesn't say
  hold      how long the work takes, as 500ms
  class     of a named worker, one of [worker_classes]
of which time and what are required. examples/support_tweets.csv is taken as it is.

\b
Exit codes:
  0    done
  2    wrong configuration, trace or command line
  130  interrupted; what was simulated until then is told
"""


class _LengthType(click.ParamType[int]):
    """An option's value that is a length of time, as in the configuration; the command gets ns."""

    name = "length"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds; a default that is already a number passes."""
        if isinstance(value, int):
            return value
        try:
            length_ns = parse_length(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if length_ns > _LENGTH_NS_MAX:
            self.fail(f"{value} is longer than {spell_length(_LENGTH_NS_MAX)}", param, ctx)
        return length_ns


class _ScaleType(click.ParamType[tuple[str, float]]):
    """`post_tweet=2.0`: an endpoint or a pool, and a factor."""

    name = "scale"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The name and the factor."""
        name, _, text = str(value).rpartition("=")
        try:
            factor = float(text)
        except ValueError:
            factor = math.nan
        if not name or not 0 < factor <= _FACTOR_MAX:
            self.fail(f"{value!r} is not NAME=FACTOR, for instance post_tweet=2.0", param, ctx)
        return name, factor


@click.command(epilog=_EPILOG)
@click.option("--config", type=FILE, metavar="FILE", required=True, help="coordd.toml.")
@click.option("--trace", type=FILE, metavar="FILE", required=True, help="The demands.")
@click.option(
    "--workers",
    type=WholeNumber(1, WORKERS_MAX),
    metavar="N",
    default=1,
    show_default=True,
    help="Size of the fleet w1, w2, ... for demands that name nobody.",
)
@click.option(
    "--at-once",
    type=WholeNumber(1, _AT_ONCE_MAX),
    metavar="N",
    help="Demands that one worker works on at once; others wait for it.  [default: any number]",
)
@click.option(
    "--wait",
    "wait_ns",
    type=_LengthType(),
    metavar="LENGTH",
    help="How long each request waits; 0s: not at all.  [default: the configuration's]",
)
@click.option(
    "--service",
    "service_ns",
    type=_LengthType(),
    metavar="LENGTH",
    default=_SERVICE_NS,
    help="How long the work takes once all is granted, where the trace doesn't say.  [default: 500ms]",
)
@click.option(
    "--seed",
    type=WholeNumber(0, 2**32),
    metavar="N",
    default=0,
    show_default=True,
    help="Draws who asks first for what all workers see.",
)
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="What if: another setting, as limits.post_tweet.windows.1h=400. May be given several times.",
)
@click.option(
    "--scale",
    "factors",
    type=_ScaleType(),
    metavar="NAME=FACTOR",
    multiple=True,
    help="What if: all windows of an endpoint, or a pool, times a factor. May be given several times.",
)
@click.option("--png", type=FILE, metavar="FILE", help="Draw it, too. Needs coordd[plot].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def simulate(**given: Any) -> None:
    """Try a configuration on a trace of demands, with the daemon's own decisions, in virtual time.

    Virtual workers wait, work and report as real ones do. Prints how long they waited by class, how well each
    window was used, how fair it was, who was refused why, and how many waited when. With --set or --scale:
    both as configured and changed.
    """
    # Late, since nothing else of `coordd` needs it.
    from coordd.cli.simulating import Options, simulate_and_show  # noqa: PLC0415

    if not simulate_and_show(Options(**given)):
        fail(["interrupted; this is as far as it came"], EXIT_INTERRUPTED)
