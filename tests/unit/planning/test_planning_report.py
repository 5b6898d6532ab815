"""Figures, checked by hand."""

import msgspec
import pytest
from msgspec.structs import replace
from planning_desk import RULES, T0, demand, plan, run, trace

from coordd.core.limits import SECOND
from coordd.core.rules import PROPORTIONAL, LimitRule
from coordd.planning.demands import Demand
from coordd.planning.fleet import Attempt
from coordd.planning.log import Log, Use
from coordd.planning.report import Figures, figures_of, jain, percentile, shown_of
from coordd.planning.run import Plan


def figures(*demands: Demand, how: Plan | None = None) -> Figures:
    return figures_of(run(*demands, how=how), trace(*demands), RULES)


def test_totals() -> None:
    totals = figures(*[demand("permit:post", worker="*")] * 2, how=plan(2, wait_s=0)).totals
    assert (totals.demands, totals.workers, totals.attempts) == (2, 2, 4)
    assert (totals.granted, totals.refused, totals.unended) == (3, 1, 0)
    assert (totals.begins, totals.seconds) == ("2020-09-13T12:26:40Z", 1.0)


def test_waits_by_class_highest_first() -> None:
    low, high = demand("units:file:a", priority="low"), demand("units:file:a", priority="high", worker="b")
    done = demand("lock:reply:t", priority="low")
    refused = demand("lock:reply:t", at_s=9, priority="critical")
    rows = figures(low, high, done, refused, how=plan(service_s=4)).waits
    assert [(row.priority, row.attempts, row.granted) for row in rows] == [
        ("critical", 1, 0),
        ("high", 1, 1),
        ("low", 2, 2),
    ]
    assert [row.p50_s for row in rows] == [None, 4.0, 0.0]
    assert [row.max_s for row in rows] == [None, 4.0, 0.0]


def test_percentiles_are_by_nearest_rank() -> None:
    ordered = list(range(1, 101))
    assert [percentile(ordered, percent) for percent in (0, 1, 50, 90, 99, 100)] == [1, 1, 50, 90, 99, 100]
    assert [percentile([7], percent) for percent in (0, 50, 100)] == [7, 7, 7]
    assert percentile([1, 2], 51) == 2


def test_jain() -> None:
    assert jain([3, 3, 3]) == 1.0
    assert jain([6, 0, 0]) == pytest.approx(1 / 3, abs=1e-4)
    assert jain([0, 0]) is None
    assert jain([]) is None


def test_fairness_goes_by_weight() -> None:
    demands = [demand("units:content", worker=worker) for worker in ("heavy", "heavy", "light")]
    each = figures(*demands)
    assert each.jain == 1.0
    assert each.resources[0].jain == 1.0
    assert [(share.worker, share.weight, share.granted) for share in each.workers] == [
        ("heavy", 2.0, 2),
        ("light", 1.0, 1),
    ]


def test_what_the_daemon_shares_fairly_is_shared_by_weight() -> None:
    post = LimitRule(windows={100 * SECOND: 30}, is_fair=True, share=PROPORTIONAL, use_within_ns=SECOND)
    rules = replace(RULES, limits={"post": post})
    # Far more than there is, from the start to the end.
    demands = [demand("permit:post", worker=worker) for worker in ("light", "heavy") * 400]
    log = run(*demands, rules=rules, how=plan(wait_s=900))
    [resource] = figures_of(log, trace(*demands), rules).resources
    assert resource.jain is not None
    assert resource.jain >= 0.99
    assert resource.windows[0].utilisation_waited is not None
    assert resource.windows[0].utilisation_waited >= 0.98


def test_workers_are_in_the_order_of_their_numbers() -> None:
    demands = [demand("units:file:a", worker=worker) for worker in ("w10", "w2", "bot", "w1")]
    assert [share.worker for share in figures(*demands).workers] == ["bot", "w1", "w2", "w10"]


def a_log(*uses: Use, seconds: int, queue: list[tuple[int, int]] | None = None) -> Figures:
    """Figures of a log of the pool or limit `post` in which nothing else has happened."""
    log = Log(attempts=[Attempt(demand("permit:post"), "w1")], begun_at=T0, ended_at=T0 + seconds * SECOND)
    log.uses["limit", "post"] = list(uses)
    log.queues["limit", "post"] = queue or []
    return figures_of(log, trace(demand("permit:post")), RULES)


