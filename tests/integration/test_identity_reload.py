"""Identities that change while streams are open: who may no longer call is shown out, the others go on."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import DEADLINE_S, Api, DaemonProcess, refusal, rest, stream_refusal
from grpc_health.v1 import health_pb2, health_pb2_grpc
from identity_rig import IDENTITIES, TOKENS, api_of, by, guarded_config
from tls_files import Files

from coordd.access import fingerprint
from coordd.config import load
from coordd.server import Daemon, Misconfigured
from coordd.v1 import admin_pb2, session_pb2

WITHOUT_BOTS = IDENTITIES.replace("[identities.bots]", "[identities.others]").replace(
    fingerprint(TOKENS["bots"]), fingerprint("another")
)


async def opened(channel: grpc.aio.Channel, name: str) -> dict[str, Any]:
    """Open a stream of each sort by one identity, and wait until each has begun."""
    api, worker = api_of(channel, name), "bot-1"
    await api.lock("bot-2", item=name)
    waiting = api.await_lock(worker, item=name, request_id=f"{name}-waits")
    assert (await waiting.read()).HasField("queued")
    session, _ = await api.connect(worker)
    events = api.admin.WatchEvents(admin_pb2.WatchEventsRequest(), timeout=DEADLINE_S)
    await events.initial_metadata()
    stub: Any = health_pb2_grpc.HealthStub(channel)
    health = stub.Watch(health_pb2.HealthCheckRequest(), metadata=by(name), timeout=DEADLINE_S)
    await health.read()
    return {"AwaitLock": waiting, "Connect": session, "WatchEvents": events, "Watch": health}


def replace(guarded: Daemon, tmp_path: Path, identities: str) -> None:
    guarded.replace_identities(load(guarded_config(tmp_path, identities), {}))


async def test_streams_of_who_is_known_no_longer_end_and_others_go_on(
    guarded: Daemon, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    chief = api_of(channel, "chief")
    watched = chief.admin.WatchEvents(admin_pb2.WatchEventsRequest(), timeout=DEADLINE_S)
    await watched.initial_metadata()
    streams = await opened(channel, "bots")
    replace(guarded, tmp_path, WITHOUT_BOTS)
    for stream in streams.values():
        assert await stream_refusal(stream) == ("UNAUTHENTICATED", "UNKNOWN_TOKEN", {})
    bots = api_of(channel, "bots")
    status = admin_pb2.GetStatusRequest()
    assert (await refusal(bots.admin.GetStatus(status)))[0] == "UNAUTHENTICATED"
    # Its wait has its place for a while, as of any stream that broke; what it holds runs out by itself.
    counts = await chief.admin.GetStatus(status)
    assert (counts.waiters_away, counts.locks) == (1, 1)
    await chief.lock("anybody", item="new")
    assert "new" in [event.name async for event in first_of(watched, "new")]


async def first_of(events: Any, name: str) -> AsyncIterator[Any]:
    async for event in rest(events):
        yield event
        if event.name == name:
            return


async def test_a_lesser_role_ends_what_takes_more(
    guarded: Daemon, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    streams = await opened(channel, "bots")
    looking = IDENTITIES.replace('role = "worker"', 'role = "observer"', 1)
    replace(guarded, tmp_path, looking)
    for name in ("AwaitLock", "Connect"):
        code, reason, metadata = await stream_refusal(streams[name])
        assert (code, reason, metadata["identity"]) == ("PERMISSION_DENIED", "ROLE_REQUIRED", "bots")
    # What an observer may is not touched: it would end only now.
    await api_of(channel, "chief").lock("anybody", item="new")
    assert "new" in [event.name async for event in first_of(streams["WatchEvents"], "new")]


async def test_fewer_names_end_what_is_in_others(
    guarded: Daemon, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    streams = await opened(channel, "bots")
    replace(guarded, tmp_path, IDENTITIES.replace('"bot-*"', '"bot-2"'))
    for name in ("AwaitLock", "Connect"):
        assert (await stream_refusal(streams[name]))[:2] == ("PERMISSION_DENIED", "WORKER_REQUIRED")


async def test_a_token_may_be_replaced_while_the_other_still_holds(
    guarded: Daemon, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    streams = await opened(channel, "bots")
    both = IDENTITIES.replace(
        f'["{fingerprint(TOKENS["bots"])}"]', f'["{fingerprint("next")}", "{fingerprint(TOKENS["bots"])}"]'
    )
    replace(guarded, tmp_path, both)
    await streams["Connect"].write(session_pb2.ConnectRequest(keepalive=session_pb2.Keepalive()))
    assert (await streams["Connect"].read()).HasField("kept_alive")
    metadata = [("authorization", "Bearer next")]
    await Api(channel).admin.GetStatus(admin_pb2.GetStatusRequest(), metadata=metadata)


async def test_the_door_neither_opens_nor_closes_without_a_restart(
    guarded: Daemon, channel: grpc.aio.Channel, tmp_path: Path, daemon: Daemon
) -> None:
    """A file that has lost its identities must not let everybody in."""
    with pytest.raises(Misconfigured, match="can't be begun or given up without a restart"):
        replace(guarded, tmp_path, "")
    assert (await refusal(Api(channel).admin.GetStatus(admin_pb2.GetStatusRequest())))[0] == "UNAUTHENTICATED"
    with pytest.raises(Misconfigured):
        replace(daemon, tmp_path, IDENTITIES)


async def test_who_is_taken_out_of_the_file_is_shown_out_by_sighup(tmp_path: Path) -> None:
    """The whole way: a real daemon with TLS, its file, the signal, a stream that was open."""
    files = Files(tmp_path)
    config = guarded_config(tmp_path, files.table() + IDENTITIES)
    process = await DaemonProcess.start(config)
    credentials = grpc.ssl_channel_credentials(files.ca.cert_pem.bytes())
    address = process.address.replace("127.0.0.1", "localhost")
    async with grpc.aio.secure_channel(address, credentials) as connection:
        bots = api_of(connection, "bots")
        events = bots.admin.WatchEvents(admin_pb2.WatchEventsRequest(), timeout=DEADLINE_S)
        await events.initial_metadata()
        guarded_config(tmp_path, files.table() + WITHOUT_BOTS)
        process.process.send_signal(signal.SIGHUP)
        assert await stream_refusal(events) == ("UNAUTHENTICATED", "UNKNOWN_TOKEN", {})
        await api_of(connection, "chief").admin.GetStatus(admin_pb2.GetStatusRequest())
        # A file that has lost all of them is refused, and opens nothing.
        guarded_config(tmp_path, files.table())
        process.process.send_signal(signal.SIGHUP)
        await line(process, "can't be begun or given up without a restart")
        status = Api(connection).admin.GetStatus(admin_pb2.GetStatusRequest())
        assert (await refusal(status))[0] == "UNAUTHENTICATED"
    code, told = await process.stop()
    assert code == 0
    assert not any(fingerprint(token) in told for token in TOKENS.values())


async def line(process: DaemonProcess, text: str) -> None:
    assert process.process.stderr is not None
    while text not in (read := (await process.process.stderr.readline()).decode()):
        assert read, f"no line with {text!r}"
        assert not any(fingerprint(token) in read for token in TOKENS.values())
