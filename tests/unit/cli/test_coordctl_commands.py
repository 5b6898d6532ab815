"""What each command asks the daemon, and what it prints of the answer."""

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from click.testing import Result
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from scripted_daemon import Refuse, ScriptedDaemon

from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2

Run = Callable[..., Result]
AT = Timestamp(seconds=1_795_449_648)


def a_lock(token: int = 42, worker: str = "w7", item: str = "tweet:1") -> engagement_pb2.Lock:
    return engagement_pb2.Lock(
        item=item, kind="reply", worker=worker, fencing_token=token, granted_at=AT, expires_at=AT,
        expires_in=Duration(seconds=270),
    )  # fmt: skip


def a_page(*tokens: int, more: str = "") -> engagement_pb2.ListLocksResponse:
    return engagement_pb2.ListLocksResponse(locks=[a_lock(token) for token in tokens], next_page_token=more)


def an_engagement(outcome: engagement_pb2.Outcome.ValueType) -> engagement_pb2.Engagement:
    return engagement_pb2.Engagement(
        item="tweet:1", kind="reply", worker="w7", outcome=outcome, at=AT, fencing_token=42
    )


def a_window(used: int = 12, seconds: int = 900) -> rate_limit_pb2.WindowCapacity:
    return rate_limit_pb2.WindowCapacity(
        name="per_15min", window=Duration(seconds=seconds), limit=180, used=used, remaining=180 - used,
        resets_at=AT, resets_in=Duration(seconds=600),
    )  # fmt: skip


HELD = common_pb2.Refusal(
    reason=common_pb2.REFUSAL_REASON_HELD, subject="tweet:1", holder="w7", queue_position=2,
    retry_after=Duration(seconds=270),
)  # fmt: skip


def lines(text: str) -> list[str]:
    return text.splitlines()


def table_of(text: str) -> list[list[str]]:
    return [line.split() for line in lines(text)]


# ------------------------------------------------------------------------------------------------ status


@pytest.fixture
def faring(daemon: ScriptedDaemon) -> ScriptedDaemon:
    daemon.answers(
        "GetStatus",
        admin_pb2.GetStatusResponse(
            version="0.1.0", now=AT, uptime=Duration(seconds=3725), locks=12, waiters=7, waiters_away=2,
            sessions=5, commits=1234, commit_time_mean=Duration(nanos=1_200_000),
        ),
    )  # fmt: skip
    endpoint = rate_limit_pb2.EndpointStatus(
        endpoint="search_tweets", health=rate_limit_pb2.HEALTH_CRITICAL, utilisation=0.96, active_workers=3,
        queued=4, windows=[a_window(173)], violations=1,
        gate=rate_limit_pb2.Gate(state=rate_limit_pb2.GATE_STATE_CLOSED, opens_in=Duration(seconds=12)),
        learned=[
            rate_limit_pb2.LearnedLimit(
                window=Duration(seconds=900), limit=180, configured=360, in_force=True
            )
        ],
    )  # fmt: skip
    daemon.answers(
        "GetSystemStatus",
        rate_limit_pb2.GetSystemStatusResponse(health=rate_limit_pb2.HEALTH_CRITICAL, endpoints=[endpoint]),
    )
    daemon.answers("ListPools", admin_pb2.ListPoolsResponse(pools=[admin_pb2.Pool(name="cores")]))
    daemon.answers("ListLimits", admin_pb2.ListLimitsResponse(limits=[admin_pb2.Limit(endpoint="x")]))
    return daemon


def test_status_is_one_readable_screen(faring: ScriptedDaemon, run: Run) -> None:
    result, where = run("status"), faring.address
    assert result.exit_code == 0
    assert lines(result.stdout) == [
        f"coordd 0.1.0 at {where}: endpoints CRITICAL, granting, up 1h2m5s, clock 2026-11-23T16:00:48Z",
        "live     12 locks, 0 reservations, 0 permits, 0 bookings, 0 bundles",
        "workers  5 sessions",
        "waiting  7 waiters, 2 of them away; 0 escalations to decide",
        "done     0 commands in 1,234 commits, 1.2ms each; last id 0",
        "",
        "ENDPOINT       HEALTH    USED  WINDOWS      WORKERS  QUEUED  GATE        LEARNED         429S",
        "search_tweets  CRITICAL   96%  15m 173/180        3       4  closed 12s  15m 180 of 360     1",
    ]


def test_status_says_what_is_taken_of_quotas(faring: ScriptedDaemon, run: Run) -> None:
    quotas = [
        admin_pb2.QuotaUse(quota="leases", used=1_200, limit=5_000),
        admin_pb2.QuotaUse(quota="waiters", limit=10),
    ]
    faring.answers("GetStatus", admin_pb2.GetStatusResponse(version="0.1.0", quotas=quotas))
    assert "quotas   leases 1,200 of 5,000, waiters 0 of 10" in lines(run("status").stdout)


