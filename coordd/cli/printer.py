"""Results on stdout: JSON for programs, tables and lines for people.

Rules: JSON is protobuf's mapping with the proto's own field names and with zero values, ASCII only; a list is
one array, a stream one value a line. On a terminal tables have colours and wrap; elsewhere they are plain,
one row a line, however wide. Nothing is ever cut off.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordd.cli.words import printable

__all__ = ["Column", "Listing", "Printer", "View", "cell"]

Row = TypeVar("Row")
AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: its title and what a row says there."""

    title: str
    text: Callable[[Row], str | int | Text]
    right: bool = False


def cell(value: str | int | Text) -> Text:
    """A cell's text, harmless to the terminal whoever wrote it."""
    return value if isinstance(value, Text) else Text(printable(str(value)))


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """Rows and the columns that they are shown in."""

    rows: Sequence[Row]
    columns: Sequence[Column[Row]]

    def coloured(self) -> Table:
        """For a terminal: cells that are too long go on in the next line."""
        view = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in self.columns:
            view.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
        for row in self.rows:
            view.add_row(*(cell(column.text(row)) for column in self.columns))
        return view

    def plain(self) -> Iterator[str]:
        """For a file or a pipe: the title and then a row a line. By hand: rich takes 0.3 ms a row."""
        titles = [column.title for column in self.columns]
        texts = [titles, *([_plain(column.text(row)) for column in self.columns] for row in self.rows)]
        widths = [max(map(cell_len, texts_of_column)) for texts_of_column in zip(*texts, strict=True)]
        for line in texts:
            parts = map(_padded, line, widths, (column.right for column in self.columns))
            yield "  ".join(parts).rstrip()


def _plain(value: str | int | Text) -> str:
    return value.plain if isinstance(value, Text) else printable(str(value))


def _padded(text: str, width: int, right: bool) -> str:  # noqa: FBT001 - for map
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding


View = Text | Listing[Any]  # what people read: a line or more of text, or a listing


class Printer:
    """Prints results one way or the other.

    Args: as_json: JSON instead of what people read.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
        self._is_plain = not self._console.is_terminal

    def message(self, message: Message, view: Callable[[], View]) -> None:
        """Print one message: as JSON, or as `view` shows it."""
        if self.as_json:
            click.echo(_json(message))
        else:
            self.view(view())

    def messages(self, **messages: Message) -> None:
        """Print several messages as one JSON object, each under its name."""
        parts = ", ".join(f'"{name}": {_json(message)}' for name, message in messages.items())
        click.echo(f"{{{parts}}}")

    def rows(
        self, messages: Iterable[AnyMessage], columns: Sequence[Column[AnyMessage]], *, none: str
    ) -> None:
        """Print a list: one JSON array, written as it comes, or a table.

        Args: none: what to say, on stderr, instead of an empty table.
        """
        if self.as_json:
            self._array(messages)
            return
        listing = Listing(list(messages), columns)
        if listing.rows:
            self.view(listing)
        else:
            click.echo(none, err=True)

    def view(self, *views: View) -> None:
        """Print what people read."""
        for view in views:
            click.echo(self._plain(view) if self._is_plain else self._coloured(view), nl=False, color=True)

    def _array(self, messages: Iterable[Message]) -> None:
        separator = "["
        for message in messages:
            click.echo(separator + _json(message), nl=False)
            separator = ",\n "
        click.echo("]" if separator != "[" else "[]")

    @staticmethod
    def _plain(view: View) -> str:
        lines = view.plain() if isinstance(view, Listing) else [view.plain]
        return "".join(line + "\n" for line in lines)

    def _coloured(self, view: View) -> str:
        with self._console.capture() as capture:
            if isinstance(view, Listing):
                self._console.print(view.coloured())
            else:  # a line wraps where the terminal does, so that it copies as one
                self._console.print(view, soft_wrap=True)
        return capture.get()


def _json(message: Message) -> str:
    fields = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(fields)
