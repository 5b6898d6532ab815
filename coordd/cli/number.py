"""Numbers as operators write them.

Rules: whatever is wrong with one is said in one sentence, with the bounds; infinities and NaN are no numbers.
"""

import math

import click

__all__ = ["Number", "WholeNumber"]


def _bounds(at_least: float, at_most: float | None, *, is_open: bool = False) -> str:
    if at_most is None:
        return f"of at least {at_least}"
    return f"above {at_least} and up to {at_most}" if is_open else f"from {at_least} to {at_most}"


class WholeNumber(click.ParamType[int]):
    """An option's value that is a whole number.

    Args: at_least, at_most: its bounds, both allowed; None for no upper one.
    """

    name = "integer"

    def __init__(self, at_least: int, at_most: int | None = None) -> None:
        self._at_least = at_least
        self._at_most = at_most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        try:
            number = int(str(value))
        except ValueError:
            number = self._at_least - 1
        if number < self._at_least or (self._at_most is not None and number > self._at_most):
            self.fail(f"{value!r} is not a whole number {_bounds(self._at_least, self._at_most)}", param, ctx)
        return number


class Number(click.ParamType[float]):
    """An option's value that is a number.

    Args: at_least, at_most: its bounds.  is_open: whether the lower one is not allowed itself.
    """

    name = "number"

    def __init__(self, at_least: float, at_most: float, *, is_open: bool = False) -> None:
        self._at_least = at_least
        self._at_most = at_most
        self._is_open = is_open

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        is_within = self._at_least <= number <= self._at_most  # never true of NaN
        if not is_within or (self._is_open and number == self._at_least):
            bounds = _bounds(self._at_least, self._at_most, is_open=self._is_open)
            self.fail(f"{value!r} is not a number {bounds}", param, ctx)
        return number
