"""What the tables of a sound file never say together: a table of questions, each with its meaning.

The questions are `sql/`: each yields a row, in one column, for what is wrong, and nothing on whatever a
daemon has written itself, however it was killed. They are of the newest format.
"""

from importlib import resources
from typing import Final

from msgspec import Struct

from coordd.doctor.report import Gravity

RESTORE: Final = "restore a backup: docs/operations.md, Restore"
_SQL: Final = resources.files("coordd.doctor") / "sql"


class Check(Struct, frozen=True, kw_only=True):
    """A question to the tables. `what` is said of the rows that answer it: {count}, {examples}."""

    name: str
    what: str
    gravity: Gravity = Gravity.BROKEN
    remedy: str = RESTORE
    # Whether a daemon that serves the file sees to it by itself.
    is_of_idle: bool = False

    @property
    def query(self) -> str:
        """Return the question."""
        return (_SQL / f"{self.name}.sql").read_text("utf-8")


CHECKS: Final = (
    Check(
        name="ids",
        what="{count} ids are above the mark of the last one given: {examples}; one could be given twice",
    ),
    Check(name="distinct", what="{count} ids are those of two things at once: {examples}"),
    Check(name="holders", what="{count} items are held twice for one kind of engagement: {examples}"),
    Check(name="resources", what="{count} resources are held twice: {examples}"),
    Check(name="requests", what="{count} request ids stand for two grants at once: {examples}"),
    Check(name="counts", what="{count} counts or lengths are below what is possible: {examples}"),
    Check(name="classes", what="{count} charges have parts that are more than the whole: {examples}"),
    Check(
        name="charges",
        what="{count} windows are charged with less than their permits allow: {examples}; too much could be "
        "granted",
        gravity=Gravity.ODD,
        remedy="if it is new, restore a backup; else it is over once these permits are",
    ),
    Check(name="order", what="{count} records end before they begin: {examples}"),
    Check(name="future", what="{count} records are later than the last batch: {examples}"),
    Check(name="waiters", what="{count} waiters wait for nothing known, or can't come back: {examples}"),
    Check(name="bundles", what="{count} bundles hold nothing that is live: {examples}"),
    Check(name="values", what="{count} records have numbers that stand for nothing: {examples}"),
    Check(
        name="escalations",
        what="{count} escalations are about nobody who waits any more: {examples}",
        gravity=Gravity.NOTE,
        remedy="none is needed: the next start closes them",
    ),
    Check(
        name="expired",
        what="{count} leases have run out by this machine's clock: {examples}",
        gravity=Gravity.NOTE,
        remedy="none is needed: the next start gives them [recovery] grace, since nobody could renew them",
        is_of_idle=True,
    ),
)
