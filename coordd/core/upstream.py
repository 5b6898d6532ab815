"""What upstream teaches: its limits, and what of them is left.

Owns: the limits learnt, what others are seen to use of them, and the evidence for it.
Rules: a lower limit than configured is in force from the report that tells it, and kept; a higher one is a
suggestion; told as configured again, nothing is left of it. A word of the file or of an operator that is
newer drops what was learnt. What upstream says is left only ever tightens. A reset further ahead than
`reset_max` is taken as that, and told. Which window is meant: the one of the length told, else that of
`header_window`, else the one that fits.
Must not know: header fields' syntax, who waits, gates.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from coordd.core.headers import NOT_TOLD, Headers, Told
from coordd.core.ledger import Ledger
from coordd.core.lengths import spell_length
from coordd.core.limit import Limit
from coordd.core.limits import REPORTS_BELIEVED, SECOND, WINDOW_NS_MAX
from coordd.core.outcomes import Alert, LimitLearned
from coordd.core.records import ForeignUsage, LearnedLimit, Permit, Table
from coordd.core.window import Window

# Upstreams round resets up to whole seconds.
_ROUNDED_NS: Final = SECOND


class Upstream:
    """Takes in what headers tell, endpoint by endpoint."""

    __slots__ = ("_changed_foreign", "_changed_limits", "_ledger")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed_limits = ledger.changes.of[Table.LEARNED_LIMITS]
        self._changed_foreign = ledger.changes.of[Table.FOREIGN_USAGES]

    def learn(self, limit: Limit, headers: Headers, permit: Permit | None, now: int) -> int:
        """Take in what a response tells; return how long upstream says not to call, NOT_TOLD if it does not.

        Args: permit: that of the call, settled already; None: settled before or too late, so what was left
        when it was made is no news.
        """
        limit.lessons.malformed += headers.malformed
        for window, told in _by_window(limit, headers.told):
            if told.limit > 0:
                self._learn_limit(limit, window, told.limit, now)
            if told.remaining != NOT_TOLD and permit is not None:
                held_ns = min(_reset_ns(told, headers), window.length_ns)
                self._learn_remaining(limit, window, told.remaining, permit, now, held_ns=held_ns)
        return self._pause_ns(limit, headers)

    def forget(self, limit: Limit, lengths_ns: Iterable[int]) -> None:
        """Drop what was learnt of some windows: the file, or an operator, has said something newer."""
        for length_ns in lengths_ns:
            learned = limit.lessons.limits.pop(length_ns, None)
            limit.lessons.ceilings.pop(length_ns, None)
            if learned is not None:
                self._changed_limits[(learned.subject, length_ns)] = None

    def load_limit(self, limit: Limit | None, learned: LearnedLimit) -> None:
        """Put a learnt limit in force again, unless the file says something new. Operators' changes first."""
        window = _window(limit, learned.window_ns)
        if limit is None or window is None or window.configured != learned.configured:
            self._changed_limits[(learned.subject, learned.window_ns)] = None
        else:
            limit.lessons.limits[window.length_ns] = learned
            window.limit = min(learned.value, window.configured)

    def load_foreign(self, limit: Limit | None, usage: ForeignUsage, now: int) -> None:
        """Hold again what others used."""
        window = _window(limit, usage.window_ns)
        if limit is None or window is None or usage.until <= now:
            self._changed_foreign[(usage.subject, usage.window_ns)] = None
        else:
            limit.lessons.foreign[window.length_ns] = usage
            window.hold(usage.count, usage.until, now)

    # --------------------------------------------------------------------------------------------------------

    def _learn_limit(self, limit: Limit, window: Window, value: int, now: int) -> None:
        lessons, length_ns = limit.lessons, window.length_ns
        known = lessons.limits.get(length_ns)
        if value == (known.value if known is not None else window.configured):
            return
        key = (limit.windows.name, length_ns)
        if value == window.configured:
            del lessons.limits[length_ns]
            self._changed_limits[key] = None
        else:
            learned = LearnedLimit(*key, value=value, configured=window.configured, at=now)
            lessons.limits[length_ns] = self._changed_limits[key] = learned
        window.limit = min(value, window.configured)
        # They were reckoned against another limit.
        lessons.ceilings.pop(length_ns, None)
        self._ledger.freed.append(limit.key)
        self._ledger.notices.append(
            LimitLearned(
                subject=key[0],
                window_ns=length_ns,
                value=value,
                configured=window.configured,
                is_in_force=value <= window.configured,
            )
        )

    def _learn_remaining(
        self, limit: Limit, window: Window, remaining: int, permit: Permit, now: int, *, held_ns: int
    ) -> None:
        """Reckon what others use, so that effective remaining = min(ours, upstream's - in flight).

        Upstream counted the call at some instant between its grant and now. Of our calls it then knew at
        most all that we count, those that have left since the grant included: the rest of what it counts is
        others', the floor. It need not have known those in flight: what they leave is others' at most, the
        ceiling, which a quiet moment brings down to the floor. So of the latest reports the lowest ceiling is
        believed; the latest floor at once.
        """
        window.roll(now)
        ours = window.used - window.foreign + window.left_since(permit.granted_at)
        floor = window.limit - remaining - ours
        ceilings = limit.lessons.ceilings.setdefault(window.length_ns, deque(maxlen=REPORTS_BELIEVED))
        ceilings.append(floor + min(limit.in_flight, ours))
        self._hold(limit, window, max(0, floor, min(ceilings)), now + held_ns, now)

    def _hold(self, limit: Limit, window: Window, count: int, until: int, now: int) -> None:
        key = (limit.windows.name, window.length_ns)
        if count and until > now:
            window.hold(count, until, now)
            usage = ForeignUsage(*key, count=count, until=until)
            limit.lessons.foreign[window.length_ns] = self._changed_foreign[key] = usage
        elif limit.lessons.foreign.pop(window.length_ns, None) is not None:
            window.hold(0, 0, now)
            self._changed_foreign[key] = None

    def _pause_ns(self, limit: Limit, headers: Headers) -> int:
        """Return how long upstream says to wait, clamped: Retry-After, else until an empty window resets."""
        pause_ns = headers.retry_after_ns
        if pause_ns == NOT_TOLD:
            pause_ns = max((told.reset_ns for told in headers.told if told.remaining == 0), default=NOT_TOLD)
        furthest_ns = max([headers.retry_after_ns, *(told.reset_ns for told in headers.told)])
        self._check_absurd(limit, furthest_ns)
        return min(pause_ns, limit.rule.reset_max_ns)

    def _check_absurd(self, limit: Limit, furthest_ns: int) -> None:
        if furthest_ns == NOT_TOLD:
            return
        was_absurd, max_ns = limit.lessons.is_absurd, limit.rule.reset_max_ns
        limit.lessons.is_absurd = furthest_ns > max_ns
        if limit.lessons.is_absurd and not was_absurd:
            self._ledger.notices.append(
                Alert(
                    subject=limit.windows.name,
                    detail=f"Upstream's reset is {spell_length(furthest_ns // SECOND * SECOND)} ahead; "
                    f"{spell_length(max_ns)} is believed.",
                )
            )


