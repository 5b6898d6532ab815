"""Several rolling windows, charged together or not at all.

Rules: all windows are checked before any is charged. A permit is charged at its latest possible use.
Must not know: who waits, what is persisted when, what an endpoint is.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from coordd.core.expected import Expected
from coordd.core.records import Booking, Cell
from coordd.core.rules import MEDIUM
from coordd.core.window import Window, begins_at


class Full(Struct, frozen=True, gc=False):
    """Not now: not before `at`, because of the window of `window_ns`."""

    at: int
    window_ns: int


class Kept(NamedTuple):
    """What a class must leave to those above it, of each window.

    `units`: what these have used included. `expected`: what they will want; (): nothing is expected.
    """

    priority: int
    units: tuple[int, ...]
    expected: tuple[Expected | None, ...] = ()


class Windows:
    """Several windows, charged together or not at all, and the bookings that hold part of their future."""

    __slots__ = ("_booked", "bookings", "name", "of", "use_within_ns")

    def __init__(
        self,
        name: str,
        limits: Mapping[int, int],
        use_within_ns: int,
        changed: dict[Cell, None],
        window_type: type[Window] = Window,
    ) -> None:
        self.name = name
        self.use_within_ns = use_within_ns
        self.of = tuple(
            window_type(name, length_ns, limit, changed) for length_ns, limit in sorted(limits.items())
        )
        self.bookings: dict[int, Booking] = {}
        self._booked = 0

    def smallest(self) -> int:
        """Return the most that can ever be taken at once."""
        return min(window.limit for window in self.of)

    def roll(self, now: int) -> None:
        """Drop what has left the windows at `now`."""
        for window in self.of:
            if now >= window.rolls_at:
                window.roll(now)

    def leaves_at(self) -> int:
        """Return when a bucket leaves next, as of when they were rolled; 0: there is none."""
        return min((at for at in (window.leaves_at() for window in self.of) if at), default=0)

    def is_room(self, count: int, now: int, kept: Kept | None = None) -> bool:
        """Whether `count` can be taken now. Cost: O(windows), with bookings O(buckets + bookings)."""
        if kept is not None:
            return self._is_room_beside(count, now, kept)
        is_clear = True
        for window in self.of:
            if now >= window.rolls_at:
                window.roll(now)
            room = window.limit - window.used - count
            if room < 0:
                return False
            is_clear = is_clear and room >= self._booked
        return is_clear or self.earliest(count, now, self.use_within_ns, now).at == now

    def _is_room_beside(self, count: int, now: int, kept: Kept) -> bool:
        self.roll(now)
        is_clear = True
        for index, window in enumerate(self.of):
            room = window.limit - window.used - count
            if kept.units[index]:
                room -= max(0, kept.units[index] - window.used_above(kept.priority))
            if room < 0:
                return False
            expected = kept.expected[index] if kept.expected else None
            is_clear = is_clear and room >= self._booked + (expected.most if expected is not None else 0)
        return is_clear or self.earliest(count, now, self.use_within_ns, now, kept).at == now

    def take(self, worker: str, count: int, now: int, priority: int = MEDIUM) -> int:
        """Charge `count` in every window at its latest possible use, and return that instant.

        `is_room` has said yes.
        """
        use_by = now + self.use_within_ns
        for window in self.of:
            window.charge(worker, count, use_by, priority)
        return use_by

    def settle(
        self, worker: str, used: int, unused: int, use_by: int, now: int, *, priority: int = MEDIUM
    ) -> None:
        """Move the charge of `used` from `use_by` to `now`, and take back the `unused`."""
        for window in self.of:
            window.refund(worker, used + unused, use_by, priority)
            if used:
                window.charge(worker, used, now, priority)

    def earliest(
        self, count: int, start: int, hold_ns: int, now: int, kept: Kept | None = None, *, since: int = 0
    ) -> Full:
        """Return the first instant from `start` on at which every window has room, and which was last.

        Args: count: 1..smallest() less what is `kept`; above it: as if taken in as many goes as it needs,
        each when the last has left. since: see `Expected.clears_at`.
        """
        self.roll(now)
        priority, units, expected = kept or Kept(0, (0,) * len(self.of))
        expected = expected or (None,) * len(self.of)
        full = Full(start, 0)
        is_moving = True
        while is_moving:
            is_moving = False
            for window, kept_units, others in zip(self.of, units, expected, strict=True):
                rest = (count - 1) % (window.limit - _left_alone(kept_units, others)) + 1
                at = window.earliest(rest, full.at, hold_ns, now, priority=priority, kept=kept_units)
                if others is not None:
                    at = window.earliest_beside(others, rest, at, hold_ns, now, since=since)
                if at > full.at:
                    full = Full(at, window.length_ns)
                    # Where only charges count, room that there is once stays: no need to look again.
                    is_moving = self._booked > 0 or kept is not None
        return self._in_rounds(full, count, tuple(map(_left_alone, units, expected)))

    def no_sooner(self, count: int, now: int) -> int:
        """Return an instant before which `count` can't all be taken, in however many goes.

        Why: in as many lengths of a window as they need but one, no more than so many times its limit are
        taken; so the rest must have found room before.
        """
        self.roll(now)
        return max(
            window.earliest((count - 1) % window.limit + 1, now, self.use_within_ns, now)
            + (count - 1) // window.limit * window.length_ns
            for window in self.of
        )

    def _in_rounds(self, full: Full, count: int, units: tuple[int, ...]) -> Full:
        """Put off what takes several goes by the length of the window for each but the last."""
        waits = [
            ((count - 1) // (window.limit - kept) * window.length_ns, window.length_ns)
            for window, kept in zip(self.of, units, strict=True)
        ]
        longest, window_ns = max(waits)
        return Full(full.at + longest, window_ns) if longest else full

    def book(self, booking: Booking) -> None:
        """Hold room for a booking, at the time that `earliest` gave."""
        self.bookings[booking.id] = booking
        self._booked += booking.count
        for window in self.of:
            window.book(booking)

    def unbook(self, booking: Booking) -> None:
        """Give its room back."""
        del self.bookings[booking.id]
        self._booked -= booking.count
        for window in self.of:
            window.unbook(booking)

    def load(self, cells: Iterable[Cell], now: int) -> list[Cell]:
        """Take stored cells in; return those of windows that are no more.

        A window that is new, or of a new length, begins with what the longest of the old ones knows: else it
        would forget every call made before, and allow them again. Each charge is put at the end of its old
        bucket, the latest it can have been made.
        """
        stored: dict[int, list[Cell]] = {}
        for cell in cells:
            stored.setdefault(cell.window_ns, []).append(cell)
        known = stored[max(stored)]
        for window in self.of:
            if window.length_ns in stored:
                for cell in stored.pop(window.length_ns):
                    window.load(cell)
            elif any(window.is_live(begins_at(cell), now) for cell in known):
                # It would know of that call, had it been there: so it is new.
                for cell in known:
                    window.take_over(cell)
        return [cell for gone in stored.values() for cell in gone]


def _left_alone(kept_units: int, expected: Expected | None) -> int:
    return max(kept_units, expected.most) if expected is not None else kept_units
