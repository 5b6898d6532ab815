"""SIGHUP: the configuration is read again; what it says holds at once, or all of the old one stays."""

# A test has its event loop for itself, so it may block it.
# ruff: noqa: ASYNC240

import asyncio
import gc
import os
import pty
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from daemon_api import BIN, Api, DaemonProcess, refusal, stream_refusal
from namespace_api import in_namespace

from coordd.config import load
from coordd.core.parts import Parts
from coordd.server import Daemon
from coordd.v1 import admin_pb2, engagement_pb2


async def line(process: DaemonProcess, text: str) -> str:
    """Return the next line of the log that has `text` in it."""
    assert process.process.stderr is not None
    while text not in (read := (await process.process.stderr.readline()).decode()):
        assert read, f"no line with {text!r}"
    return read


async def reloaded(process: DaemonProcess, config: Path, change: Callable[[str], str]) -> str:
    """Change the file, send SIGHUP, and return what the log says of it."""
    config.write_text(change(config.read_text()))
    process.process.send_signal(signal.SIGHUP)
    told = []
    while "configuration reloaded" not in (read := await line(process, "")):
        told.append(read)
    return "".join(told)


async def test_rules_hold_at_once_and_the_log_says_which_changed(
    process: DaemonProcess, config: Path
) -> None:
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        held = await api.lock("w1", request_id="r")
        units = await api.reserve("slot", units=3)
        stream = api.await_lock("w2", request_id="r")
        assert (await stream.read()).HasField("queued")
        for _ in range(3):
            await api.permit()
        told = await reloaded(
            process,
            config,
            lambda text: (
                text.replace("capacity = 3", "capacity = 4").replace('"15m" = 3', '"15m" = 4')
                + '[kinds.new]\nttl = "7s"\n[log]\nlevel = "debug"\n'
            ),
        )
        assert "after=4 before=3 key=pools.small.capacity namespace=default" in told
        assert "after='4/15m, 5/1h' before='3/15m, 5/1h' key=limits.post.windows" in told
        assert "after=7s before=- key=kinds.new.ttl" in told
        assert "after=debug before=info key=log.level" in told
        await api.permit()
        assert (await api.reserve("slot", "w2")).units == 1
        assert (await api.lock("w3", "other", "new")).expires_in.seconds in {6, 7}
        await line(process, "RequestLock")
        # Who waits, waits on; who holds, holds on; a request id stays what it was.
        assert (await api.lock("w1", request_id="r")).fencing_token == held.fencing_token
        await api.unlock(held)
        while not (event := await stream.read()).HasField("granted"):
            pass
        assert event.granted.worker == "w2"
        assert units.reservation_id < event.granted.fencing_token
    assert (await process.stop())[0] == 0


async def test_what_is_invalid_is_told_problem_by_problem_and_nothing_changes(
    process: DaemonProcess, config: Path
) -> None:
    good = config.read_text()
    config.write_text(good.replace("capacity = 3", "capacity = -3") + "[aging]\nmedium = 1\n[limits.new]\n")
    process.process.send_signal(signal.SIGHUP)
    refused = [await line(process, "configuration refused") for _ in range(3)]
    assert [
        "pools.small.capacity" in refused[0],
        "limits.new" in refused[1],
        "aging.medium" in refused[2],
    ] == [True] * 3
    await line(process, "the old configuration stays")
    async with grpc.aio.insecure_channel(process.address) as channel:
        pools = (await Api(channel).admin.ListPools(admin_pb2.ListPoolsRequest())).pools
        assert [pool.capacity for pool in pools if pool.name == "small"] == [3]
    told = await reloaded(process, config, lambda _: good.replace("capacity = 3", "capacity = 5"))
    assert told.count("setting changed") == 1


async def test_what_takes_a_restart_is_told_at_each_reload(process: DaemonProcess, config: Path) -> None:
    change = '"127.0.0.1:0"', '"127.0.0.1:1"'
    for _ in range(2):
        told = await reloaded(
            process, config, lambda text: text.replace(*change).replace("coordd.db", "o.db")
        )
        assert "setting takes a restart" in told
        assert "after=127.0.0.1:1 before=127.0.0.1:0 key=server.address" in told
        assert "key=store.path" in told
        assert "setting changed" not in told
    assert "restart" not in await reloaded(
        process, config, lambda text: text.replace(*reversed(change)).replace("o.db", "coordd.db")
    )


