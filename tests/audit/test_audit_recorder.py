"""What a recorder makes of real messages, and that a history can be saved and read again."""

import ast
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from audit import history as h
from audit.recorder import Recorder
from coordd.config import Settings
from coordd.v1 import (
    admin_pb2,
    bundle_pb2,
    common_pb2,
    engagement_pb2,
    rate_limit_pb2,
    reservation_pb2,
    session_pb2,
)

_SERVICES = [
    method
    for file in (admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(itertools.count(1).__next__)


def operation(recorder: Recorder) -> h.Operation:
    (only,) = recorder.history().operations
    return only


def made(descriptor: Any) -> Any:
    return message_factory.GetMessageClass(descriptor)()


@pytest.mark.parametrize("method", _SERVICES, ids=lambda method: method.name)
def test_every_method_can_be_written_down(recorder: Recorder, method: Any) -> None:
    call = recorder.call(method.name, made(method.input_type))
    call.told(made(method.output_type))
    assert operation(recorder).answer is not None


def test_a_wait_is_its_places_and_its_end(recorder: Recorder, tmp_path: Path) -> None:
    call = recorder.call(
        "AwaitLock",
        engagement_pb2.AwaitLockRequest(
            item="a",
            kind="reply",
            worker="w",
            request_id="r",
            priority=common_pb2.PRIORITY_HIGH,
            ttl=Duration(seconds=2),
        ),
    )
    blocked = common_pb2.Refusal(reason=common_pb2.REFUSAL_REASON_HELD, subject="a")
    call.told(engagement_pb2.AwaitLockResponse(queued=common_pb2.Queued(position=3, blocked_by=blocked)))
    granted = engagement_pb2.Lock(
        item="a",
        kind="reply",
        worker="w",
        fencing_token=7,
        granted_at=Timestamp(seconds=5),
        expires_at=Timestamp(seconds=7),
    )
    call.told(engagement_pb2.AwaitLockResponse(granted=granted))
    call.lost()
    expected = h.Operation(
        1,
        "AwaitLock",
        h.Acquire([h.LockClaim("a", "reply", 2 * h.SECOND)], wait_ns=0, priority="HIGH"),
        "w",
        "r",
        [h.Place(2, 3, "HELD", "a")],
        3,
        h.Granted([h.Lock("a", "reply", "w", 7, 5 * h.SECOND, 7 * h.SECOND)]),
    )
    assert operation(recorder) == expected
    path = tmp_path / "history.jsonl"
    recorder.history().save(path)
    assert h.History.load(path).operations == [expected]


def test_what_is_not_answered_has_no_answer(recorder: Recorder) -> None:
    request = engagement_pb2.GetLockRequest(item="a")
    recorder.call("GetLock", request)
    recorder.call("GetLock", request).lost()
    recorder.call("GetLock", request).failed("UNAVAILABLE", "DRAINING")
    assert [each.answer for each in recorder.history().operations] == [
        None,
        None,
        h.Failed("UNAVAILABLE", "DRAINING"),
    ]


def test_what_is_said_on_a_sessions_stream(recorder: Recorder) -> None:
    recorder.call("Register", session_pb2.Register(worker="w")).told(
        session_pb2.Registered(session_id=4, held=[3])
    )
    assert operation(recorder).answer == h.Kept(4, [3])
    recorder = Recorder(itertools.count(1).__next__)
    recorder.call("Keepalive", session_pb2.Keepalive(), worker="w", session=4).told(session_pb2.KeptAlive())
    assert operation(recorder).ask == h.Keepalive(4)
    assert operation(recorder).worker == "w"


def test_a_world_is_the_settings_as_they_are_dumped() -> None:
    tables = {"limits": {"post": {"windows": {"15m": 3}}}, "kinds": {"like": {"lock_delay": "2s"}}}
    world = h.world(Settings.model_validate(tables).model_dump())
    assert world.limits["post"].windows == {900 * h.SECOND: 3}
    assert world.kinds["like"].lock_delay_ns == 2 * h.SECOND
    assert world.kinds["like"].min_interval_ns == 86_400 * h.SECOND


def test_nothing_of_the_judge_knows_the_daemon() -> None:
    for path in Path(h.__file__).parent.glob("*.py"):
        if not path.name.startswith("test_"):
            assert _imported(path) <= {*sys.stdlib_module_names, "audit", "msgspec", "sortedcontainers"}, path


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}
