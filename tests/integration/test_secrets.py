"""Nothing that the daemon writes has a token in it: at any level, in any form, whatever fails."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import Api
from identity_rig import IDENTITIES, TOKENS, api_of, by, guarded_config

from coordd.access import fingerprint
from coordd.v1 import admin_pb2, engagement_pb2

# A daemon in which recognising somebody fails as no code of ours should, with the token at hand.
BROKEN = """
import sys
from coordd.access import directory
from coordd.cli.daemon import main

def broken(known, given):
    raise RuntimeError("a defect")

real = directory.hmac.compare_digest
directory.hmac.compare_digest = lambda *both: (broken if both[0] == BROKEN else real)(*both)
main(["serve", "--config", sys.argv[1]])
"""


@pytest.fixture(params=["json", "console"])
async def written(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """A daemon that writes all it can; yield its address, and what ends it and returns all that it wrote."""
    audit = tmp_path / "audit.jsonl"
    more = f'[log]\nlevel = "debug"\nformat = "{request.param}"\n[audit]\npath = "{audit}"\n{IDENTITIES}'
    script = BROKEN.replace("== BROKEN", f"== {fingerprint(TOKENS['eye'])!r}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        guarded_config(tmp_path, more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"GRPC_VERBOSITY": "DEBUG"},
    )
    assert process.stdout is not None
    first = await process.stdout.readline()

    async def end() -> str:
        process.terminate()
        out, err = await process.communicate()
        return (first + out + err).decode() + audit.read_text()

    yield first.split()[3].decode(), end
    if process.returncode is None:
        process.kill()
        await process.communicate()


async def test_no_token_is_ever_written(written: Any) -> None:
    address, end = written
    async with grpc.aio.insecure_channel(address) as channel:
        status = admin_pb2.GetStatusRequest()
        await api_of(channel, "chief").admin.Drain(admin_pb2.DrainRequest(undo=True))
        await api_of(channel, "bots").lock("bot-1")
        stolen = engagement_pb2.RequestLockRequest(item="j", worker="rival-1", kind="analysis")
        codes = [
            await code_of(Api(channel).admin.GetStatus(status, metadata=metadata))
            for metadata in (by("eye"), by("nobody"), [("authorization", "Basic c2VjcmV0OnBhc3N3b3Jk")])
        ]
        codes.append(await code_of(api_of(channel, "bots").engagement.RequestLock(stolen)))
    assert codes == ["INTERNAL", "UNAUTHENTICATED", "UNAUTHENTICATED", "PERMISSION_DENIED"]
    told = await end()
    # It is all there: the calls, the refusals, the traceback of the defect ...
    for part in ("a defect", "GetStatus", "UNKNOWN_TOKEN", "WORKER_REQUIRED", "AdminService/Drain", "broken"):
        assert part in told
    # ... and nothing of who called.
    for secret in (*TOKENS.values(), "c2VjcmV0OnBhc3N3b3Jk", *map(fingerprint, TOKENS.values())):
        assert secret not in told
    assert "bearer" not in told.replace("Bearer $COORDD_TOKEN", "").lower()


async def code_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"
