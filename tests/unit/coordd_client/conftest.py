from collections.abc import AsyncIterator

import pytest
from client_servers import FAST, ScriptedServer, lock, reply

from coordd.v1 import engagement_pb2 as pb
from coordd_client import Client
from coordd_client.testing import InMemoryDaemon


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """A real server that grants locks and takes them back, unless the test has it do otherwise."""
    scripted = ScriptedServer()
    scripted.answers["RequestLock"] = reply(pb.RequestLockResponse(granted=lock()))
    scripted.answers["ReleaseLock"] = reply(pb.ReleaseLockResponse())
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Client]:
    async with Client(server.address, worker="w1", config=FAST) as made:
        yield made


@pytest.fixture
def daemon() -> InMemoryDaemon:
    return InMemoryDaemon(
        pools={"memory": 4},
        limits={"post": [(900, 3), (3600, 5)]},
        use_within_s=10,
        claim_window_s=60,
    )