def test_status_points_to_what_operators_have_changed(faring: ScriptedDaemon, run: Run) -> None:
    changed = admin_pb2.Limit(endpoint="post_tweet", is_overridden=True)
    faring.answers("ListLimits", admin_pb2.ListLimitsResponse(limits=[changed]))
    hint = "1 setting changed by operators: see 'coordctl pools', 'coordctl limits'"
    assert hint in lines(run("status").stdout)
    pools = [admin_pb2.Pool(name=name, is_overridden=True) for name in ("cores", "slots")]
    faring.answers("ListPools", admin_pb2.ListPoolsResponse(pools=pools))
    assert hint.replace("1 setting", "3 settings") in lines(run("status").stdout)


def test_status_counts_one_in_the_singular(faring: ScriptedDaemon, run: Run) -> None:
    faring.answers(
        "GetStatus", admin_pb2.GetStatusResponse(locks=1, bookings=1, waiters=1, commits=1, sessions=1)
    )
    assert lines(run("status").stdout)[1:5] == [
        "live     1 lock, 0 reservations, 0 permits, 1 booking, 0 bundles",
        "workers  1 session",
        "waiting  1 waiter, 0 of them away; 0 escalations to decide",
        "done     0 commands in 1 commit; last id 0",
    ]


@pytest.mark.usefixtures("faring")
def test_status_as_json_has_both_answers(run: Run) -> None:
    answer = json.loads(run("status", "--json").stdout)
    assert answer["daemon"]["locks"] == "12"
    assert answer["daemon"]["draining"] is False
    assert answer["system"]["endpoints"][0]["active_workers"] == 3


# ------------------------------------------------------------------------------------------------- locks


def test_locks_pages_through_all(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "ListLocks",
        a_page(1, 2, more="more"),
        a_page(3),
    )
    result = run("locks", "--worker", "w7")
    assert lines(result.stdout)[0] == "TOKEN  ITEM     KIND   WORKER  GRANTED               EXPIRES IN"
    assert lines(result.stdout)[1] == "    1  tweet:1  reply  w7      2026-11-23T16:00:48Z       4m30s"
    assert [row[0] for row in table_of(result.stdout)] == ["TOKEN", "1", "2", "3"]
    assert [(request.page_token, request.worker) for request in daemon.requests] == [
        ("", "w7"),
        ("more", "w7"),
    ]


