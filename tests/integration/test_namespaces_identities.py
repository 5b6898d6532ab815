"""Who may call in which namespace."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, refusal
from grpc_health.v1 import health_pb2, health_pb2_grpc
from identity_rig import TOKENS, by
from namespace_api import fleets, in_namespace, named

from coordd.access import fingerprint
from coordd.config import ConfigError, load
from coordd.server import Daemon
from coordd.v1 import admin_pb2

STATUS = admin_pb2.GetStatusRequest()


def identity(name: str, role: str, namespaces: str = "") -> str:
    return (
        f'[identities.{name}]\nrole = "{role}"\nworkers = ["*"]\n{namespaces}\n'
        f'token_sha256 = ["{fingerprint(TOKENS[name])}"]\n'
    )


BOUND = (
    identity("bots", "worker")
    + identity("rivals", "worker", 'namespaces = ["blue"]')
    + identity("eye", "operator", 'namespaces = ["blue"]')
    + identity("chief", "operator", 'namespaces = ["*"]')
)


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """To a daemon with two namespaces, and identities in one, the other, and both."""
    daemon = Daemon(load(fleets(tmp_path, more=BOUND), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        yield channel
    await daemon.stop(0)


@pytest.mark.parametrize(
    ("name", "where"),
    [("bots", {"default"}), ("rivals", {"blue"}), ("eye", {"blue"}), ("chief", {"default", "blue"})],
)
async def test_an_identity_may_call_where_it_is_bound_and_nowhere_else(
    channel: Any, name: str, where: set[str]
) -> None:
    for namespace in ("default", "blue"):
        api = in_namespace(channel, namespace, *by(name))
        if namespace in where:
            await api.lock("w1", name)
        else:
            code, reason, metadata = await refusal(api.lock("w1", name))
            assert (code, reason) == ("PERMISSION_DENIED", "NAMESPACE_REQUIRED")
            assert metadata == {"identity": name, "method": "/coordd.v1.EngagementService/RequestLock"}


async def test_whether_there_is_another_namespace_is_not_told(channel: Any) -> None:
    answers = [
        await refusal(in_namespace(channel, namespace, *by("rivals")).admin.GetStatus(STATUS))
        for namespace in ("default", "green")
    ]
    assert answers[0] == answers[1]
    # Who may call in all that there are may know.
    anywhere = in_namespace(channel, "green", *by("chief"))
    assert (await refusal(anywhere.admin.GetStatus(STATUS)))[1] == "UNKNOWN_NAMESPACE"
    stub: Any = health_pb2_grpc.HealthStub(channel)
    listed = await stub.List(health_pb2.HealthListRequest(), metadata=by("rivals"))
    assert not [name for name in listed.statuses if "blue" in name or "default" in name]


async def test_who_names_none_calls_in_the_default(channel: Any) -> None:
    assert (await refusal(Api(named(channel, *by("rivals"))).lock()))[1] == "NAMESPACE_REQUIRED"
    await Api(named(channel, *by("bots"))).lock()


async def test_the_audit_log_says_in_which_namespace(tmp_path: Path) -> None:
    more = f'{BOUND}[audit]\npath = "{tmp_path / "audit.jsonl"}"\n'
    daemon = Daemon(load(fleets(tmp_path, more=more), {}))
    await daemon.start()
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        for name, namespace in (("chief", "blue"), ("eye", "x" * 99)):
            drain = in_namespace(channel, namespace, *by(name)).admin.Drain(admin_pb2.DrainRequest())
            if name == "chief":
                await drain
            else:
                assert (await refusal(drain))[1] == "NAMESPACE_REQUIRED"
    await daemon.stop(0)
    written = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["namespace"], line["result"]) for line in written] == [
        ("chief", "blue", "OK"),
        ("eye", "x" * 64, "NAMESPACE_REQUIRED"),
    ]


def test_an_identity_is_bound_to_namespaces_that_there_are(tmp_path: Path) -> None:
    bound = identity("bots", "worker", 'namespaces = ["blue", "bleu", "b*"]')
    with pytest.raises(ConfigError) as refused:
        load(fleets(tmp_path, more=bound), {})
    assert refused.value.problems == (
        f"{tmp_path / 'coordd.toml'}: identities.bots.namespaces: there is no namespace 'bleu'",
    )
