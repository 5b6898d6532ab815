"""Counting: what a copy says, and that it is one."""

import structlog

from coordd.core.limits import MILLISECOND, SECOND
from coordd.engine import Commit
from coordd.telemetry.commit_times import CommitTimes
from coordd.telemetry.instruments import Counter, Histogram, Level, Metric

COUNTED = Metric(name="coordd_things_total", kind="counter", help="Things.", labels=("kind",))
LEVEL = Metric(name="coordd_level", kind="gauge", help="A level.", labels=("kind",))
TIMES = Metric(
    name="coordd_times_seconds",
    kind="histogram",
    help="Times.",
    labels=("kind",),
    bounds=(0.1, 1),
    scale=SECOND,
)


def shown(copy: object) -> dict[str, float]:
    assert callable(copy)
    return {f"{sample.name} {','.join(sample.labels.values())}": sample.value for sample in copy().samples}


def test_a_counter_counts_by_labels_and_shows_what_is_known_at_once() -> None:
    counter = Counter(COUNTED, ("a",))
    counter.add("b")
    counter.add("b")
    assert shown(counter.copy()) == {"coordd_things_total a": 0, "coordd_things_total b": 2}


def test_a_level_rises_and_falls() -> None:
    level = Level(LEVEL)
    level.add(3, "a")
    level.add(-1, "a")
    assert shown(level.copy()) == {"coordd_level a": 2}


def test_a_value_counts_in_every_bucket_that_it_is_not_above() -> None:
    histogram = Histogram(TIMES)
    for value in (SECOND // 10, SECOND // 10 + 1, 5 * SECOND):
        histogram.observe(value, "a")
    assert shown(histogram.copy()) == {
        "coordd_times_seconds_bucket a,0.1": 1,
        "coordd_times_seconds_bucket a,1.0": 2,
        "coordd_times_seconds_bucket a,+Inf": 3,
        "coordd_times_seconds_count a": 3,
        "coordd_times_seconds_sum a": 5.200000001,
    }


def test_a_copy_does_not_change() -> None:
    histogram, counter = Histogram(TIMES), Counter(COUNTED)
    histogram.observe(1, "a")
    counter.add("a")
    copies = histogram.copy(), counter.copy()
    before = [shown(copy) for copy in copies]
    histogram.observe(1, "a")
    histogram.observe(1, "b")
    counter.add("b")
    assert [shown(copy) for copy in copies] == before


def test_a_slow_commit_is_warned_of() -> None:
    slow = Commit(sequence=1, commands=2, records=3, began_at=0, ended_at=50 * MILLISECOND)
    with structlog.testing.capture_logs() as logs:
        for slow_ns in (0, 50 * MILLISECOND, 50 * MILLISECOND - 1):
            CommitTimes(slow_ns, "blue").committed(slow)
    [line] = logs
    assert (line["event"], line["namespace"], line["ms"]) == ("slow commit", "blue", 50)
    assert (line["commands"], line["records"]) == (2, 3)
