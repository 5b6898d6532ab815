import enum
import importlib.util
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from client_servers import METHODS

import coordd_client
from coordd.v1 import common_pb2, engagement_pb2, rate_limit_pb2
from coordd_client import (
    blocking,
    bundles,
    claims,
    errors,
    locks,
    permits,
    reservations,
    sessions,
    testing,
    values,
)
from coordd_client.messages import Method


def _public(module: types.ModuleType) -> set[str]:
    names = {name for name in vars(module) if not name.startswith("_")}
    return {name for name in names if not isinstance(getattr(module, name), types.ModuleType)}


def _own(module: types.ModuleType) -> set[str]:
    return {
        name
        for name in _public(module)
        if isinstance(getattr(module, name), type) and getattr(module, name).__module__ == module.__name__
    }


def test_all_is_exactly_what_is_public():
    assert set(coordd_client.__all__) == _public(coordd_client)
    assert set(coordd_client.__all__) >= _own(values) | _own(errors)
    assert set(errors.__all__) == _own(errors)
    assert set(blocking.__all__) == _own(blocking)
    assert set(coordd_client.__all__) >= set(claims.__all__)
    assert set(testing.__all__) == _own(testing)
    assert list(coordd_client.__all__) == sorted(coordd_client.__all__)


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "─" in line]
    names = {line.split("─ ")[1].split()[0]: line.index("─") for line in drawn}
    assert set(names) == set(errors.__all__) - {"CoorddError"}
    for name, indent in names.items():
        parent = getattr(errors, name).__mro__[1]
        assert (parent is errors.CoorddError) == (indent == min(names.values())), name


def test_every_rpc_has_its_method():
    described = {
        method.path: (method.request.DESCRIPTOR, method.reply.DESCRIPTOR)
        for module in (locks, reservations, permits, bundles, sessions)
        for method in vars(module).values()
        if isinstance(method, Method)
    }
    assert described == {
        f"/{method.containing_service.full_name}/{method.name}": (method.input_type, method.output_type)
        for method in METHODS.values()
    }


@pytest.mark.parametrize(
    ("own", "wire"),
    [
        (values.Priority, common_pb2.Priority),
        (values.RefusalReason, common_pb2.RefusalReason),
        (values.Outcome, engagement_pb2.Outcome),
        (values.ItemState, engagement_pb2.ItemState),
        (values.UsageResult, rate_limit_pb2.UsageResult),
        (values.Health, rate_limit_pb2.Health),
    ],
)
def test_enums_are_those_of_the_wire(own: type[enum.IntEnum], wire: Any):
    prefix = wire.Name(0).removesuffix("UNSPECIFIED")
    assert {prefix + each.name: each.value for each in own} == dict(wire.items())
    assert own(99) is own(0), "a newer daemon's number must not fail the reply"


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_cross_process_borders(name: str):
    cls = getattr(errors, name)
    refusal = values.Refusal(values.RefusalReason.HELD, "tweet:1", holder="w2", retry_after_s=1.5)
    error = cls(refusal) if issubclass(cls, errors.Refused) else cls("why", reason="R", metadata={"a": "b"})
    same = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(same) is cls
    assert (str(same), vars(same)) == (str(error), vars(error))


def test_a_blocks_and_a_calls_signature_can_be_read():
    assert coordd_client.Client.get_lock.__name__ == "get_lock"
    assert "free, in progress" in (coordd_client.Client.get_lock.__doc__ or "")
    worker_is_known = "worker" not in str(coordd_client.Client.schedule.__signature__)  # type: ignore[attr-defined]
    assert worker_is_known


async def test_a_call_that_is_not_awaited_is_named(daemon: testing.InMemoryDaemon):
    async with daemon.client("w1") as client:
        for call in (client.get_lock("x"), client.schedule("post")):
            name = call.__qualname__
            call.close()
            assert name in {"Client.get_lock", "Client.schedule"}
    assert blocking.Client.get_lock.__qualname__ == "Client.get_lock"


def test_both_clients_have_the_same_methods():
    def methods(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    # A session needs something that runs beside one's code.
    assert methods(blocking.Client) == methods(coordd_client.Client) - {"session"}


def test_no_code_of_the_daemon_is_imported():
    script = (
        "import sys, coordd_client.blocking, coordd_client.testing;"
        "print(*sorted(name for name in sys.modules if name.startswith('coordd.')))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {name.split(".")[1] for name in run.stdout.split()} == {"v1"}


def test_it_is_marked_as_typed():
    spec = importlib.util.find_spec("coordd_client")
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").exists()
