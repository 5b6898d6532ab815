"""The benchmark works and reports what it should; how fast it all is, is not a test's business."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

TARGETS = {
    "core_lock_pairs_per_s": ("at_least", 150_000),
    "core_lock_pairs_with_request_id_per_s": ("at_least", 150_000),
    "core_permits_per_s": ("at_least", 300_000),
    "core_permits_with_request_id_per_s": ("at_least", 300_000),
    "core_grant_growth": ("at_most", 5 / 3),
    "bytes_per_lock_of_10000": ("at_most", 1_024),
    "bytes_per_waiter_of_10000_in_one_queue": ("at_most", 1_536),
    "bytes_per_waiter_of_10000_in_many_queues": ("at_most", 1_536),
    "simulate_tweets_with_1_workers_s": ("at_most", 5),
    "start_with_5000_records_s": ("at_most", 10),
}
UNTARGETED = {
    f"durable_lock_pairs_at_{clients}_{what}" for clients in (1, 64) for what in ("per_s", "p50_ms", "p99_ms")
}


@pytest.mark.timeout(120)
def test_quick_prints_progress_and_one_json_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--folder", tmp_path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "durable pairs over gRPC" in run.stderr
    [line] = run.stdout.splitlines()
    report = json.loads(line)
    assert report["quick"] is True
    assert report["seconds"] > 0
    assert {"cpu", "cpus", "python", "sqlite", "versions"} <= report["machine"].keys()
    figures: dict[str, Any] = report["figures"]
    assert TARGETS.keys() | UNTARGETED <= figures.keys()
    for name, figure in figures.items():
        assert figure["value"] > 0, name
        assert figure["unit"], name
        assert figure["runs"], name
        bound = TARGETS.get(name)
        if bound is not None:
            assert figure[bound[0]] == bound[1], name
        assert ("passed" in figure) == (bound is not None), name
    # What it made, it deleted.
    assert list(tmp_path.iterdir()) == []


def test_a_noisy_fleet_is_measured(tmp_path: Path) -> None:
    options = ["--seconds", "0.3", "--runs", "1", "--folder", tmp_path]
    command = [sys.executable, "-m", "bench.namespaces", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)["figures"]
    cases = ("alone", "beside_noise", "beside_noise_with_quota")
    kinds = ("p50_ms", "p99_ms", "pairs_per_s", "failed")
    assert {*figures} == {f"quiet_{case}_{kind}" for case in cases for kind in kinds}
    assert figures["quiet_alone_pairs_per_s"]["value"] > 0
    assert figures["quiet_alone_failed"]["value"] == 0
