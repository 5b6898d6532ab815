"""The demo, shortened, as a user runs it; and its checks, which must be able to fail."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from examples.demo import audit
from examples.demo.journal import Entry, Event, Journal, read_journal
from examples.demo.settings import POST_PATH, WINDOWS, daemon_config, upstream_limits
from examples.demo.turns import Turns
from examples.demo.tweets import GAP_S_MAX, Tweet, compressed, load_tweets
from examples.demo.upstream import create_app

ROOT = Path(__file__).parents[2]
TWEETS = 260
DEMO = [sys.executable, "-m", "examples.demo", "--tweets", str(TWEETS)]

FIGURES = [
    "tweets",
    "replies",
    "duplicates",
    "upstream_429",
    "unknown",
    "lock_wait_ms",
    "permit_wait_ms",
    "utilisation",
    "seconds",
]


# Longer than the demo gives itself.
@pytest.mark.timeout(240)
def test_every_tweet_is_answered_once_though_a_worker_and_the_daemon_are_killed(tmp_path: Path) -> None:
    command = [*DEMO, "--workers", "3", "--keep", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert list(figures) == FIGURES
    assert figures["tweets"] == TWEETS
    assert figures["duplicates"] == 0
    assert figures["upstream_429"] == 0
    # The killed worker's one tweet: upstream has the reply, the daemon can't know.
    assert figures["unknown"] == 1
    assert figures["replies"] == TWEETS
    # More tweets than the shortest window allows at once: permits were waited for, by a bundle a worker,
    # which is about one in a hundred.
    assert figures["permit_wait_ms"]["p99"] > 100
    assert 0 < figures["utilisation"] <= 1
    # Its replacement was offered every tweet.
    assert (tmp_path / "w1b.jsonl").exists()


# Longer than the demo gives itself.
@pytest.mark.timeout(240)
def test_with_two_classes_both_are_answered() -> None:
    run = subprocess.run([*DEMO, "--classes"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert [figures[key] for key in ("tweets", "duplicates", "upstream_429")] == [TWEETS, 0, 0]
    by_class = [figures[f"{name}_wait_ms"]["replies"] for name in ("critical", "low")]
    assert min(by_class) > 0
    # The killed worker had several in hand; of some it had not yet said that it answers them.
    assert sum(by_class) + figures["unknown"] >= TWEETS
    assert figures["critical_to_low"] > 0


@pytest.mark.timeout(60)
def test_nothing_is_left_running_when_it_is_stopped() -> None:
    with subprocess.Popen(DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        while "workers" not in run.stderr.readline():
            assert run.poll() is None
        children = psutil.Process(run.pid).children(recursive=True)
        run.terminate()
        run.communicate()

    assert run.returncode == 130
    assert children
    assert not [child for child in children if child.is_running()]


# ---- upstream


def test_upstream_refuses_and_counts_what_is_over_its_limit() -> None:
    client = create_app("3 per 60 second").test_client()
    replies = [client.post(POST_PATH, json={"in_reply_to": str(n), "worker": "w"}) for n in range(5)]

    assert [reply.status_code for reply in replies] == [201, 201, 201, 429, 429]
    assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0", "0"]
    assert client.get("/counts").json == {"accepted": 3, "duplicates": 0, "refused_429": 2}


def test_upstream_counts_second_replies_to_a_tweet() -> None:
    client = create_app("9 per 60 second").test_client()
    for worker in ("w1", "w2"):
        client.post(POST_PATH, json={"in_reply_to": "7", "worker": worker})

    assert client.get("/counts").json == {"accepted": 2, "duplicates": 1, "refused_429": 0}
    log = client.get("/log").json
    assert log is not None
    assert [entry[1:] for entry in log] == [["7", "w1", 201], ["7", "w2", 201]]


def test_upstream_has_the_windows_that_the_daemon_has() -> None:
    config = daemon_config("x.db")
    for window_s, limit in WINDOWS.items():
        assert f'"{window_s}s" = {limit}' in config
        assert f"{limit} per {window_s} second" in upstream_limits()


# ---- the audit

TWO = [Tweet("1", 0.0), Tweet("2", 1.0)]
ARRIVALS = [audit.Arrival(10.0, "1", "w1", 201), audit.Arrival(11.0, "2", "w2", 201)]
JOURNAL = [
    Entry(Event.POSTING, "1", 10.0),
    Entry(Event.ANSWERED, "1", 10.1),
    Entry(Event.POSTING, "2", 11.0),
    Entry(Event.ANSWERED, "2", 11.1),
]
HISTORY = audit.History(successful=2, unknown=0, leftover={})


def test_a_clean_run_has_no_problems() -> None:
    verdict = audit.judge(TWO, ARRIVALS, JOURNAL, HISTORY)

    assert verdict == audit.Verdict(answered=frozenset("12"), unknown=frozenset(), problems=())


@pytest.mark.parametrize("arrivals", [ARRIVALS, ARRIVALS[:1]], ids=["it had posted", "it had not"])
def test_a_killed_holders_tweet_is_unknown_whether_it_had_posted_or_not(
    arrivals: Sequence[audit.Arrival],
) -> None:
    history = audit.History(successful=1, unknown=1, leftover={"2": "UNKNOWN"})
    verdict = audit.judge(TWO, arrivals, JOURNAL[:3], history)

    assert verdict == audit.Verdict(answered=frozenset("1"), unknown=frozenset("2"), problems=())


def test_a_worker_killed_after_its_release_has_answered() -> None:
    verdict = audit.judge(TWO, ARRIVALS, JOURNAL[:3], replace(HISTORY, leftover={"2": "DONE"}))

    assert verdict == audit.Verdict(answered=frozenset("12"), unknown=frozenset(), problems=())


@pytest.mark.parametrize(
    ("arrivals", "journal", "history", "problem"),
    [
        ([*ARRIVALS, ARRIVALS[0]], JOURNAL, HISTORY, "tweet 1: answered 2 times"),
        (ARRIVALS[:1], JOURNAL, HISTORY, "tweet 2: said to be answered, but upstream has no reply"),
        (ARRIVALS, JOURNAL[:2], replace(HISTORY, leftover={"2": "DONE"}), "no worker's journal has"),
        (
            ARRIVALS[:1],
            JOURNAL[:2],
            replace(HISTORY, leftover={"2": "FREE"}),
            "tweet 2: neither answered nor",
        ),
        ([*ARRIVALS, audit.Arrival(12.0, "3", "w", 201)], JOURNAL, HISTORY, "no customer's tweet"),
        ([*ARRIVALS, audit.Arrival(12.0, "2", "w", 429)], JOURNAL, HISTORY, "tweet 2: upstream answered 429"),
        (ARRIVALS, JOURNAL, replace(HISTORY, successful=1), "answered: 2 counted, 1 in GetEngagementStats"),
        (ARRIVALS, JOURNAL, replace(HISTORY, unknown=1), "unknown: 0 counted, 1 in GetEngagementStats"),
    ],
)
def test_what_should_not_be_is_found(
    arrivals: Sequence[audit.Arrival], journal: Sequence[Entry], history: audit.History, problem: str
) -> None:
    problems = audit.judge(TWO, arrivals, journal, history).problems

    assert [found for found in problems if problem in found]


def test_utilisation_is_the_mean_fill_while_there_is_demand() -> None:
    # 2 calls per 10 s: one at 0 s, the next at 5 s, though it might have come at once. So half the window was
    # lost for 5 s, and again from 10 s to 12 s, when the first had left it and the third did not come.
    used = audit.utilisation([0.0, 0.0, 0.0], [0.0, 5.0, 12.0], (10, 2), backlog_min=1, down=(4.0, 5.0))

    assert used.demand_s == 12.0
    assert used.fill == pytest.approx((5 * 0.5 + 5 * 1.0 + 2 * 0.5) / 12)
    # Without the second in which the daemon was dead, in which half was lost too.
    assert used.fill_up == pytest.approx((4 * 0.5 + 5 * 1.0 + 2 * 0.5) / 11)
    assert used.peak == 2


def test_utilisation_does_not_count_time_without_demand() -> None:
    used = audit.utilisation([0.0, 100.0], [0.0, 100.0], (10, 1), backlog_min=1, down=(50.0, 51.0))

    assert (used.demand_s, used.fill) == (0.0, 0.0)


def test_a_perfect_caller_calls_the_moment_every_window_allows_it() -> None:
    # 2 per 4 s, 3 per 16 s: calls at 0, 0, 4, 16, 16, and 20 s.
    assert audit.ideal_finish_s([0.0] * 4, {4: 2, 16: 3}) == 16.0
    assert audit.ideal_finish_s([0.0] * 6, {4: 2, 16: 3}) == 20.0
    assert audit.ideal_finish_s([0.0, 30.0], {4: 2, 16: 3}) == 30.0


def test_percentiles_are_of_nearest_rank() -> None:
    assert audit.percentiles([float(n) for n in range(1, 201)]) == {"p50": 100.0, "p99": 198.0}
    assert audit.percentiles([]) == {"p50": 0.0, "p99": 0.0}


# ---- input and journals


def test_the_input_is_in_order_and_its_idle_gaps_are_cut() -> None:
    tweets = load_tweets()
    gaps = [later.arrives_s - earlier.arrives_s for earlier, later in pairwise(tweets)]

    assert len(tweets) == len({tweet.tweet_id for tweet in tweets}) == 2778
    assert min(gaps) >= 0
    assert max(gaps) == pytest.approx(GAP_S_MAX)
    assert [tweet.tweet_id for tweet in load_tweets(3)] == [tweet.tweet_id for tweet in tweets[-3:]]
    assert compressed([0.0, 36.0, 1e9]) == pytest.approx([0.0, 0.01, 0.01 + GAP_S_MAX])


def test_who_insists_is_urgent() -> None:
    tweets = load_tweets()
    urgent = [tweet.tweet_id for tweet in tweets if tweet.is_urgent]

    assert len(urgent) == 701
    # Also where only the end of the data is replayed.
    assert [tweet.tweet_id for tweet in load_tweets(500) if tweet.is_urgent] == [
        tweet.tweet_id for tweet in tweets[-500:] if tweet.is_urgent
    ]


async def test_turns_are_urgent_ones_first_and_second_looks_when_they_are_due() -> None:
    tweets = [Tweet("1", -2.0), Tweet("2", -1.0, is_urgent=True), Tweet("3", -1.0)]
    turns = Turns(tweets, start_s=time.time(), is_by_class=True)
    taken = [await turns.next() for _ in tweets]

    assert taken[0] == tweets[1]
    assert {tweet.tweet_id for tweet in taken if tweet} == {"1", "2", "3"}
    assert await turns.next() is None
    turns.look_again(tweets[0])
    assert await turns.next() == tweets[0]


def test_a_line_that_a_kill_cut_short_is_left_out_of_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "w1.jsonl"
    before_s = time.time()
    with Journal(path) as journal:
        journal.write(Event.POSTING, "1", lock_wait_s=0.001, permit_wait_s=0.002)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"event": "answered", "twe')

    (entry,) = read_journal(path)
    assert (entry.event, entry.lock_wait_ms, entry.permit_wait_ms) == (Event.POSTING, 1.0, 2.0)
    assert entry.at_s >= before_s