def used(count: int, at_s: int, *, is_used: bool = True) -> Use:
    return Use("w1", count, T0 + at_s * SECOND, T0 + (at_s + 1) * SECOND, is_used)


def test_utilisation_is_calls_in_the_window_over_time() -> None:
    [post] = a_log(used(3, 0), used(1, 50), used(2, 60, is_used=False), seconds=200).resources
    short, long = post.windows
    # 3 for 100 s and 1 for another 100 s, of 3 and of 9.
    assert (short.window, short.limit, short.peak, short.utilisation) == ("1m40s", 3, 4, round(400 / 600, 4))
    assert (long.window, long.limit, long.peak) == ("8m20s", 9, 4)
    assert long.utilisation == round((3 * 200 + 150) / 1800, 4)
    assert (post.used, post.unused, short.utilisation_waited, post.waited_s) == (4, 2, None, 0)


def test_utilisation_while_anybody_waited() -> None:
    queue = [(T0 + 50 * SECOND, 2), (T0 + 150 * SECOND, -2)]
    [post] = a_log(used(3, 0), seconds=200, queue=queue).resources
    assert (post.windows[0].utilisation_waited, post.waited_s) == (0.5, 100.0)


def test_held_units() -> None:
    [pipeline] = figures(*[demand("units:content::2", worker=name) for name in "ab"]).resources
    [held] = pipeline.windows
    assert (pipeline.name, pipeline.is_pool, pipeline.used) == ("pipeline", True, 4)
    assert (held.window, held.limit, held.peak) == ("", 3, 2)
    assert held.utilisation == held.utilisation_waited or held.utilisation_waited == round(2 / 3, 4)


def test_refusals_the_most_frequent_first() -> None:
    demands = [demand("permit:post:3")] + [demand("permit:post")] * 2 + [demand("lock:analysis:t")] * 2
    rows = figures(*demands, how=plan(wait_s=0)).refusals
    assert [(row.reason, row.what, row.count) for row in rows] == [
        ("WINDOW_FULL", "permit:post", 2),
        ("HELD", "lock:analysis", 1),
    ]


def test_who_waited_when() -> None:
    demands = [demand("units:file:a", worker=name) for name in "abc"]
    each = figures(*demands, how=plan(service_s=10))
    assert (each.waiting.max, each.waiting.max_at_s, each.waiting.mean) == (2, 0.0, 1.0)
    series = each.series
    assert series.from_s == 0.0
    assert series.waiting[0] == 2
    assert len(series.waiting) <= 240
    assert series.quantiles_s["medium"][0] == 0
    assert series.quantiles_s["medium"][100] == 20.0


def test_curves_leave_silent_years_out() -> None:
    year = 365 * 86_400
    demands = [demand("units:file:a", at_s=at, worker=name) for at in (0, year, 2 * year) for name in "ab"]
    demands += [demand("units:file:a", at_s=year, worker=f"c{number}") for number in range(9)]
    demands.sort(key=lambda each: each.at_ns)
    log = run(*demands)
    begin, end = shown_of(log)
    assert abs((begin - T0) / SECOND - year) < 5
    assert end - begin < 20 * SECOND


def test_a_run_without_waits_is_shown_whole() -> None:
    log = run(demand("permit:post"))
    assert shown_of(log) == (T0, T0 + SECOND)
    each = figures_of(log, trace(demand("permit:post")), RULES)
    assert (each.waiting.max, each.waiting.mean) == (0, 0)
    assert set(each.series.fill) == {"post 1m40s", "post 8m20s"}


def test_a_run_that_takes_no_time() -> None:
    each = figures(demand("permit:post"), how=plan(service_s=0))
    assert (each.totals.seconds, len(each.series.waiting), each.jain) == (0.0, 1, 1.0)


def test_figures_are_json_and_the_same_each_time() -> None:
    demands = [demand(f"lock:reply:{n % 5} > permit:post", at_s=n, worker="*") for n in range(30)]
    first, second = (msgspec.json.encode(figures(*demands, how=plan(4))) for _ in range(2))
    assert first == second
