"""The strict upstream's runs, shortened, as a user makes them; and the judge, which must be able to fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo.audit import Arrival
from examples.demo.settings import POST_PATH
from examples.demo.upstream import Ledger, create_app
from examples.strict_upstream import judge
from examples.strict_upstream.judge import GateEvent
from examples.strict_upstream.run import SCENARIOS, Finding
from examples.strict_upstream.upstream import RANDOM, RandomRefusals

ROOT = Path(__file__).parents[2]
SECONDS = 20


# Longer than the scenario gives itself.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scenario", [scenario.name for scenario in SCENARIOS])
def test_the_fleet_learns_what_a_stricter_upstream_allows(scenario: str) -> None:
    command = [sys.executable, "-m", "examples.strict_upstream", scenario, "--seconds", str(SECONDS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    (figures,) = json.loads(run.stdout.splitlines()[-1])
    assert figures["used"] >= 0.95
    assert figures["refused_after_closing_max"] <= 1
    # What the headers tell is learnt before there is anything to refuse.
    assert figures["refused_by_limiter"] == 0
    assert (figures["refused_at_random"] > 0) == (scenario == "random")
    assert bool(figures["learned"]) == (scenario != "random")


# ---- the judge


def test_what_was_in_flight_is_not_counted_and_what_came_after_is() -> None:
    granted_ns = {"before": 9, "probe": 12, "opened": 21, "flood": 33, "flood too": 34}
    arrivals = [Arrival(0.0, permit, "w", 429) for permit in granted_ns]
    gate = [
        GateEvent(10, is_closed=True),
        GateEvent(20, is_closed=True),
        GateEvent(20, is_closed=False),
        GateEvent(30, is_closed=True),
    ]

    assert judge.refused_after_closing(arrivals, granted_ns, gate) == [1, 0, 2]
    assert judge.refused_after_closing(arrivals[:2], granted_ns, []) == []
    accepted = [Arrival(0.0, "probe", "w", 201)]
    assert judge.refused_after_closing(accepted, granted_ns, gate) == [0, 0, 0]


def test_use_is_the_mean_fill_of_the_window_over_the_interval() -> None:
    # 2 calls per 10 s: over 10..20 s the first is inside for 5 s, the second for all 10.
    assert judge.mean_fill([5.0, 10.0, 20.0], (10.0, 2), 10.0, 20.0) == pytest.approx(15 / 20)
    assert judge.mean_fill([], (10.0, 2), 10.0, 20.0) == 0


@pytest.mark.parametrize(("used", "refused", "is_good"), [(0.95, 1, True), (0.94, 0, False), (1.0, 2, False)])
def test_what_is_good_enough(used: float, refused: int, *, is_good: bool) -> None:
    finding = Finding(
        scenario="half",
        used=used,
        accepted=1,
        refused_by_limiter=0,
        refused_at_random=0,
        closures=1,
        refused_after_closing_max=refused,
    )
    assert finding.is_good == is_good


# ---- its upstream


def test_what_is_refused_at_random_has_no_headers_and_is_not_counted() -> None:
    ledger = Ledger()
    app = create_app("3 per 60 second", ledger)
    app.wsgi_app = RandomRefusals(app.wsgi_app, ledger, share=0.5, seed=3)  # type: ignore[method-assign]
    client = app.test_client()
    replies = [client.post(POST_PATH, json={"in_reply_to": str(n), "worker": "w"}) for n in range(6)]

    at_random = [reply for reply in replies if "X-RateLimit-Limit" not in reply.headers]
    assert {reply.status_code for reply in at_random} == {429}
    # The limiter has seen the others only.
    limited = [reply for reply in replies if reply not in at_random]
    assert [reply.status_code for reply in limited] == ([201] * 3 + [429] * 3)[: len(limited)]
    arrivals = [Arrival(*arrival) for arrival in ledger.log()]
    assert judge.refused(arrivals, by_limiter=False, random_layer=RANDOM) == len(at_random)
    assert judge.refused(arrivals, by_limiter=True, random_layer=RANDOM) == max(0, len(limited) - 3)
    assert len(judge.accepted_s(arrivals)) == min(3, len(limited))
    assert 0 < len(at_random) < 6


def test_limits_may_change() -> None:
    limits = ["2 per 60 second"]
    client = create_app(lambda: limits[0]).test_client()
    said = {"in_reply_to": "1", "worker": "w"}
    assert client.post(POST_PATH, json=said).headers["X-RateLimit-Limit"] == "2"
    limits[0] = "1 per 60 second"
    assert client.post(POST_PATH, json=said).headers["X-RateLimit-Limit"] == "1"