def _reset_ns(told: Told, headers: Headers) -> int:
    """Return when what is used comes back, from now. A reset; else, of an empty window, when to try again."""
    if told.reset_ns != NOT_TOLD:
        return told.reset_ns
    if told.remaining == 0 and headers.retry_after_ns != NOT_TOLD:
        return headers.retry_after_ns
    return WINDOW_NS_MAX


def _window(limit: Limit | None, length_ns: int) -> Window | None:
    windows = limit.windows.of if limit is not None else ()
    return next((window for window in windows if window.length_ns == length_ns), None)


def _by_window(limit: Limit, told: Iterable[Told]) -> Iterator[tuple[Window, Told]]:
    """Yield each window that upstream speaks of, with what it tells; of several, the tightest of each."""
    found: dict[int, tuple[Window, Told]] = {}
    for entry in told:
        window = _meant(limit, entry)
        if window is not None:
            known = found.get(window.length_ns)
            found[window.length_ns] = (window, entry if known is None else _tightest(known[1], entry))
    yield from found.values()


def _tightest(one: Told, other: Told) -> Told:
    limits = [entry.limit for entry in (one, other) if entry.limit > 0]
    left = [entry for entry in (one, other) if entry.remaining != NOT_TOLD]
    least = min(left, key=lambda entry: entry.remaining, default=one)
    return Told(
        limit=min(limits, default=NOT_TOLD),
        remaining=least.remaining,
        reset_ns=least.reset_ns,
        window_ns=one.window_ns,
    )


def _meant(limit: Limit, told: Told) -> Window | None:
    """Return which of our windows upstream speaks of, or None: one that we don't have."""
    length_ns = told.window_ns or limit.rule.header_window_ns
    if length_ns:
        return _window(limit, length_ns)
    reset_ns = min(told.reset_ns, limit.rule.reset_max_ns) - _ROUNDED_NS
    fitting = [window for window in limit.windows.of if window.length_ns >= reset_ns]
    return min(fitting, key=lambda window: _misfit(window, told.limit), default=None)


def _misfit(window: Window, told_limit: int) -> tuple[bool, float, int]:
    """Return how badly a window fits: best one that says just that, then the nearest, then the shortest.

    Upstream cuts a limit sooner than it raises one: so a rise counts as twice as far. Not more, for a limit
    that was raised a little must not be taken for a longer window's, which would cut that for good.
    """
    if told_limit <= 0:
        return (False, 0.0, window.length_ns)
    ratio = told_limit / window.configured
    is_known = told_limit in (window.configured, window.limit)
    return (not is_known, ratio * ratio if ratio > 1 else 1 / ratio, window.length_ns)
