"""How `coordd simulate` goes about it: reads, runs, shows.

Rules: what can be wrong is found before anything is run. Ctrl-C ends a run with what it has; a second one
ends the program.
"""

import gc
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from coordd.cli.loading import EXIT_CONFIG, fail, settings_or_exit
from coordd.cli.simulation_view import show
from coordd.cli.words import counted
from coordd.core.rules import Rules
from coordd.planning.fleet import weighed
from coordd.planning.picture import PictureError, check_picture, draw
from coordd.planning.report import Figures, figures_of, shown_of
from coordd.planning.run import Plan, Simulation
from coordd.planning.trace import Trace, TraceError, read_trace
from coordd.planning.what_if import scaled

__all__ = ["Options", "interruptible", "simulate_and_show"]

# Names of the two runs, where there are two.
AS_CONFIGURED = "as configured"
CHANGED = "changed"
# Objects made since the last look; by default 700.
_COLLECT_AFTER = 100_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says; see `coordd simulate --help`."""

    config: Path
    trace: Path
    workers: int
    at_once: int | None
    wait_ns: int | None
    service_ns: int
    seed: int
    changes: tuple[str, ...]
    factors: tuple[tuple[str, float], ...]
    png: Path | None
    as_json: bool

    @property
    def is_what_if(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.changes or self.factors)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A run to be: under which rules, of what, how."""

    name: str
    rules: Rules
    trace: Trace
    plan: Plan


def simulate_and_show(options: Options) -> bool:
    """Do what the options say, and print it; return whether it was not interrupted.

    Exits with 2 and one problem a line if anything is wrong.
    """
    _check_png(options.png)
    tasks = [_task(options, AS_CONFIGURED, changes=(), factors={})]
    if options.is_what_if:
        tasks.append(_task(options, CHANGED, changes=options.changes, factors=dict(options.factors)))
    _tell_order(tasks[0].trace)
    figures, is_complete = _run(tasks)
    if options.png is not None:
        _draw(options.png, figures)
    if options.as_json:
        click.echo(msgspec.json.encode(_as_json(figures)))
    else:
        show(figures)
    return is_complete


def _as_json(figures: Mapping[str, Figures]) -> dict[str, object]:
    """Return one object: the figures of the last run, and beside them those of the one as configured."""
    *before, last = figures.values()
    return {**msgspec.to_builtins(last), "as_configured": before[0] if before else None}


def _task(options: Options, name: str, *, changes: tuple[str, ...], factors: Mapping[str, float]) -> _Task:
    settings = settings_or_exit(options.config, changes=changes)
    try:
        rules = scaled(settings.rules(), factors)
        trace = read_trace(options.trace, rules)
    except TraceError as error:
        fail(error.problems, EXIT_CONFIG)
    except ValueError as error:
        fail([f"--scale: {error}"], EXIT_CONFIG)
    wait_ns = settings.waits.default_timeout_ns if options.wait_ns is None else options.wait_ns
    plan = Plan(
        workers=options.workers,
        wait_ns=wait_ns,
        service_ns=options.service_ns,
        at_once=options.at_once or 0,
        seed=options.seed,
    )
    return _Task(name=name, rules=weighed(rules, trace.demands), trace=trace, plan=plan)


def _tell_order(trace: Trace) -> None:
    if trace.unordered:
        click.echo(
            f"note: {counted(trace.unordered, 'line')} of the trace came too late; put in order", err=True
        )


def _run(tasks: list[_Task]) -> tuple[dict[str, Figures], bool]:
    """Run the tasks, each with a bar if stderr is a terminal; an interrupted one is the last.

    Return their figures, and whether none was interrupted.
    """
    figures: dict[str, Figures] = {}
    shown = None
    with _progress() as progress:
        for task in tasks:
            simulation = Simulation(task.rules, task.trace.demands, task.plan)
            bar = progress.add_task(task.name, total=len(simulation.log.attempts))
            began_s = perf_counter()
            with interruptible(simulation), _collecting_seldom():
                log = simulation.run(partial(_update, progress, bar))
            shown = shown or shown_of(log)
            figures[task.name] = figures_of(log, task.trace, task.rules, shown=shown)
            ended = sum(attempt.ended_at > 0 for attempt in log.attempts)
            took = f"{counted(ended, 'attempt')} simulated in {perf_counter() - began_s:.1f} s"
            progress.console.print(took, highlight=False)
            if not log.is_complete:
                return figures, False
    return figures, True


def _update(progress: Progress, bar: TaskID, ended: int) -> None:
    progress.update(bar, completed=ended)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let the garbage collector look seldom: a run keeps nearly all it makes, and makes few cycles."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def interruptible(simulation: Simulation) -> Iterator[None]:
    """Let Ctrl-C end the run and not the program; the second one ends the program."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        simulation.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_png(png: Path | None) -> None:
    if png is None:
        return
    try:
        check_picture(png)
    except PictureError as error:
        fail([f"--png: {error}"], EXIT_CONFIG)


def _draw(png: Path, figures: Mapping[str, Figures]) -> None:
    try:
        draw(png, figures)
    except OSError as error:
        fail([f"--png: {png}: can't be written: {error.strerror}"], EXIT_CONFIG)
    print(f"drawn: {png}", file=sys.stderr)
