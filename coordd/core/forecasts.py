"""Forecasts: what each class is expected to ask of an endpoint, from what it has asked for.

Owns: the demand counted, and per class two things learnt from it: a level, calls a second as they would be if
all hours were the same, and a profile, the mean rate of each hour of the day (UTC).
Rules: counting is one addition. Demand is counted in bins; when one ends, and only if anything was counted
in it, the arithmetic is done: the level is an exponentially weighted mean whose memory halves in ten minutes,
and a new day counts for a quarter of the profile (multiplicative seasonality, as in Winters, Management
Science 6(3), 1960). An hour in which little is expected says little about the level, so that a quiet night
does not make the morning be forgotten. All numbers are integers, rates in parts of 10**6 of a call a second,
so that every machine computes the same.
Must not know: who waits, and what a forecast is good for.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from coordd.core.ledger import Ledger
from coordd.core.limits import DAY, HOUR, SECOND
from coordd.core.queues import QueueKey
from coordd.core.records import Forecast, Table
from coordd.core.rules import PRIORITIES

# An hour is so many whole bins.
BIN_NS: Final = 10 * SECOND
PPM: Final = 1_000_000
# A bin's weight in the level: 1 - 2**(-1/60), so that sixty bins, ten minutes, halve what was before.
_WEIGHT_PPM: Final = 11_486
# A day's weight in the profile.
_DAY_WEIGHT: Final = 4
_HOURS: Final = 24
_UNSEEN: Final = -1
# After so long without demand nothing of it is expected any more.
_MEMORY_NS: Final = 7 * DAY


class Profile:
    """How much each hour of the day asks for: mean rates, in parts of 10**6 of a call a second.

    An hour never seen from its start to its end is unseen, and until all have been seen they count the same.
    """

    __slots__ = ("_hours", "_total")

    def __init__(self, text: str = "") -> None:
        self._hours: list[int] = msgspec.json.decode(text) if text else [_UNSEEN] * _HOURS
        self._sum_up()

    def factor(self, at: int) -> int:
        """Return the part (of 10**6) of the mean rate that is usual in the hour of the instant `at`."""
        return self._hours[_hour(at)] * _HOURS * PPM // self._total if self._total else PPM

    def span(self, begins: int, length_ns: int) -> int:
        """Return the factor's sum over so many ns. Cost: O(24) at most."""
        days, rest_ns = divmod(length_ns, DAY)
        total, ends = days * DAY * PPM, begins + rest_ns
        while begins < ends:
            until = min(ends, _next_hour(begins))
            total += self.factor(begins) * (until - begins)
            begins = until
        return total

    def learn(self, at: int, count: int) -> None:
        """Take in that in the whole hour of the instant `at` so many calls were asked for."""
        hour, rate = _hour(at), count * PPM * SECOND // HOUR
        known = self._hours[hour]
        self._hours[hour] = rate if known == _UNSEEN else known + (rate - known) // _DAY_WEIGHT
        self._sum_up()

    def text(self) -> str:
        """Return it as it is kept."""
        return msgspec.json.encode(self._hours).decode()

    def _sum_up(self) -> None:
        self._total = 0 if _UNSEEN in self._hours else sum(self._hours)


