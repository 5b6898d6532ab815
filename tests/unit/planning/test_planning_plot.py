"""The plot in the terminal and the picture."""

from pathlib import Path

import pytest
from planning_desk import RULES, T0, demand, plan, run, trace

from coordd.core.limits import SECOND
from coordd.planning import picture
from coordd.planning.picture import PictureError, check_picture, draw
from coordd.planning.plot import plot, round_step
from coordd.planning.report import Figures, figures_of


@pytest.fixture(scope="module")
def figures() -> Figures:
    demands = [demand("units:file:a", worker=f"w{number}") for number in range(12)]
    return figures_of(run(*demands, how=plan(service_s=10, wait_s=600)), trace(*demands), RULES)


def test_axes_have_names_units_and_round_numbers(figures: Figures) -> None:
    lines = plot(figures, width=80, title="as configured").splitlines()
    assert lines[0] == "as configured: how many waited; seconds since 2020-09-13 12:26:40Z"
    assert lines[1].startswith("(waiting)")
    assert lines[-2].endswith("(seconds)")
    assert lines[-1].split() == ["|", "0", "20", "40", "60", "80"]
    # 11 waited: in steps of 2.
    assert [line.split()[0] for line in lines[2:-2]] == [
        "20",
        "18",
        "16",
        "14",
        "12",
        "10",
        "8",
        "6",
        "4",
        "2",
        "0",
    ]
    assert max(map(len, lines)) <= 80


def test_seconds_have_no_date() -> None:
    demands = [demand("units:file:a", at_s=at, worker=name) for at in (0, 500, 1_000) for name in "ab"]
    undated = trace(*demands, is_dated=False)
    each = figures_of(run(*demands, how=plan(service_s=10)), undated, RULES)
    assert plot(each, width=20).startswith("how many waited; minutes since the first demand\n")
    later = figures_of(run(*demands), undated, RULES, shown=(T0 + 90 * SECOND, T0 + 600 * SECOND))
    assert plot(later, width=20).startswith("how many waited; minutes since 90 s after the first demand\n")


@pytest.mark.parametrize(
    ("least", "step"),
    [(1, 1), (1.01, 2), (2, 2), (2.1, 5), (5.5, 10), (10, 10), (0.03, 0.05), (0.2, 0.2), (101, 200)],
)
def test_round_steps(least: float, step: float) -> None:
    assert round_step(least) == pytest.approx(step)


@pytest.mark.parametrize("runs", [1, 2])
def test_the_picture_is_a_png_with_something_in_it(figures: Figures, tmp_path: Path, runs: int) -> None:
    file = tmp_path / "run.png"
    check_picture(file)
    draw(file, {f"run {number}": figures for number in range(runs)})
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    # IHDR: width and height in pixels.
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (900 * runs, 1000)
    assert len(content) > 20_000


def test_no_picture_where_it_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="there is no directory"):
        check_picture(tmp_path / "none" / "run.png")


def test_no_picture_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "find_spec", lambda _name: None)
    with pytest.raises(PictureError, match=r"needs matplotlib: pip install 'coordd\[plot\]'"):
        check_picture(tmp_path / "run.png")
