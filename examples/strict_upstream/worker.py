"""One process of the fleet: calls as fast as it is permitted, and reports what upstream answers.

It never looks at the answer itself: to slow down is the daemon's business.
"""

import argparse
import asyncio
import time
from typing import Final

import httpx

from coordd_client import Client
from examples.demo.settings import ENDPOINT, POST_PATH

# Calls that one process has under way at once at most.
_TASKS: Final = 2
_PERMIT_WAIT_S: Final = 60.0


async def _work(client: Client, upstream: httpx.AsyncClient, name: str, until_s: float) -> None:
    while time.time() < until_s:
        async with client.permit(ENDPOINT, wait=_PERMIT_WAIT_S) as permit:
            # Upstream's log names the permit, so that the judge knows when it was granted.
            body = {"in_reply_to": str(permit.grant.permit_id), "worker": name}
            response = await upstream.post(POST_PATH, json=body, timeout=permit.use_within_s)
            permit.response(response.status_code, response.headers.multi_items())


async def _run(given: argparse.Namespace) -> None:
    upstream = httpx.AsyncClient(base_url=f"http://{given.upstream}", trust_env=False)
    async with Client(given.daemon, worker=given.name) as client, upstream, asyncio.TaskGroup() as tasks:
        print("ready", flush=True)
        for _ in range(_TASKS):
            tasks.create_task(_work(client, upstream, given.name, given.until))


def main() -> None:
    """Work until a given instant."""
    parser = argparse.ArgumentParser(prog="python -m examples.strict_upstream.worker", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--daemon", required=True, help="address of the daemon, HOST:PORT")
    parser.add_argument("--upstream", required=True, help="address of the upstream, HOST:PORT")
    parser.add_argument("--until", required=True, type=float, help="unix time of its last permit")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