class ClassForecast:
    """What one class of an endpoint asks for: its record, and the profile that this holds as text."""

    __slots__ = ("_profile", "record")

    def __init__(self, record: Forecast) -> None:
        self.record = record
        self._profile = Profile(record.profile)

    def rate_ppm(self, now: int) -> int:
        """Return the calls a second expected now, in parts of 10**6."""
        return self._level(now) * self._profile.factor(now) // PPM

    def expected_ppm(self, length_ns: int, at: int, now: int) -> int:
        """Return how many calls are expected within `length_ns` from `at` on, in parts of 10**6."""
        return self._level(now) * self._profile.span(at, length_ns) // (PPM * SECOND)

    def end_bin(self, count: int, begins: int) -> None:
        """Take in what was asked for in the bin that begins at `begins`. Cost: O(hours since)."""
        record = self.record
        self._end_hours(begins)
        record.level_ppm = self._level(begins)
        factor = self._profile.factor(begins)
        surprise = count * PPM * SECOND // BIN_NS - record.level_ppm * factor // PPM
        record.level_ppm = max(0, record.level_ppm + surprise * _WEIGHT_PPM // max(PPM, factor))
        if record.hour_count != _UNSEEN:
            record.hour_count += count
        record.at = next_bin(begins)

    def _end_hours(self, now: int) -> None:
        """Let the profile learn from the hours that have ended since, the idle ones included."""
        record = self.record
        if now - record.at > _MEMORY_NS:
            record.level_ppm, record.hour_count, record.at = 0, _UNSEEN, now
        for ended_at in range(_next_hour(record.at - 1), now + 1, HOUR):
            record.level_ppm, record.at = self._level(ended_at), ended_at
            if record.hour_count != _UNSEEN:
                self._learn(ended_at - 1)
            record.hour_count = 0

    def _learn(self, hour: int) -> None:
        record, profile = self.record, self._profile
        before = profile.factor(hour)
        profile.learn(hour, record.hour_count)
        after = profile.factor(hour)
        if before and after:
            # What is expected of that hour stays, whatever the profile now says of it.
            record.level_ppm = record.level_ppm * before // after
        record.profile = profile.text()

    def _level(self, until: int) -> int:
        """Return the level when no bin between the record's instant and that of `until` had any demand."""
        level, at = self.record.level_ppm, self.record.at
        until -= until % BIN_NS
        if until - at > _MEMORY_NS:
            return 0
        while at < until and level:
            end = min(until, _next_hour(at))
            weight = _WEIGHT_PPM * min(PPM, self._profile.factor(at)) // PPM
            bins = (end - at) // BIN_NS
            level = level * (PPM - weight) ** bins // PPM**bins
            at = end
        return level


class Forecasts:
    """One endpoint's demand, counted and expected, by class.

    `highest`: the highest class that has ever asked, 0: none. Due when a bin ends in which anything was
    counted.
    """

    __slots__ = (
        "_above",
        "_begins",
        "_changed",
        "_classes",
        "_counts",
        "_deadlines",
        "_fresh_until",
        "_learnt",
        "_lengths_ns",
        "_subject",
        "highest",
        "key",
        "scheduled",
    )

    def __init__(self, subject: str, key: QueueKey, lengths_ns: Sequence[int], ledger: Ledger) -> None:
        self.key = key
        self.highest = 0
        self.scheduled = 0
        self._subject = subject
        self._lengths_ns = tuple(lengths_ns)
        self._deadlines = ledger.deadlines
        self._changed = ledger.changes.of[Table.FORECASTS]
        self._classes: dict[int, ClassForecast] = {}
        # What was asked for in the bin that began at `_begins`, by class.
        self._counts = [0] * (len(PRIORITIES) + 1)
        self._begins = 0
        # Window length -> by class, what those above it are expected to want within it; it holds for a bin.
        self._above: dict[int, list[int]] = {}
        self._fresh_until = 0
        # How often something was learnt.
        self._learnt = 0

    def count(self, priority: int, units: int, now: int) -> None:
        """Count what is asked for."""
        self._counts[priority] += units
        if not self.scheduled:
            self._begins = now - now % BIN_NS
            self._deadlines.schedule(self, next_bin(now))

    def end_bin(self) -> None:
        """Do the arithmetic of the bin that has ended."""
        for priority, count in enumerate(self._counts):
            if count:
                self._class(priority).end_bin(count, self._begins)
                self._changed[(self._subject, priority)] = self._classes[priority].record
        self._counts = [0] * len(self._counts)
        self._fresh_until = 0
        self._learnt += 1

    def expected_above(self, priority: int, length_ns: int, at: int, now: int) -> int:
        """Return how many calls the classes above `priority` will want within `length_ns` from `at`.

        In parts of 10**6 of a call. Cost: O(1) but once in a bin, or where `at` is not `now`.
        """
        if at > now:
            return self._expected(length_ns, at, now)[priority]
        if now >= self._fresh_until:
            self._fresh_until = next_bin(now)
            # As of the bin's begin, whoever asks first: a look must not change what is decided after it.
            begins = now - now % BIN_NS
            self._above = {
                length_ns: self._expected(length_ns, begins, begins) for length_ns in self._lengths_ns
            }
        return self._above[length_ns][priority]

    def basis(self, now: int) -> tuple[int, ...]:
        """Return what forecasts depend on: while it is the same, so are they."""
        return (now // BIN_NS, self._learnt)

    def rates(self, now: int) -> Iterator[tuple[int, int]]:
        """Yield each class and the calls a second expected of it now, in parts of 10**6."""
        for priority in sorted(self._classes):
            yield priority, self._classes[priority].rate_ppm(now)

    def expected_of(self, priority: int, length_ns: int, now: int) -> int:
        """Return how many calls a class will want within `length_ns` from now, in parts of 10**6."""
        return self._classes[priority].expected_ppm(length_ns, now, now)

    def load(self, record: Forecast) -> None:
        """Take in what was learnt, as it was stored."""
        self._classes[record.priority] = ClassForecast(record)
        self.highest = max(self.highest, record.priority)
        self._learnt += 1

    def records(self) -> Iterator[Forecast]:
        """Return what was learnt, by class."""
        return (self._classes[priority].record for priority in sorted(self._classes))

    def pending(self) -> tuple[int, ...]:
        """Return what is counted and not yet learnt from."""
        return (self._begins, *self._counts) if self.scheduled else ()

    def _class(self, priority: int) -> ClassForecast:
        if priority not in self._classes:
            self.load(Forecast(self._subject, priority, 0, self._begins, _UNSEEN, Profile().text()))
        return self._classes[priority]

    def _expected(self, length_ns: int, at: int, now: int) -> list[int]:
        above, total = [0] * len(self._counts), 0
        for priority in reversed(PRIORITIES):
            above[priority] = total
            known = self._classes.get(priority)
            total += known.expected_ppm(length_ns, at, now) if known is not None else 0
        return above


def next_bin(now: int) -> int:
    """Return when the bin of the instant `now` ends: until then no forecast changes."""
    return now - now % BIN_NS + BIN_NS


def _next_hour(at: int) -> int:
    return at - at % HOUR + HOUR


def _hour(at: int) -> int:
    return at // HOUR % _HOURS
