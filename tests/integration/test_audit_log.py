"""What operators did and who was refused: every line, its parts, its bounds, and its file."""

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, launch, refusal
from identity_rig import IDENTITIES, api_of, guarded_config

from coordd.config import load
from coordd.rpc import audit
from coordd.server import Daemon
from coordd.v1 import admin_pb2, engagement_pb2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def guarded(tmp_path: Path, path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(load(guarded_config(tmp_path, f'[audit]\npath = "{path}"\n{IDENTITIES}'), {}))
    await daemon.start()
    yield daemon
    await daemon.stop(0)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def spoil(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_an_operators_action_is_written_with_who_where_what_how_and_when(
    channel: grpc.aio.Channel, path: Path
) -> None:
    chief = api_of(channel, "chief")
    lock = await chief.lock("bot-1", item="tweet:1")
    force = admin_pb2.ForceReleaseRequest(id=lock.fencing_token, reason="it hangs")
    await chief.admin.ForceRelease(force)
    await refusal(chief.admin.ForceRelease(force))
    taken, again = lines(path)
    assert taken.keys() == {"at", "who", "from", "namespace", "method", "result", "request"}
    assert taken["namespace"] == "default"
    assert (taken["who"], taken["result"]) == ("chief", "OK")
    assert taken["from"].startswith("ipv4:127.0.0.1:")
    assert taken["method"] == "/coordd.v1.AdminService/ForceRelease"
    assert json.loads(taken["request"]) == {"id": str(lock.fencing_token), "reason": "it hangs"}
    assert taken["at"].endswith("+00:00")
    assert again["result"] == "UNKNOWN_ID"


@pytest.mark.parametrize(
    ("method", "request_", "result"),
    [
        ("UpdatePool", admin_pb2.UpdatePoolRequest(name="small", capacity=4), "OK"),
        ("UpdatePool", admin_pb2.UpdatePoolRequest(name="none", capacity=4), "UNKNOWN_POOL"),
        ("UpdateLimit", admin_pb2.UpdateLimitRequest(endpoint="post"), "INVALID_COUNT"),
        ("Drain", admin_pb2.DrainRequest(reason="upgrade"), "OK"),
        ("ResolveEscalation", admin_pb2.ResolveEscalationRequest(escalation_id=1), "INVALID_ENUM"),
    ],
)
async def test_every_sort_of_action_is_written_also_those_that_fail(
    channel: grpc.aio.Channel, path: Path, method: str, request_: Any, result: str
) -> None:
    made = getattr(api_of(channel, "chief").admin, method)(request_)
    await (made if result == "OK" else refusal(made))
    (line,) = lines(path)
    assert (line["method"].rpartition("/")[2], line["result"]) == (method, result)


async def test_without_identities_actions_are_written_of_nobody(tmp_path: Path, path: Path) -> None:
    daemon = Daemon(load(guarded_config(tmp_path, f'[audit]\npath = "{path}"\n'), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        await Api(channel).admin.Drain(admin_pb2.DrainRequest(undo=True))
    await daemon.stop(0)
    assert [(line["who"], line["result"]) for line in lines(path)] == [("", "OK")]


async def test_who_is_refused_is_written_once_with_why(channel: grpc.aio.Channel, path: Path) -> None:
    drain = admin_pb2.DrainRequest(reason="mine now")
    await refusal(api_of(channel, "bots").admin.Drain(drain))
    await refusal(Api(channel).admin.Drain(drain))
    stolen = engagement_pb2.RequestLockRequest(item="j", worker="rival-1", kind="analysis")
    await refusal(api_of(channel, "bots").engagement.RequestLock(stolen))
    assert [(line["who"], line["result"]) for line in lines(path)] == [
        ("bots", "ROLE_REQUIRED"),
        ("", "TOKEN_REQUIRED"),
        ("bots", "WORKER_REQUIRED"),
    ]


async def test_what_workers_do_is_not_written(channel: grpc.aio.Channel, path: Path) -> None:
    bots = api_of(channel, "bots")
    await bots.unlock(await bots.lock("bot-1"))
    await bots.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert lines(path) == []


async def test_a_flood_of_refusals_does_not_fill_the_disk(
    channel: grpc.aio.Channel, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [100.0]
    monkeypatch.setattr(audit.time, "monotonic", lambda: seconds[0])
    status = admin_pb2.GetStatusRequest()
    for _ in range(50):
        await refusal(Api(channel).admin.GetStatus(status))
    assert len(lines(path)) == 20
    seconds[0] += 1
    await refusal(Api(channel).admin.GetStatus(status))
    assert lines(path)[-1]["unwritten_before"] == 30
    await refusal(Api(channel).admin.GetStatus(status))
    assert "unwritten_before" not in lines(path)[-1]


async def test_the_file_is_its_owners_and_is_added_to(channel: grpc.aio.Channel, path: Path) -> None:
    chief = api_of(channel, "chief")
    assert mode_of(path) == 0o600
    await chief.admin.Drain(admin_pb2.DrainRequest(undo=True))
    rotate(path)
    await chief.admin.Drain(admin_pb2.DrainRequest(undo=True))
    assert len(lines(path)) == len(lines(path.with_suffix(".1"))) == 1


async def test_a_file_that_cannot_be_written_to_stops_nobody_and_is_told(
    channel: grpc.aio.Channel, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(path)
    await api_of(channel, "chief").admin.Drain(admin_pb2.DrainRequest(undo=True))
    assert "the audit file can't be written" in "".join(capsys.readouterr())


async def test_a_file_that_cannot_be_opened_at_the_start_is_exit_code_2(tmp_path: Path) -> None:
    process = await launch(guarded_config(tmp_path, f'[audit]\npath = "{tmp_path}/none/a"\n'))
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert "[audit] path" in errors.decode()
    assert len(errors.decode().splitlines()) == 1
    assert not (tmp_path / "guarded").exists()


async def test_a_request_of_any_length_is_cut(channel: grpc.aio.Channel, path: Path) -> None:
    long = admin_pb2.DrainRequest(reason="x" * 100_000)
    await refusal(api_of(channel, "chief").admin.Drain(long))
    assert len(lines(path)[0]["request"]) == 4_096


async def test_a_request_that_has_no_json_is_written_all_the_same(
    channel: grpc.aio.Channel, path: Path
) -> None:
    window = admin_pb2.WindowLimit(limit=1)
    window.window.nanos = 2**31 - 1
    update = admin_pb2.UpdateLimitRequest(endpoint="post", windows=[window])
    code, reason, _ = await refusal(api_of(channel, "chief").admin.UpdateLimit(update))
    assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_DURATION")
    [line] = lines(path)
    assert line["result"] == "INVALID_DURATION"
    assert "nanos: 2147483647" in line["request"]
