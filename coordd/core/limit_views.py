"""How full windows are, and what of them workers may count on, as told to those who ask.

Must not know: decisions; none depends on this.
"""

from collections.abc import Iterator

from coordd.core.allocations import Allocations, undivided
from coordd.core.limit import Limit
from coordd.core.rules import LimitRule
from coordd.core.views import AllocationView, ForecastView, GateView, LimitView, WindowView
from coordd.core.windows import Windows


def limit_view(limit: Limit, now: int, *, queued: int, gate: GateView) -> LimitView:
    """Return how full an endpoint's windows are."""
    return LimitView(
        name=limit.name,
        windows=window_views(limit.windows, now),
        is_fair=limit.rule.is_fair,
        use_within_ns=limit.rule.use_within_ns,
        claim_window_ns=limit.rule.claim_window_ns,
        queued=queued,
        bookings=len(limit.windows.bookings),
        active_workers=(
            len(limit.shares.active()) if limit.shares is not None else len(limit.windows.of[0].workers())
        ),
        violations=limit.violations,
        is_overridden=is_overridden(limit.windows, limit.rule),
        gate=gate,
        learned=tuple(learned for _, learned in sorted(limit.lessons.limits.items())),
        malformed_headers=limit.lessons.malformed,
        forecasts=tuple(_forecast_views(limit, now)),
        scheduling_error_ns=limit.promises.error_ns,
    )


def allocation(limit: Limit, worker: str, now: int) -> AllocationView:
    """Return a worker's part of each window: of a fair limit by max-min, else all of it."""
    if limit.shares is None:
        return undivided(limit.windows, worker, now)
    kept = limit.allocations
    if kept is None or not kept.is_good_for(worker, now):
        kept = Allocations(limit.shares, limit.windows, now, worker)
        if kept.is_worth_keeping:
            limit.allocations = kept
    return kept.of(worker)


def allocations(limit: Limit, now: int, *, after: str, count: int) -> list[AllocationView]:
    """Return the parts of `count` of the workers that share an endpoint now, by name, `after` one."""
    if limit.shares is None:
        return []
    allocations = Allocations(limit.shares, limit.windows, now)
    workers = [sharer.worker for sharer in allocations.sharers if sharer.worker > after]
    return [allocations.of(worker) for worker in workers[:count]]


def window_views(windows: Windows, now: int) -> tuple[WindowView, ...]:
    """Return how full each window is for whoever takes permits now, room for bookings left."""
    windows.roll(now)
    return tuple(
        WindowView(
            length_ns=window.length_ns,
            limit=window.limit,
            used=window.limit - window.room(windows.use_within_ns, now),
            resets_at=window.resets_at(now),
        )
        for window in windows.of
    )


def is_overridden(windows: Windows, rule: LimitRule) -> bool:
    """Whether an operator has changed a limit from what the configuration says."""
    return any(rule.windows[window.length_ns] != window.configured for window in windows.of)


def _forecast_views(limit: Limit, now: int) -> Iterator[ForecastView]:
    """Yield what each class is expected to want; the windows are rolled."""
    if limit.forecasts is None or limit.headroom is None:
        return
    fullest = max(limit.windows.of, key=lambda window: window.used / window.limit)
    for priority, rate_ppm in limit.forecasts.rates(now):
        kept = limit.headroom.kept_for(priority, fullest, now)
        yield ForecastView(priority=priority, rate_ppm=rate_ppm, kept=kept)
