"""The log as JSON: every line of a call has the call's id, and so does the client whose call fails."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api, DaemonProcess

from coordd.v1 import admin_pb2, engagement_pb2
from coordd_client import Client, CoorddError, blocking

JSON_LOG = """
[log]
format = "json"
level = "debug"
slow_call = "0s"
"""
MADE = re.compile(r"[0-9a-f]{16}")


class Logging:
    """A daemon that logs JSON, and its lines once it has ended."""

    def __init__(self, process: DaemonProcess) -> None:
        self._process = process
        self.address = process.address
        self.channel = grpc.aio.insecure_channel(process.address)
        self.api = Api(self.channel)

    async def fail(self, *metadata: tuple[str, str]) -> str:
        """Make a call that fails; return the id that it was given back."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.api.engagement.RequestLock(engagement_pb2.RequestLockRequest(), metadata=metadata)
        return str(dict(caught.value.trailing_metadata())["x-request-id"])

    async def lines(self) -> list[dict[str, Any]]:
        await self.channel.close()
        _, errors = await self._process.stop()
        return [json.loads(line) for line in errors.splitlines()]


@pytest.fixture
async def logging(config: Path) -> Logging:
    config.write_text(config.read_text() + JSON_LOG)  # noqa: ASYNC240
    return Logging(await DaemonProcess.start(config))


async def test_a_call_that_fails_has_one_id_for_its_client_and_its_lines(logging: Logging) -> None:
    made, given = await logging.fail(), await logging.fail(("x-request-id", "proxy:7/a.b-c"))
    assert MADE.fullmatch(made)
    assert given == "proxy:7/a.b-c"
    calls = [line for line in await logging.lines() if line["event"] == "call"]
    assert [(line["call_id"], line["code"], line["reason"]) for line in calls] == [
        (made, "INVALID_ARGUMENT", "INVALID_ID"),
        (given, "INVALID_ARGUMENT", "INVALID_ID"),
    ]


async def test_an_id_that_could_break_a_line_is_not_taken(logging: Logging) -> None:
    for bad in ("", "a b", 'a"b', "x" * 65, "{}"):
        assert MADE.fullmatch(await logging.fail(("x-request-id", bad)))
    await logging.lines()


async def test_calls_at_once_keep_their_ids_apart(logging: Logging) -> None:
    async def update(number: int) -> None:
        request = admin_pb2.UpdatePoolRequest(name="small", capacity=number)
        await logging.api.admin.UpdatePool(request, metadata=(("x-request-id", f"update-{number}"),))

    await asyncio.gather(*(update(number) for number in range(1, 21)))
    updated = [line for line in await logging.lines() if line["event"] == "pool updated"]
    assert len(updated) == 20
    assert all(line["call_id"] == f"update-{line['capacity']}" for line in updated)


async def test_what_belongs_to_no_call_has_no_id_and_every_line_its_form(logging: Logging) -> None:
    await logging.api.lock()
    lines = await logging.lines()
    assert {"serving", "call", "stopped"} <= {line["event"] for line in lines}
    for line in lines:
        assert {"event", "level", "timestamp"} <= line.keys()
        assert ("call_id" in line) == (line["event"] == "call")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


async def test_both_clients_tell_the_id_of_a_call_that_fails(logging: Logging) -> None:
    ids = []
    async with Client(logging.address, worker="w1") as client:
        with pytest.raises(CoorddError) as caught:
            await client.remaining_capacity("nothing")
        ids.append(caught.value.call_id)

    def ask() -> None:
        with blocking.Client(logging.address, worker="w1") as client:
            client.remaining_capacity("nothing")

    with pytest.raises(CoorddError) as caught:
        await asyncio.to_thread(ask)
    ids.append(caught.value.call_id)
    assert [line["call_id"] for line in await logging.lines() if line["event"] == "call"] == ids
