"""`coordctl health`: the probe of containers and supervisors, which have no identity."""

import asyncio
import hashlib
from pathlib import Path

from daemon_api import BIN, DaemonProcess
from namespace_api import fleets


async def health(*args: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "coordctl", *args, "health", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    return process.returncode, (out + errors).decode()


async def test_it_says_whether_the_daemon_and_a_namespace_serve(tmp_path: Path) -> None:
    token = hashlib.sha256(b"a token").hexdigest()
    identity = f'[identities.me]\nrole = "operator"\ntoken_sha256 = ["{token}"]\n'
    process = await DaemonProcess.start(fleets(tmp_path, more=identity))
    address = ("--address", process.address)
    assert await health(*address) == (0, "serving\n")
    assert await health(*address, "--namespace", "blue") == (0, "serving\n")
    assert (await health(*address, "--namespace", "red"))[0] == 4
    await process.stop()
    code, told = await health(*address)
    assert code == 3
    assert told.startswith("coordctl health: cannot reach the daemon at ")
