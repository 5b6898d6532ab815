"""How many waited when, as text for a terminal."""

from datetime import datetime, timedelta
from math import ceil, floor, log10
from typing import Any, Final

import plotille

from coordd.core.limits import DAY, HOUR, MINUTE, SECOND
from coordd.planning.report import Figures

__all__ = ["TimeAxis", "plot"]

_HEIGHT: Final = 10
# A tick's width on plotille's x axis; and what it needs to the left of the y axis.
_TICK_WIDTH: Final = 10
_MARGIN: Final = 16
_UNITS: Final = (("days", DAY), ("hours", HOUR), ("minutes", MINUTE), ("seconds", SECOND))


class TimeAxis:
    """Time in a unit that suits the length of the curves, from their beginning.

    `label`: the unit, and since when; `unit_s`: its length.
    """

    def __init__(self, figures: Figures) -> None:
        series = figures.series
        span_ns = series.step_s * len(series.waiting) * SECOND
        name, unit_ns = next((unit for unit in _UNITS if span_ns >= 3 * unit[1]), _UNITS[-1])
        self.unit_s = unit_ns / SECOND
        self.span = span_ns / unit_ns
        self.label = f"{name} since {_beginning(figures)}"
        self.name = name

    def points(self, figures: Figures) -> list[float]:
        """Return the middle of each step."""
        step = figures.series.step_s / self.unit_s
        return [(index + 0.5) * step for index in range(len(figures.series.waiting))]


def _beginning(figures: Figures) -> str:
    from_s, begins = figures.series.from_s, figures.totals.begins
    if begins:
        return (datetime.fromisoformat(begins) + timedelta(seconds=int(from_s))).strftime(
            "%Y-%m-%d %H:%M:%SZ"
        )
    return f"{from_s:,.0f} s after the first demand" if from_s else "the first demand"


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... times a power of ten that is at least `least`."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def plot(figures: Figures, *, width: int, title: str = "") -> str:
    """Return the curve of how many waited, at most `width` characters wide."""
    axis = TimeAxis(figures)
    ticks = max((width - _MARGIN) // _TICK_WIDTH, 3)
    x_step = round_step(axis.span / ticks)
    y_step = max(round_step(max(figures.series.waiting) / _HEIGHT), 1.0)
    figure: Any = plotille.Figure()
    figure.with_colors = False
    figure.width, figure.height = ceil(axis.span / x_step) * _TICK_WIDTH, _HEIGHT
    figure.set_x_limits(0, ceil(axis.span / x_step) * x_step)
    figure.set_y_limits(0, y_step * _HEIGHT)
    figure.x_label, figure.y_label = axis.name, "waiting"
    figure.x_ticks_fkt = figure.y_ticks_fkt = _number
    figure.plot(axis.points(figures), figures.series.waiting)
    name = f"{title}: " if title else ""
    return f"{name}how many waited; {axis.label}\n{figure.show()}\n"


def _number(low: float, _high: float) -> str:
    return f"{low:,.10g}"