def test_locks_with_a_limit_asks_for_no_more(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ListLocks", a_page(1, 2, more="more"))
    assert [row[0] for row in table_of(run("locks", "--limit", "2").stdout)] == ["TOKEN", "1", "2"]
    assert [request.page_size for request in daemon.requests] == [2]


def test_locks_as_json_is_one_array(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "ListLocks",
        a_page(1, more="more"),
        a_page(2),
    )
    found = json.loads(run("--json", "locks").stdout)
    assert [lock["fencing_token"] for lock in found] == ["1", "2"]
    assert found[0]["expires_in"] == "270s"


def test_no_locks(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ListLocks", engagement_pb2.ListLocksResponse())
    result = run("locks")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "no locks\n", 0)
    assert json.loads(run("locks", "--json").stdout) == []


def test_a_long_item_is_neither_cut_nor_wrapped_nor_obeyed(daemon: ScriptedDaemon, run: Run) -> None:
    item = "[bold]\x1b[31m" + "x" * 500
    daemon.answers("ListLocks", engagement_pb2.ListLocksResponse(locks=[a_lock(item=item)]))
    row = lines(run("locks").stdout)[1]
    assert "[bold]\\x1b[31m" + "x" * 500 in row
    assert "\x1b" not in row


# -------------------------------------------------------------------------------------------------- show


def test_show_an_item_in_progress(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "GetLock",
        engagement_pb2.GetLockResponse(state=engagement_pb2.ITEM_STATE_IN_PROGRESS, lock=a_lock(), waiters=3),
    )
    assert lines(run("show", "tweet:1", "--kind", "reply").stdout) == [
        "tweet:1  IN_PROGRESS",
        "  held by      w7 (reply), token 42",
        "  granted      2026-11-23T16:00:48Z",
        "  expires      2026-11-23T16:00:48Z, in 4m30s",
        "  waiters      3",
    ]
    assert daemon.requests == [engagement_pb2.GetLockRequest(item="tweet:1", kind="reply")]


def test_show_an_item_of_unknown_outcome(daemon: ScriptedDaemon, run: Run) -> None:
    last = an_engagement(engagement_pb2.OUTCOME_UNKNOWN)
    daemon.answers(
        "GetLock",
        engagement_pb2.GetLockResponse(
            state=engagement_pb2.ITEM_STATE_UNKNOWN, last_engagement=last, delayed_until=AT
        ),
    )
    assert lines(run("show", "tweet:1").stdout) == [
        "tweet:1  UNKNOWN",
        "  last         UNKNOWN by w7 (reply) at 2026-11-23T16:00:48Z, token 42",
        "  rests until  2026-11-23T16:00:48Z",
    ]


# -------------------------------------------------------------------------------------------------- lock


def test_lock_takes_it(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("RequestLock", engagement_pb2.RequestLockResponse(granted=a_lock()))
    result = run(
        "lock", "tweet:1", "--kind", "reply", "--worker", "w7", "--ttl", "5m", "--priority", "high",
        "--quality", "0.5", "--request-id", "r1",
    )  # fmt: skip
    assert result.stdout == "locked tweet:1 for w7 (reply): token 42, until 2026-11-23T16:00:48Z (4m30s)\n"
    assert daemon.requests == [
        engagement_pb2.RequestLockRequest(
            item="tweet:1", kind="reply", worker="w7", ttl=Duration(seconds=300), quality=0.5,
            request_id="r1", priority=common_pb2.PRIORITY_HIGH,
        )
    ]  # fmt: skip


def test_what_is_not_said_stays_absent(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("RequestLock", engagement_pb2.RequestLockResponse(granted=a_lock()))
    run("lock", "tweet:1", "--kind", "reply", "--worker", "w7")
    assert daemon.requests == [engagement_pb2.RequestLockRequest(item="tweet:1", kind="reply", worker="w7")]


def test_a_refused_lock_is_exit_code_1_and_one_line(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("RequestLock", engagement_pb2.RequestLockResponse(refused=HELD))
    result = run("lock", "tweet:1", "--kind", "reply", "--worker", "w8")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "coordctl lock: refused: tweet:1 is held by w7 (HELD), can succeed in 4m30s; "
        "--wait DURATION queues for it, at place 2\n"
    )


def test_a_refused_lock_as_json(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("RequestLock", engagement_pb2.RequestLockResponse(refused=HELD))
    result = run("lock", "tweet:1", "--kind", "reply", "--worker", "w8", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["refused"]["reason"] == "REFUSAL_REASON_HELD"


QUEUED = common_pb2.Queued(
    position=2, estimated_wait=Duration(seconds=12), blocked_by=HELD, times_out_in=Duration(seconds=30)
)
WAIT = ("lock", "tweet:1", "--kind", "reply", "--worker", "w8", "--wait", "30s")


def test_waiting_tells_the_place_on_stderr(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "AwaitLock",
        [engagement_pb2.AwaitLockResponse(queued=QUEUED), engagement_pb2.AwaitLockResponse(granted=a_lock())],
    )
    result = run(*WAIT, "--timeout", "5s")
    assert result.stdout.startswith("locked tweet:1 for w7")
    assert result.stderr == (
        "waiting at place 2, about 12s to go, gives up in 30s: "
        "tweet:1 is held by w7 (HELD), can succeed in 4m30s\n"
    )
    assert daemon.requests[0].wait_timeout == Duration(seconds=30)
    assert 31 < (daemon.timeouts[0] or 0) < 39  # 30 s for the wait and 5 s for the call


def test_waiting_as_json_is_a_line_a_step(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "AwaitLock",
        [engagement_pb2.AwaitLockResponse(queued=QUEUED), engagement_pb2.AwaitLockResponse(granted=a_lock())],
    )
    result = run(*WAIT, "--json")
    assert [list(json.loads(line)) for line in lines(result.stdout)] == [["queued"], ["granted"]]
    assert result.stderr == ""


def test_a_wait_that_ends_in_a_refusal(daemon: ScriptedDaemon, run: Run) -> None:
    timeout = common_pb2.Refusal(reason=common_pb2.REFUSAL_REASON_WAIT_TIMEOUT, subject="tweet:1")
    daemon.answers("AwaitLock", [engagement_pb2.AwaitLockResponse(refused=timeout)])
    result = run(*WAIT)
    assert result.exit_code == 1
    assert result.stderr == "coordctl lock: refused: the wait for tweet:1 ran out of time (WAIT_TIMEOUT)\n"


def test_a_wait_that_ends_without_an_answer(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("AwaitLock", [])
    assert run(*WAIT).exit_code == 3


STOPPING = Refuse(grpc.StatusCode.UNAVAILABLE, "DRAINING", "the daemon is stopping", retry_s=1)
UNDO = "it grants again after 'coordctl drain --undo'"
DRAINING = Refuse(grpc.StatusCode.UNAVAILABLE, "DRAINING", "the daemon is draining: upgrade", retry_s=1)


def test_a_wait_goes_on_by_the_same_request_id_when_the_daemon_is_back(
    daemon: ScriptedDaemon, run: Run
) -> None:
    queued = engagement_pb2.AwaitLockResponse(queued=common_pb2.Queued(position=2))
    granted = engagement_pb2.AwaitLockResponse(granted=a_lock())
    daemon.answers("AwaitLock", [queued, STOPPING], [STOPPING], [queued, granted])
    result = run(*WAIT)
    assert result.exit_code == 0
    assert result.stdout.startswith("locked tweet:1 for w7")
    assert lines(result.stderr) == [
        "waiting at place 2",
        "the daemon is away; waiting for it to come back",
        "waiting at place 2",
    ]
    request_ids = {request.request_id for request in daemon.requests}
    assert len(request_ids) == 1
    assert "" not in request_ids
    waits_ns = [request.wait_timeout.ToNanoseconds() for request in daemon.requests]
    assert waits_ns[0] == 30 * 10**9
    assert waits_ns == sorted(set(waits_ns), reverse=True)


def test_two_waits_have_two_request_ids_and_a_given_one_is_kept(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("AwaitLock", [engagement_pb2.AwaitLockResponse(granted=a_lock())])
    for options in ([], [], ["--request-id", "r1"]):
        run(*WAIT, *options)
    request_ids = [request.request_id for request in daemon.requests]
    assert len(set(request_ids)) == 3
    assert request_ids[2] == "r1"


def test_a_wait_through_an_operators_drain(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("AwaitLock", [DRAINING], [engagement_pb2.AwaitLockResponse(granted=a_lock())])
    result = run(*WAIT)
    assert result.exit_code == 0
    assert result.stderr == "the daemon is draining; waiting for it to grant again\n"


@pytest.mark.parametrize(
    ("refuse", "last"),
    [
        (STOPPING, "coordctl lock: the daemon is stopping (DRAINING)"),
        (DRAINING, "coordctl lock: the daemon is draining: upgrade (DRAINING); " + UNDO),
    ],
)
def test_a_wait_ends_in_time_though_the_daemon_stays_away(
    daemon: ScriptedDaemon, run: Run, *, refuse: Refuse, last: str
) -> None:
    daemon.answers("AwaitLock", [refuse])
    result = run(*WAIT[:-1], "300ms")
    assert result.exit_code == 3
    assert lines(result.stderr)[1:] == [last]


def test_a_full_queue_says_when_to_ask_again(daemon: ScriptedDaemon, run: Run) -> None:
    full = Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue of tweet:1 is full", retry_s=2)
    daemon.answers("AwaitLock", [full])
    result = run(*WAIT)
    assert result.exit_code == 4
    assert result.stderr == "coordctl lock: the queue of tweet:1 is full (QUEUE_FULL); ask again in 2s\n"


# ----------------------------------------------------------------------------------------------- release


RELEASED = engagement_pb2.ReleaseLockResponse(engagement=an_engagement(engagement_pb2.OUTCOME_SUCCESS))


def test_release_with_a_token_asks_nothing_first(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ReleaseLock", RELEASED)
    result = run("release", "tweet:1", "--worker", "w7", "--outcome", "success", "--token", "42")
    assert result.stdout == "released tweet:1: SUCCESS by w7 (reply) at 2026-11-23T16:00:48Z, token 42\n"
    assert daemon.requests == [
        engagement_pb2.ReleaseLockRequest(
            item="tweet:1", worker="w7", fencing_token=42, outcome=engagement_pb2.OUTCOME_SUCCESS
        )
    ]


def test_release_without_a_token_finds_the_live_one(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "GetLock",
        engagement_pb2.GetLockResponse(state=engagement_pb2.ITEM_STATE_IN_PROGRESS, lock=a_lock(77)),
    )
    daemon.answers("ReleaseLock", RELEASED)
    assert (
        run("release", "tweet:1", "--worker", "w7", "--outcome", "failure", "--kind", "reply").exit_code == 0
    )
    assert daemon.requests[0].kind == "reply"
    assert daemon.requests[1].fencing_token == 77


def test_release_of_anothers_lock_is_not_even_tried(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "GetLock", engagement_pb2.GetLockResponse(state=engagement_pb2.ITEM_STATE_IN_PROGRESS, lock=a_lock())
    )
    result = run("release", "tweet:1", "--worker", "w8", "--outcome", "success")
    assert result.exit_code == 4
    assert result.stderr == (
        "coordctl release: tweet:1 is held by w7, not w8 (NOT_HOLDER); "
        "'coordctl force-release 42 --reason TEXT' takes it away\n"
    )
    assert len(daemon.requests) == 1


def test_release_of_a_free_item(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("GetLock", engagement_pb2.GetLockResponse(state=engagement_pb2.ITEM_STATE_FREE))
    result = run("release", "tweet:1", "--worker", "w8", "--outcome", "success")
    assert result.exit_code == 4
    assert "nobody holds tweet:1 (it is FREE)" in result.stderr


WRONG_TOKEN = [
    (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST", "The lock 41 is held no longer."),
    (grpc.StatusCode.FAILED_PRECONDITION, "NOT_HOLDER", "The lock 41 is not held by 'w7', or not as named."),
    (grpc.StatusCode.NOT_FOUND, "UNKNOWN_ID", "The id 41 was never given."),
]


@pytest.mark.parametrize(("code", "reason", "text"), WRONG_TOKEN)
def test_release_with_a_wrong_token_says_the_right_one(
    daemon: ScriptedDaemon, run: Run, *, code: grpc.StatusCode, reason: str, text: str
) -> None:
    daemon.answers("ReleaseLock", Refuse(code, reason, text))
    daemon.answers("GetLock", engagement_pb2.GetLockResponse(lock=a_lock()))
    result = run("release", "tweet:1", "--worker", "w7", "--outcome", "success", "--token", "41")
    assert result.exit_code == 4
    assert result.stderr == f"coordctl release: tweet:1 is held under token 42, not 41 ({reason})\n"


@pytest.mark.parametrize(
    "answer",
    [
        engagement_pb2.GetLockResponse(),
        engagement_pb2.GetLockResponse(lock=a_lock(worker="w8")),
        Refuse(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_KIND", "A kind is needed."),
    ],
    ids=["free", "another's", "refused"],
)
def test_release_of_a_lost_lease_has_the_item_in_its_advice(
    daemon: ScriptedDaemon, run: Run, answer: engagement_pb2.GetLockResponse | Refuse
) -> None:
    daemon.answers("ReleaseLock", Refuse(*WRONG_TOKEN[0]))
    daemon.answers("GetLock", answer)
    result = run("release", "tweet:1", "--worker", "w7", "--outcome", "success", "--token", "41")
    assert result.exit_code == 4
    assert result.stderr == (
        "coordctl release: The lock 41 is held no longer (LEASE_LOST); "
        "the lease had ended; see 'coordctl show tweet:1'\n"
    )


# ------------------------------------------------------------------------ reservations, pools and limits


def test_reservations(daemon: ScriptedDaemon, run: Run) -> None:
    reservation = reservation_pb2.Reservation(
        reservation_id=9,
        type="cpu",
        pool="cores",
        units=4,
        worker="w7",
        granted_at=AT,
        expires_in=Duration(seconds=60),
    )
    daemon.answers("ListReservations", reservation_pb2.ListReservationsResponse(reservations=[reservation]))
    result = run("reservations", "--worker", "w7", "--type", "cpu", "--limit", "5")
    assert table_of(result.stdout)[1] == ["9", "cpu", "-", "cores", "4", "w7", "2026-11-23T16:00:48Z", "1m"]
    assert daemon.requests == [reservation_pb2.ListReservationsRequest(page_size=5, worker="w7", type="cpu")]


def test_pools(daemon: ScriptedDaemon, run: Run) -> None:
    queue = {"allocation": "priority", "overflow": "queue"}
    held = admin_pb2.Pool(
        name="cores", capacity=8, used=3, free=5, is_overridden=True, allocation="fair", overflow="borrow"
    )
    adaptive = admin_pb2.Pool(name="db", capacity=7, capacity_min=2, capacity_max=40, **queue)
    windows = [a_window(0), a_window(7, 3600)]
    refilling = admin_pb2.Pool(name="api_requests", capacity=180, windows=windows, **queue)
    daemon.answers("ListPools", admin_pb2.ListPoolsResponse(pools=[held, adaptive, refilling]))
    assert [" ".join(row) for row in table_of(run("pools").stdout)] == [
        "POOL CAPACITY BOUNDS USED FREE QUEUED WINDOWS ALLOCATION OVERFLOW SET BY",
        "cores 8 - 3 5 0 held fair borrow operator",
        "db 7 2..40 0 0 0 held priority queue its workers",
        "api_requests 180 - 0 0 0 15m 0/180 1h 7/180 priority queue config",
    ]


def test_pools_set(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("UpdatePool", admin_pb2.UpdatePoolResponse(pool=admin_pb2.Pool(name="cores", capacity=9)))
    assert run("pools", "set", "cores", "--capacity", "9").exit_code == 0
    windows = run("pools", "set", "cores", "--window", "15m=900", "--window", "1h=3000", "--json")
    assert json.loads(windows.stdout)["capacity"] == 9
    assert run("pools", "set", "cores", "--unpin").exit_code == 0
    assert daemon.requests == [
        admin_pb2.UpdatePoolRequest(name="cores", capacity=9),
        admin_pb2.UpdatePoolRequest(
            name="cores",
            windows=[
                admin_pb2.WindowLimit(window=Duration(seconds=900), limit=900),
                admin_pb2.WindowLimit(window=Duration(seconds=3600), limit=3000),
            ],
        ),
        admin_pb2.UpdatePoolRequest(name="cores", unpin=True),
    ]


@pytest.mark.parametrize(
    "options", [[], ["--capacity", "9", "--window", "15m=900"], ["--capacity", "9", "--unpin"]]
)
def test_pools_set_needs_one_of_them(run: Run, options: list[str]) -> None:
    result = run("pools", "set", "cores", *options)
    assert (result.exit_code, len(lines(result.stderr))) == (2, 1)


@pytest.mark.parametrize(
    ("options", "field", "advice"),
    [
        (["--capacity", "9"], "windows", "; use --window"),
        (["--window", "15m=9"], "capacity", "; use --capacity"),
        (["--window", "15m=9"], "windows", ""),
    ],
)
def test_pools_set_of_the_other_sort_of_pool_says_which_option(
    daemon: ScriptedDaemon, run: Run, *, options: list[str], field: str, advice: str
) -> None:
    text = f"Of the pool cores only {field} can change."
    error = Refuse(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_COUNT", text, metadata={"field": field})
    daemon.answers("UpdatePool", error)
    result = run("pools", "set", "cores", *options)
    assert result.exit_code == 4
    assert result.stderr == f"coordctl pools set: {text[:-1]} (INVALID_COUNT){advice}\n"


@pytest.mark.parametrize("window", ["15m", "15m=0", "15m=x", "15=3", "=3", "15m=1000000001", "15m=-1"])
def test_a_malformed_window_is_a_usage_error(run: Run, window: str) -> None:
    result = run("limits", "set", "post_tweet", "--window", window)
    assert (result.exit_code, len(lines(result.stderr))) == (2, 1)


def test_limits_and_limits_set(daemon: ScriptedDaemon, run: Run) -> None:
    limit = admin_pb2.Limit(
        endpoint="post_tweet", allocation="priority", windows=[a_window()], use_within=Duration(seconds=30),
        claim_window=Duration(seconds=10), gate=rate_limit_pb2.Gate(state=rate_limit_pb2.GATE_STATE_PROBING),
        learned=[rate_limit_pb2.LearnedLimit(window=Duration(seconds=900), limit=200, configured=180)],
    )  # fmt: skip
    daemon.answers("ListLimits", admin_pb2.ListLimitsResponse(limits=[limit]))
    daemon.answers("UpdateLimit", admin_pb2.UpdateLimitResponse(limit=limit))
    listed = run("limits")
    assert table_of(listed.stdout)[1] == [
        "post_tweet",
        "priority",
        "15m",
        "12/180",
        "probing",
        "15m",
        "200",
        "(set",
        "180)",
        "30s",
        "10s",
        "0",
        "0",
        "config",
    ]
    assert run("limits", "set", "post_tweet", "--window", "15m=180").stdout == listed.stdout
    assert daemon.requests[1] == admin_pb2.UpdateLimitRequest(
        endpoint="post_tweet", windows=[admin_pb2.WindowLimit(window=Duration(seconds=900), limit=180)]
    )


def test_limits_shares(daemon: ScriptedDaemon, run: Run) -> None:
    part = rate_limit_pb2.WindowAllocation(
        name="per_15min",
        window=Duration(seconds=900),
        own=60,
        used=70,
        allocated=90,
        remaining=20,
        borrowed=10,
    )
    allocation = rate_limit_pb2.WorkerAllocation(
        worker="w1", windows=[part], weight=1.5, efficiency=0.97, demand_per_s=0.25, queued_permits=3
    )
    daemon.answers(
        "ListWorkerAllocations", rate_limit_pb2.ListWorkerAllocationsResponse(workers=[allocation])
    )
    listed = run("limits", "shares", "post_tweet")
    cells = ["w1", "15m", "70", "90", "20", "60", "0", "10", "3", "1.5", "97%", "900.0"]
    assert table_of(listed.stdout)[1] == cells
    assert [
        each["worker"] for each in json.loads(run("--json", "limits", "shares", "post_tweet").stdout)
    ] == ["w1"]
    answer = rate_limit_pb2.GetWorkerAllocationResponse(
        windows=[part], active_workers=2, weight=1.5, efficiency=0.97, demand_per_s=0.25
    )
    daemon.answers("GetWorkerAllocation", answer)
    one = run("limits", "shares", "post_tweet", "--worker", "w1")
    assert table_of(one.stdout)[1] == [*cells[:8], "0", *cells[9:]]
    daemon.answers("ListWorkerAllocations", rate_limit_pb2.ListWorkerAllocationsResponse())
    assert run("limits", "shares", "post_tweet").stderr.startswith("nobody shares post_tweet now, or")


def test_capacity(daemon: ScriptedDaemon, run: Run) -> None:
    answer = rate_limit_pb2.GetRemainingCapacityResponse(windows=[a_window()], remaining=168)
    daemon.answers("GetRemainingCapacity", answer)
    assert lines(run("capacity", "post_tweet").stdout) == [
        "post_tweet: 168 calls could be made now",
        "WINDOW  LIMIT  USED  REMAINING  EMPTY IN  EMPTY AT",
        "15m       180    12        168       10m  2026-11-23T16:00:48Z",
    ]
    assert json.loads(run("capacity", "post_tweet", "--json").stdout)["remaining"] == 168


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (rate_limit_pb2.GATE_STATE_CLOSED, "; upstream has refused one, and the gate opens in 40s"),
        (rate_limit_pb2.GATE_STATE_PROBING, "; upstream has refused one, and the next one probes"),
    ],
)
def test_capacity_behind_a_gate(
    daemon: ScriptedDaemon, run: Run, state: rate_limit_pb2.GateState.ValueType, said: str
) -> None:
    gate = rate_limit_pb2.Gate(state=state, opens_in=Duration(seconds=40))
    daemon.answers("GetRemainingCapacity", rate_limit_pb2.GetRemainingCapacityResponse(gate=gate))
    assert lines(run("capacity", "post_tweet").stdout)[0] == f"post_tweet: 0 calls could be made now{said}"


def test_forecasts(daemon: ScriptedDaemon, run: Run) -> None:
    forecast = rate_limit_pb2.ClassForecast(priority=common_pb2.PRIORITY_HIGH, per_s=0.5, kept=4)
    busy = rate_limit_pb2.EndpointStatus(
        endpoint="post_tweet", forecasts=[forecast], scheduling_error=Duration(seconds=2)
    )
    idle = rate_limit_pb2.EndpointStatus(endpoint="search")
    daemon.answers("GetSystemStatus", rate_limit_pb2.GetSystemStatusResponse(endpoints=[busy, idle]))
    assert lines(run("forecasts").stdout) == [
        "ENDPOINT    CLASS  PER HOUR  KEPT  PROMISES OFF BY",
        "post_tweet  high    1,800.0     4               2s",
        "search      -             -     -                -",
    ]
    assert len(lines(run("forecasts", "search").stdout)) == 2
    unknown = run("forecasts", "unheard_of")
    assert unknown.exit_code == 4
    assert unknown.stderr == (
        "coordctl forecasts: the endpoint 'unheard_of' is not configured; see 'coordctl limits'\n"
    )
    told = json.loads(run("forecasts", "--json").stdout)
    assert [row["endpoint"] for row in told] == ["post_tweet", "search"]


def test_stats(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "GetEngagementStats",
        engagement_pb2.GetEngagementStatsResponse(
            total=4, successful=3, unknown=1, success_rate=0.75,
            by_kind={
                "reply": engagement_pb2.KindStats(total=4, successful=3, unknown=1),
                "like": engagement_pb2.KindStats(),
            },
        ),
    )  # fmt: skip
    assert table_of(run("stats", "--hours", "1.5", "--worker", "w7").stdout) == [
        ["KIND", "TOTAL", "SUCCESSFUL", "FAILED", "UNKNOWN", "SUCCESS", "RATE"],
        ["like", "0", "0", "0", "0", "-"],
        ["reply", "4", "3", "0", "1", "75.0%"],
        ["all", "4", "3", "0", "1", "75.0%"],
    ]
    assert daemon.requests == [
        engagement_pb2.GetEngagementStatsRequest(within=Duration(seconds=5400), worker="w7")
    ]


# ----------------------------------------------------------------------------------------- stepping in


def test_force_release(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers(
        "ForceRelease",
        admin_pb2.ForceReleaseResponse(subject=admin_pb2.SUBJECT_LOCK, name="tweet:1", worker="w7"),
    )
    assert run("force-release", "42", "--reason", "gone").stdout == "took lock 42 on tweet:1 from w7\n"
    assert daemon.requests == [admin_pb2.ForceReleaseRequest(id=42, reason="gone")]


def test_drain_and_undo(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("Drain", admin_pb2.DrainResponse(draining=True), admin_pb2.DrainResponse(draining=False))
    assert run("drain", "--reason", "upgrade").stdout.startswith("draining: ")
    assert run("drain", "--undo").stdout == "granting\n"
    assert daemon.requests == [admin_pb2.DrainRequest(reason="upgrade"), admin_pb2.DrainRequest(undo=True)]


def an_event(**fields: Any) -> admin_pb2.WatchEventsResponse:
    return admin_pb2.WatchEventsResponse(
        at=AT, subject=admin_pb2.SUBJECT_LOCK, name="tweet:1", worker="w7", **fields
    )


EVENTS: list[Message | Refuse] = [
    an_event(type=admin_pb2.EVENT_TYPE_GRANTED, id=42, kind="reply"),
    an_event(type=admin_pb2.EVENT_TYPE_REFUSED, refusal_reason=common_pb2.REFUSAL_REASON_HELD, missed=5),
    an_event(type=admin_pb2.EVENT_TYPE_FORCED, id=42, detail="two\nlines"),
]


def test_watch_counts_no_bundles_claims(daemon: ScriptedDaemon, run: Run) -> None:
    event = admin_pb2.WatchEventsResponse(
        type=admin_pb2.EVENT_TYPE_PREEMPTED, subject=admin_pb2.SUBJECT_BUNDLE, name="a, b", units=2, id=5
    )
    daemon.answers("WatchEvents", [event])
    assert lines(run("watch").stdout) == ["1970-01-01T00:00:00.000Z  PREEMPTED  bundle       a, b #5"]


def test_watch_prints_a_line_an_event(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("WatchEvents", EVENTS)
    result = run("watch", "--subject", "lock", "--subject", "permit", "--type", "granted", "--worker", "w7")
    assert lines(result.stdout) == [
        "2026-11-23T16:00:48.000Z  GRANTED    lock         tweet:1 (reply) worker w7 #42",
        "2026-11-23T16:00:48.000Z  REFUSED    lock         tweet:1 worker w7 HELD",
        "2026-11-23T16:00:48.000Z  FORCED     lock         tweet:1 worker w7 #42 two\\nlines",
    ]
    assert lines(result.stderr)[0] == "5 events missed here: they came faster than they were read"
    assert daemon.requests == [
        admin_pb2.WatchEventsRequest(
            subjects=[admin_pb2.SUBJECT_LOCK, admin_pb2.SUBJECT_PERMIT],
            types=[admin_pb2.EVENT_TYPE_GRANTED],
            worker="w7",
        )
    ]
    assert (daemon.timeouts[0] or 0) > 10**9  # none was set


def test_watch_as_json_is_a_line_an_event(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("WatchEvents", EVENTS)
    found = [json.loads(line) for line in lines(run("--json", "watch").stdout)]
    assert [event["type"] for event in found] == [
        "EVENT_TYPE_GRANTED",
        "EVENT_TYPE_REFUSED",
        "EVENT_TYPE_FORCED",
    ]


def test_a_watch_that_the_daemon_ends_is_exit_code_3(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("WatchEvents", [])
    assert run("watch").exit_code == 3


def test_a_watch_of_a_daemon_that_stops_says_so(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("WatchEvents", [an_event(type=admin_pb2.EVENT_TYPE_GRANTED), STOPPING])
    result = run("watch")
    assert len(lines(result.stdout)) == 1
    assert (result.exit_code, result.stderr) == (3, "coordctl watch: the daemon is stopping (DRAINING)\n")


# ---------------------------------------------------------------------------------------------- sessions


def test_sessions(daemon: ScriptedDaemon, run: Run) -> None:
    session = admin_pb2.SessionInfo(
        worker="w7", session_id=9, worker_class="fast", weight=2.5, labels={"zone": "a", "host": "h1"},
        opened_at=AT, expires_in=Duration(seconds=21), held=3, connected=True,
    )  # fmt: skip
    gone = admin_pb2.SessionInfo(worker="w8", weight=1, opened_at=AT, expires_in=Duration(seconds=2))
    daemon.answers("ListSessions", admin_pb2.ListSessionsResponse(sessions=[session, gone]))
    assert table_of(run("sessions").stdout) == [
        ["WORKER", "CLASS", "WEIGHT", "HOLDS", "CONNECTED", "OPENED", "ENDS", "IN", "LABELS"],
        ["w7", "fast", "2.5", "3", "yes", "2026-11-23T16:00:48Z", "21s", "host=h1", "zone=a"],
        ["w8", "1", "0", "no", "2026-11-23T16:00:48Z", "2s"],
    ]
    assert table_of(run("sessions", "--limit", "1").stdout)[1][0] == "w7"
    assert json.loads(run("sessions", "--json").stdout)[0]["session_id"] == "9"


def test_no_sessions(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ListSessions", admin_pb2.ListSessionsResponse())
    assert "no sessions" in run("sessions").output


# ------------------------------------------------------------------------------------------- escalations


def an_escalation(**fields: Any) -> admin_pb2.Escalation:
    return admin_pb2.Escalation(
        **{
            "escalation_id": 9, "subject": "tweet:1", "worker": "w8", "priority": common_pb2.PRIORITY_HIGH,
            "waited": Duration(seconds=65), "holder": "w7", "holder_id": 42, "opened_at": AT,
            "decide_within": Duration(seconds=55), "default_decision": admin_pb2.DECISION_WAIT,
            "is_open": True,
        } | fields
    )  # fmt: skip


def test_escalations(daemon: ScriptedDaemon, run: Run) -> None:
    pool = an_escalation(escalation_id=10, subject="conns", holder="", holder_id=0)
    daemon.answers("ListEscalations", admin_pb2.ListEscalationsResponse(escalations=[an_escalation(), pool]))
    assert lines(run("escalations").stdout) == [
        "ID  ABOUT    WAITS  CLASS  WAITED  HOLDER  TOKEN  DECIDE WITHIN  ELSE",
        " 9  tweet:1  w8     HIGH     1m5s  w7         42            55s  wait",
        "10  conns    w8     HIGH     1m5s  -           -            55s  wait",
    ]
    assert json.loads(run("--json", "escalations").stdout)[1]["escalation_id"] == "10"


def test_no_escalations(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ListEscalations", admin_pb2.ListEscalationsResponse())
    assert run("escalations").stderr == "no escalations\n"


def test_escalations_are_watched_a_line_a_change(daemon: ScriptedDaemon, run: Run) -> None:
    changes = [
        an_escalation(),
        an_escalation(is_open=False, decision=admin_pb2.DECISION_PREEMPT, decided_by="bo\nss"),
        an_escalation(is_open=False, holder=""),
    ]
    daemon.answers(
        "WatchEscalations", [admin_pb2.WatchEscalationsResponse(escalation=change) for change in changes]
    )
    result = run("escalations", "--watch")
    assert lines(result.stdout) == [
        "OPENED  #9 tweet:1: w8 waits, held by w7 #42; decide within 55s, else wait",
        "CLOSED  #9 tweet:1: w8 waits, held by w7 #42; preempt by bo\\nss",
        "CLOSED  #9 tweet:1: w8 waits; the wait is over",
    ]
    assert result.exit_code == 3


def test_resolve(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ResolveEscalation", admin_pb2.ResolveEscalationResponse(escalation=an_escalation()))
    result = run("resolve", "9", "preempt", "--by", "me", "--reason", "stuck")
    assert result.stdout == "decided preempt: tweet:1, w8 waits, held by w7 #42\n"
    assert daemon.requests == [
        admin_pb2.ResolveEscalationRequest(
            escalation_id=9, decision=admin_pb2.DECISION_PREEMPT, decided_by="me", reason="stuck"
        )
    ]


def test_resolve_needs_to_know_who_decides(run: Run) -> None:
    assert run("resolve", "9", "grant").exit_code == 2
