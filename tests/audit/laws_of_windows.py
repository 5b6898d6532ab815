"""The laws of windows, by brute force (semantics 1.4, 5).

Rule: where a restart has set the daemon's clock ahead, what was before leaves early. Calls count then only if
they are near by its clock, too.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from audit import history as h
from audit.grants import Grant, Grants, is_sure, may_have_worked
from audit.timeline import NEVER, Run
from audit.violation import Violation

# -- what upstream counts ------------------------------------------------------------------------------------


def windows_hold(grants: Grants) -> Iterator[Violation]:
    """5.3: in no rolling window does upstream count more than its limit, at each call that comes to it.

    Calls that came after their permit's time are their makers' fault.
    """
    arrivals: dict[tuple[str, str], list[h.Arrived]] = defaultdict(list)
    for arrived in grants.history.of(h.Arrived):
        if _is_in_time(grants, arrived):
            arrivals[arrived.of, arrived.name].append(arrived)
    for (of, name), calls in arrivals.items():
        for length in _lengths(grants, of, name):
            yield from _window(grants, of, name, length, calls)


def _is_in_time(grants: Grants, arrived: h.Arrived) -> bool:
    grant = grants.by_id.get(arrived.id)
    if grant is None:
        return False
    return arrived.at <= grant.low + grant.held.daemon_until - grant.held.daemon_granted_at


def _window(grants: Grants, of: str, name: str, length: int, calls: list[h.Arrived]) -> Iterator[Violation]:
    times = [call.at for call in calls]
    totals = [0, *accumulate(call.calls for call in calls)]
    for index, call in enumerate(calls):
        first = bisect_left(times, call.at - length + 1)
        most = _limit_most(grants, of, name, length, call.at)
        if totals[index + 1] - totals[first] <= most:
            continue
        near = [each for each in calls[first : index + 1] if _is_near(grants, each, call, length)]
        if (count := sum(each.calls for each in near)) > most:
            text = f"{name}: {count} calls came within {length} ns, where {most} may"
            yield Violation(call.at, "windows hold", text)


def _is_near(grants: Grants, earlier: h.Arrived, later: h.Arrived, length: int) -> bool:
    """Return whether two calls that truly are within `length` are so by the daemon's clock, too."""
    runs = grants.timeline.runs
    first, second = _run(runs, earlier.at), _run(runs, later.at)
    if first is None or second is None or first.offset is None or second.offset is None:
        return first is second and first is not None
    charged = min(earlier.at + first.offset[1], grants.by_id[earlier.id].held.daemon_until)
    return later.at + second.offset[1] - charged < length


def _run(runs: list[Run], at: int) -> Run | None:
    """Return the run that was there then, or was the last."""
    return next((run for run in reversed(runs) if run.start <= at), None)


# -- what it might count -------------------------------------------------------------------------------------


def permits_fit(grants: Grants) -> Iterator[Violation]:
    """5.2, 5.3, 5.4: each permit leaves room for all before it that may still be used within its windows.

    Told by the daemon's own clock, by which it has to reckon: a permit counts at its report or, while there
    is none, at its latest possible use. So this is sharper than whatever calls happen to come.
    """
    by_name: dict[tuple[str, str], list[Grant]] = defaultdict(list)
    for grant in [*grants.of(h.Permit), *grants.of(h.Reservation)]:
        if isinstance(grant.held, h.Permit):
            by_name["limit", grant.held.endpoint].append(grant)
        elif isinstance(grant.held, h.Reservation) and not grant.is_renewable:
            by_name["pool", grant.held.pool].append(grant)
    for (of, name), granted in by_name.items():
        uses = [(each, _last_use(grants, each)) for each in granted]
        for length in _lengths(grants, of, name):
            yield from _fit(grants, of, name, length, uses)


def _fit(
    grants: Grants, of: str, name: str, length: int, uses: list[tuple[Grant, int]]
) -> Iterator[Violation]:
    counted: list[tuple[int, Grant]] = []
    for grant, use in uses:
        now = grant.held.daemon_granted_at
        counted = [each for each in counted if each[0] > now - length]
        used = sum(_count(each) for _, each in counted) + _count(grant)
        if used > _limit_most(grants, of, name, length, grant.high):
            text = f"{name}: with {grant.id} {used} calls may come within {length} ns"
            yield Violation(grant.told, "permits fit", text)
        counted.append((use, grant))


def _count(grant: Grant) -> int:
    return 0 if isinstance(grant.held, h.Lock) else _amount(grant.held)


def _amount(held: h.Permit | h.Reservation) -> int:
    return held.permits if isinstance(held, h.Permit) else held.units


def _last_use(grants: Grants, grant: Grant) -> int:
    """Return when, by the daemon's clock, the permit counts at least; 0: it may have been given back."""
    if isinstance(grant.held, h.Reservation):
        return 0 if grant.ended_by else grant.held.daemon_until
    least, settled = grant.held.daemon_until, False
    for operation, usage in grants.reports.get(grant.id, ()):
        if (
            settled
            or not may_have_worked(operation)
            or usage.result not in {"SUCCESS", "FAILURE", "NOT_SENT"}
        ):
            continue
        if usage.result == "NOT_SENT":
            return 0
        least = min(least, _daemon_least(grants, operation.called_at, grant))
        settled = is_sure(operation) and not isinstance(operation.answer, h.Failed)
    return least


def _daemon_least(grants: Grants, at: int, grant: Grant) -> int:
    """Return what the daemon's clock shows at the least for something that is done no earlier than `at`."""
    later = [run for run in grants.timeline.runs if run.end >= at]
    if not later or any(run.offset is None for run in later):
        return grant.held.daemon_granted_at
    return min(max(at, run.start) + (run.offset or (0, 0))[0] for run in later)


# -- limits --------------------------------------------------------------------------------------------------


def _lengths(grants: Grants, of: str, name: str) -> set[int]:
    """Return the windows that were always there; what a new one begins with is another matter (14.4)."""
    found = [set(_windows(world, of, name)) for world in grants.timeline.worlds()]
    return set.intersection(*found) if found else set()


def _windows(world: h.World, of: str, name: str) -> dict[int, int]:
    rule = world.limits.get(name.partition("@")[0]) if of == "limit" else world.pools.get(name)
    return rule.windows if rule else {}


def _limit_most(grants: Grants, of: str, name: str, length: int, at: int) -> int:
    """Return what the window allowed at most, at any time within it."""
    runs = [run for run in grants.timeline.runs if run.start <= at]
    # While the daemon is down, its last word counts.
    known = [run for run in runs if run.end > at - length] or runs[-1:]
    found = [_windows(run.world, of, name).get(length, 0) for run in known]
    for each in grants.changes:
        ask = each.ask
        if each.called_at <= at and isinstance(ask, h.SetLimit if of == "limit" else h.SetPool):
            own = ask.endpoint if isinstance(ask, h.SetLimit) else ask.pool
            found.append(ask.windows.get(length, 0) if own == name else 0)
    return max(found, default=NEVER)