async def test_a_wait_for_what_is_gone_ends_as_a_newcomers_would(
    process: DaemonProcess, config: Path
) -> None:
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        await api.lock("w1", kind="reply")
        stream = api.await_lock("w2", kind="reply")
        assert (await stream.read()).HasField("queued")
        await reloaded(
            process, config, lambda text: text.replace("[kinds.reply]", "[kinds.reply]\nenabled = false")
        )
        assert (await stream_refusal(stream))[:2] == ("INVALID_ARGUMENT", "UNKNOWN_KIND")
        asked = engagement_pb2.RequestLockRequest(item="i", worker="w2", kind="reply")
        assert (await refusal(api.engagement.RequestLock(asked)))[1] == "UNKNOWN_KIND"


async def test_a_restart_with_the_same_file_comes_to_the_same(process: DaemonProcess, config: Path) -> None:
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        await api.lock("w1")
        await api.permit()
        await reloaded(process, config, lambda text: text.replace('"15m" = 3', '"30m" = 3'))
        before = [await used(api), await held(api)]
    await process.stop()
    again = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(again.address) as channel:
        api = Api(channel)
        assert [await used(api), await held(api)] == before
    await again.stop()


async def used(api: Api) -> Any:
    limits = (await api.admin.ListLimits(admin_pb2.ListLimitsRequest())).limits
    return [
        (limit.endpoint, window.name, window.limit, window.used)
        for limit in limits
        for window in limit.windows
    ]


async def held(api: Api) -> Any:
    status = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
    return status.locks, status.permits, status.bookings, status.reservations


async def test_a_namespace_is_reloaded_with_its_own_file(tmp_path: Path, config: Path) -> None:
    (tmp_path / "blue.toml").write_text('[kinds.analysis]\nttl = "5s"\n')
    config.write_text(config.read_text() + '[namespaces.blue]\nfile = "blue.toml"\n')
    process = await DaemonProcess.start(config)
    (tmp_path / "blue.toml").write_text('[kinds.analysis]\nttl = "9s"\n')
    told = await reloaded(process, config, lambda text: text + '[namespaces.red]\nfile = "blue.toml"\n')
    assert "after=9s before=5s key=kinds.analysis.ttl namespace=blue" in told
    assert "after=blue.toml before=- key=namespaces.red.file namespace=default" in told
    async with grpc.aio.insecure_channel(process.address) as channel:
        assert (await in_namespace(channel, "blue").lock()).expires_in.seconds in {8, 9}
        assert (await Api(channel).lock()).expires_in.seconds > 9
    await process.stop()


async def test_what_the_machine_was_made_of_before_is_freed(daemon: Daemon, api: Api, config: Path) -> None:
    """It was kept from the collector since the start, and refers to itself."""
    await api.lock()
    for capacity in range(4, 7):
        config.write_text(re.sub(r"capacity = \d", f"capacity = {capacity}", config.read_text()))
        await daemon.reload(load(config, {}))
    assert (await held(api))[0] == 1
    gc.unfreeze()
    try:
        assert sum(isinstance(each, Parts) for each in gc.get_objects()) == 1
    finally:
        gc.freeze()


async def test_signals_before_it_serves_are_heard(config: Path) -> None:
    """SIGTERM during the start ends it well, and SIGHUP then is done once it serves."""
    process = await DaemonProcess.start(config)
    for _ in range(3):
        process.process.send_signal(signal.SIGHUP)
    process.process.send_signal(signal.SIGTERM)
    code, errors = await process.stop()
    assert code == 0
    assert "Traceback" not in errors


async def test_a_closed_terminal_stops_it(config: Path) -> None:
    """SIGHUP says that then; with a terminal that is there it reloads, as ever."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        BIN / "coordd", "serve", "--config", config, stdout=asyncio.subprocess.PIPE, stderr=slave
    )
    os.close(slave)
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    seen = b""
    while b"configuration reloaded" not in seen:
        seen += await asyncio.to_thread(os.read, master, 4096)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    await process.communicate()
    assert process.returncode == 0


async def test_reloads_under_load_lose_nothing(process: DaemonProcess, config: Path) -> None:
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        granted: list[int] = []

        async def work(worker: str) -> None:
            for number in range(200):
                lock = await api.lock(worker, f"{worker}/{number}")
                granted.append(lock.fencing_token)

        workers = [asyncio.create_task(work(f"w{number}")) for number in range(8)]
        for capacity in range(4, 9):
            await reloaded(
                process,
                config,
                lambda text, n=capacity: text.replace(f"capacity = {n - 1}", f"capacity = {n}"),
            )
        await asyncio.gather(*workers)
        assert len(set(granted)) == 8 * 200
        assert (await held(api))[0] == 8 * 200
    assert (await process.stop())[0] == 0
