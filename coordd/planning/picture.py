"""A run, or several, as a picture: who waited when, how full each window was, how long the classes waited."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coordd.planning.plot import TimeAxis
from coordd.planning.report import Figures

__all__ = ["PictureError", "check_picture", "draw"]


class PictureError(Exception):
    """There can be no picture, for a reason that is known beforehand."""


def check_picture(path: Path) -> None:
    """Check that a picture can be drawn into `path`. Raises: PictureError."""
    if find_spec("matplotlib") is None:
        raise PictureError("needs matplotlib: pip install 'coordd[plot]'")
    if not path.parent.is_dir():
        raise PictureError(f"{path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PictureError(f"{path}: can't be written")


def draw(path: Path, figures: Mapping[str, Figures]) -> None:
    """Draw the figures, by the name of their run, into a PNG file. Raises: OSError."""
    # Late: it takes half a second to load, and is an extra.
    from matplotlib.figure import Figure  # noqa: PLC0415

    picture: Any = Figure(figsize=(9 * len(figures), 10), layout="constrained")
    rows = picture.subplots(3, len(figures), sharey="row", squeeze=False)
    for column, (name, each) in enumerate(figures.items()):
        for row, fill in enumerate((_waiting, _fill, _waits)):
            panel = rows[row][column]
            fill(panel, each)
            panel.grid(visible=True, alpha=0.3)
            panel.set_ylim(bottom=0)
            panel.set_xlim(left=0)
        if len(figures) > 1:
            rows[0][column].set_title(f"{name}\n{rows[0][column].get_title()}")
    picture.savefig(path, format="png", dpi=100)


def _waiting(panel: Any, figures: Figures) -> None:
    axis = TimeAxis(figures)
    panel.fill_between(axis.points(figures), figures.series.waiting, step="mid", alpha=0.3)
    panel.step(axis.points(figures), figures.series.waiting, where="mid")
    panel.set(title="How many waited", xlabel=axis.label, ylabel="waiting requests")


def _fill(panel: Any, figures: Figures) -> None:
    axis = TimeAxis(figures)
    for name, parts in figures.series.fill.items():
        panel.plot(axis.points(figures), [100 * part for part in parts], label=name)
    panel.axhline(100, color="black", linewidth=0.8, linestyle=":")
    panel.set(
        title="How full each window was", xlabel=axis.label, ylabel="calls in the window, % of its limit"
    )
    _legend(panel)


def _waits(panel: Any, figures: Figures) -> None:
    for name, quantiles_s in figures.series.quantiles_s.items():
        panel.plot(quantiles_s, range(len(quantiles_s)), label=name, drawstyle="steps-post")
    panel.set(
        title="How long those waited who were granted", xlabel="wait, seconds", ylabel="granted attempts, %"
    )
    _legend(panel)


def _legend(panel: Any) -> None:
    if panel.get_legend_handles_labels()[1]:
        panel.legend(loc="best", fontsize="small")
