"""Formats of traces, and what is said about lines that are wrong."""

import json
from pathlib import Path

import pytest
from planning_desk import ROOT, RULES, trace_of

from coordd.config import load
from coordd.core.limits import SECOND
from coordd.core.rules import HIGH, MEDIUM
from coordd.planning.demands import ANY_WORKER, EVERY_WORKER, LockClaim, PermitClaim
from coordd.planning.trace import TraceError, read_trace


def problems(tmp_path: Path, text: str) -> list[str]:
    """What is said about the trace, without the name of the file."""
    with pytest.raises(TraceError) as refused:
        trace_of(tmp_path, text)
    return [problem.replace(f"{tmp_path}/trace.csv", "T") for problem in refused.value.problems]


def test_csv_with_every_column(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path,
        "priority,time,hold,worker,what,count,units,class\n"
        "HIGH,2017-10-31T22:00:00.25Z,1m30s,bot-1,permit:post,2,,small\n"
        ",2017-10-31T23:00:00+01:00,,*,lock:reply:t,,,\n",
    )
    assert trace.is_dated
    # Put in order: the second is a quarter of a second earlier.
    assert trace.unordered == 1
    every, first = trace.demands
    assert (every.line, every.worker, every.priority, every.hold_ns) == (3, EVERY_WORKER, MEDIUM, None)
    assert (first.line, first.worker, first.priority, first.hold_ns) == (2, "bot-1", HIGH, 90 * SECOND)
    assert (first.worker_class, every.worker_class) == ("small", "")
    assert first.at_ns - every.at_ns == SECOND // 4
    assert first.steps == ((PermitClaim("post", 2),),)


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"time": 0, "what": "permit:post", "count": 3},
        {"time": "1.5", "what": "permit:post", "worker": "w9", "priority": "low", "hold": None},
    ]
    trace = trace_of(tmp_path, "\n\n".join(map(json.dumps, lines)))
    first, second = trace.demands
    assert not trace.is_dated
    assert (first.worker, first.steps, first.line) == (ANY_WORKER, ((PermitClaim("post", 3),),), 1)
    assert (second.at_ns - first.at_ns, second.line) == (SECOND * 3 // 2, 3)


def test_those_of_the_same_time_stay_as_they_are(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "time,what,worker\n1,permit:post,b\n1,permit:post,a\n0,permit:post,c\n")
    assert [demand.worker for demand in trace.demands] == ["c", "b", "a"]


def test_a_byte_order_mark_blanks_and_empty_lines(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "\ufefftime, what\r\n\r\n1, permit:post \r\n")
    assert len(trace.demands) == 1


def test_support_tweets_as_they_are() -> None:
    rules = load(ROOT / "examples/glitchbot.toml", {}).rules()
    trace = read_trace(ROOT / "examples/support_tweets.csv", rules)
    assert (len(trace.demands), trace.unordered) == (2_778, 0)
    first = trace.demands[0]
    assert first.worker == EVERY_WORKER
    assert {type(claim) for step in first.steps for claim in step} == {LockClaim, PermitClaim}
    assert LockClaim("reply", "tweet:348") in [claim for step in first.steps for claim in step]


def test_every_wrong_line_is_told_with_its_number(tmp_path: Path) -> None:
    text = (
        "time,worker,what,priority,count,hold\n"
        "noon,w1,permit:post,,,\n"
        "0,w1,permit:past,,,\n"
        "0,w1,permit:post,urgent,,\n"
        "0,w1,permit:post,,0,\n"
        "0,w1,permit:post,,,1x\n"
        "0,w1,permit:post,,,13h\n"
        "0,w1\n"
        "0,w1,,,,\n"
        ",w1,permit:post,,,\n"
        "2017-10-31T22:00:00Z,w1,permit:post,,,\n"
        "-1,w1,permit:post,,,\n"
        "0,w\x00,permit:post,,,\n"
        "0,w1,permit:post,,,\n"
    )
    assert problems(tmp_path, text) == [
        "T:2: time 'noon' is neither RFC 3339, as 2017-10-31T22:00:00Z, nor seconds from 0 on",
        "T:3: the endpoint 'past' is not configured; there are: post",
        "T:4: priority 'urgent' is none of low, medium, high, critical",
        "T:5: count '0' is not a number from 1 to 1000000000",
        'T:6: \'1x\' is not a length of time; write for instance "250ms", "30s", "1h30m" or "1d"',
        "T:7: hold 13h is longer than 12h",
        "T:8: has 2 columns, and the header 6",
        "T:9: 'what' is missing",
        "T:10: 'time' is missing",
        "T:11: time '2017-10-31T22:00:00Z' is of another form than those before",
        "T:12: time '-1' is neither RFC 3339, as 2017-10-31T22:00:00Z, nor seconds from 0 on",
        "T:13: a worker has to be 1..128 bytes of printable text",
    ]


def test_after_twenty_problems_it_stops(tmp_path: Path) -> None:
    told = problems(tmp_path, "time,what\n" + "0,permit:past\n" * 1_000)
    assert len(told) == 21
    assert told[-1] == "T: there may be more; these are the first 20"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "T: has no demands"),
        ("time,what,class\n0,permit:post,big\n", "T:2: class goes with a named worker only"),
        (
            "time,what,worker,class\n0,permit:post,w1,big\n",
            "T:2: the worker class 'big' is not configured; there are: small",
        ),
        ("time,what\n", "T: has no demands"),
        ("when,what\n0,permit:post\n", "T:1: the header has no column 'time'"),
        ("time,what,colour\n0,permit:post,\n", "T:1: unknown field 'colour'; there are: time, worker, what"),
        ("time,what,time\n0,permit:post,1\n", "T:1: the header names a column twice"),
        ('{"time": 0}\n', "T:1: 'what' is missing"),
        ('{"time": 0, "what": "permit:post"}\n[1]\n', "T:2: is not a JSON object"),
        ('{"time": 0, "what": "permit:post"\n', "T:1: is not JSON"),
        ('{"time": 0, "what": ["permit:post"]}\n', "T:1: what ['permit:post'] is not a text"),
        ('{"time": true, "what": "permit:post"}\n', "T:1: time True is neither"),
        ('{"time": 1e99, "what": "permit:post"}\n', "T:1: time 1e+99 is neither"),
        ('{"time": 0, "what": "permit:post", "wat": 1}\n', "T:1: unknown field 'wat'"),
        ("time,what\n1969-12-31T00:00:00Z,permit:post\n", "is before 1970-01-02"),
        ("time,what\n2017-13-31T00:00:00Z,permit:post\n", "T:2: month must be in 1..12"),
        ("created_at,tweet_id,author,role,in_reply_to\nx,1,a,customer,\n", "T:2: time 'x' is neither"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, told: str) -> None:
    [problem] = problems(tmp_path, text)
    assert told in problem


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="can't be read: No such file"):
        read_trace(tmp_path / "none.csv", RULES)
    (tmp_path / "bytes.csv").write_bytes(b"time,what\n\xff\xfe\n")
    with pytest.raises(TraceError, match="is not UTF-8"):
        read_trace(tmp_path / "bytes.csv", RULES)
