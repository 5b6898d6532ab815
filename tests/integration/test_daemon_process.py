"""`coordd serve` as a process: what it prints, how it ends, what it refuses, what a restart finds."""

import asyncio
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemon_api import CONFIG, Api, DaemonProcess, failure, launch, refusal, rest, stream_refusal
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordd.v1 import admin_pb2


def api_of(process: DaemonProcess) -> Any:
    return grpc.aio.insecure_channel(process.address)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_it_says_where_it_serves_and_how_to_try_it(process: DaemonProcess, tmp_path: Path) -> None:
    serving, try_it, or_this = process.lines
    assert serving == f"coordd serving on {process.address} (data: {tmp_path}/data/coordd.db)\n"
    assert try_it.startswith("try: grpcurl -plaintext -d '{")
    assert process.address in try_it
    assert or_this == f"try: coordctl --address {process.address} status\n"


async def test_it_names_its_data_wherever_it_was_started(tmp_path: Path) -> None:
    config = tmp_path / "coordd.toml"
    config.write_text(CONFIG.format(address="127.0.0.1:0", path="data/coordd.db"))
    process = await DaemonProcess.start(config, directory=tmp_path)
    _, errors = await process.stop()
    assert process.lines[0].endswith(f"(data: {tmp_path}/data/coordd.db)\n")
    assert f"data={tmp_path}/data/coordd.db" in errors


async def test_it_logs_what_it_has_recovered_and_how_long_it_waits_at_the_end(config: Path) -> None:
    first = await DaemonProcess.start(config)
    async with api_of(first) as channel:
        api = Api(channel)
        await api.lock()
        await api.lock(item="another")
        await api.reserve("slot")
        await api.book()
        stream = api.await_lock("w2", request_id="r")
        assert (await stream.read()).HasField("queued")
        stream.cancel()
        await first.stop(signal.SIGKILL)
    second = await DaemonProcess.start(config)
    _, errors = await second.stop()
    [serving] = [line for line in errors.splitlines() if "] serving " in line]
    fields = serving.partition("] serving ")[2].split()
    assert {f"address={second.address}", "locks=2", "reservations=1", "permits=0", "bookings=1"} <= {*fields}
    assert "waiters=1" in fields
    assert "stopping: waits up to 5 s for calls under way" in errors


async def test_streams_end_saying_that_the_daemon_stops(process: DaemonProcess) -> None:
    async with api_of(process) as channel:
        api = Api(channel)
        await api.lock("w1")
        events = api.admin.WatchEvents(admin_pb2.WatchEventsRequest())
        await events.initial_metadata()
        stream = api.await_lock("w2", request_id="r")
        assert (await stream.read()).HasField("queued")
        process.process.send_signal(signal.SIGTERM)
        for ending in (stream, events):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in rest(ending):
                    pass
            assert failure(caught.value)[:2] == ("UNAVAILABLE", "DRAINING")
            assert caught.value.details() == "the daemon is stopping"
    assert (await process.stop())[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_well(process: DaemonProcess, number: signal.Signals) -> None:
    async with api_of(process) as channel:
        await Api(channel).lock()
    code, errors = await process.stop(number)
    assert code == 0
    assert errors.splitlines()[-1].split()[-1] == "stopped"
    assert "Traceback" not in errors


async def test_a_signal_ends_waits_with_unavailable(process: DaemonProcess) -> None:
    async with api_of(process) as channel:
        api = Api(channel)
        await api.lock("w1")
        stream = api.await_lock("w2", request_id="r")
        assert (await stream.read()).HasField("queued")
        process.process.send_signal(signal.SIGTERM)
        assert (await stream_refusal(stream))[:2] == ("UNAVAILABLE", "DRAINING")
    assert (await process.stop())[0] == 0


async def test_a_second_daemon_on_the_same_data_is_refused(process: DaemonProcess, config: Path) -> None:
    code, errors = await ended(await launch(config))
    assert code == 3
    assert len(errors.splitlines()) == 1
    assert f"process {process.process.pid}" in errors


async def test_an_address_that_is_taken_is_refused_with_nothing_touched(
    process: DaemonProcess, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.format(address=process.address, path=tmp_path / "other" / "coordd.db"))
    code, errors = await ended(await launch(other))
    assert code == 5
    assert len(errors.splitlines()) == 1
    assert f"can't listen on {process.address}: Address already in use; is another coordd running" in errors
    assert "COORDD_ADDRESS or [server] address changes it" in errors
    assert not (tmp_path / "other").exists()


async def test_what_was_granted_is_there_after_a_restart(config: Path) -> None:
    first = await DaemonProcess.start(config)
    async with api_of(first) as channel:
        api = Api(channel)
        lock = await api.lock("w1", "tweet:1", "like", request_id="r")
        units = await api.reserve("slot", units=2)
        permit = await api.permit(permits=2)
        booking = await api.book()
        before = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert (await first.stop(signal.SIGKILL))[0] == -signal.SIGKILL
    second = await DaemonProcess.start(config)
    async with api_of(second) as channel:
        api = Api(channel)
        after = await api.admin.GetStatus(admin_pb2.GetStatusRequest())
        assert held(after) == held(before)
        again = await api.lock("w1", "tweet:1", "like", request_id="r")
        assert again.fencing_token == lock.fencing_token
        ids = [lock.fencing_token, units.reservation_id, permit.permit_id, booking.booking_id]
        assert (await api.lock("w2", "tweet:2")).fencing_token > max(ids)
        limits = (await api.admin.ListLimits(admin_pb2.ListLimitsRequest())).limits
        assert [window.used for window in limits[1].windows] == [3, 3]
    assert (await second.stop())[0] == 0


def held(status: Any) -> tuple[int, ...]:
    return status.locks, status.reservations, status.permits, status.bookings


async def test_a_wait_goes_on_after_a_restart(config: Path) -> None:
    first = await DaemonProcess.start(config)
    async with api_of(first) as channel:
        api = Api(channel)
        lock = await api.lock("w1")
        stream = api.await_lock("w2", request_id="r")
        assert (await stream.read()).HasField("queued")
        await first.stop(signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    second = await DaemonProcess.start(config)
    async with api_of(second) as channel:
        api = Api(channel)
        newcomer = api.await_lock("w3")
        assert (await newcomer.read()).HasField("queued")
        resumed = api.await_lock("w2", request_id="r")
        assert (await resumed.read()).queued.position == 1
        await api.unlock(lock)
        events = [event async for event in rest(resumed)]
        assert events[-1].granted.worker == "w2"
    assert (await second.stop())[0] == 0


def small_files(size: int) -> Callable[[], None]:
    """Let no file of the process grow beyond `size` bytes: to SQLite, a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def fill(api: Api, granted: list[int]) -> None:
    while True:
        granted.append((await api.lock("w1", f"{len(granted)}/" + "x" * 500)).fencing_token)


async def test_a_full_disk_ends_it_and_nothing_acknowledged_is_lost(config: Path) -> None:
    process = await DaemonProcess.start(config, preexec=small_files(600_000))
    granted: list[int] = []
    async with api_of(process) as channel:
        api = Api(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await fill(api, granted)
        assert failure(caught.value)[:2] == ("UNAVAILABLE", "STORE_FAILED")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
    code, errors = await ended(process.process)
    assert code == 4
    assert "the store failed; nothing unsaved was acknowledged" in errors
    assert "Traceback" not in errors
    again = await DaemonProcess.start(config)
    async with api_of(again) as channel:
        status = await Api(channel).admin.GetStatus(admin_pb2.GetStatusRequest())
        assert status.locks in {len(granted), len(granted) + 1}
        assert status.last_id >= granted[-1]
    assert (await again.stop())[0] == 0
    assert granted


@pytest.fixture
def config_with_json(config: Path) -> Path:
    config.write_text(config.read_text() + '[log]\nformat = "json"\nlevel = "debug"\n')
    return config


async def test_the_log_can_be_json(config_with_json: Path) -> None:
    process = await DaemonProcess.start(config_with_json)
    async with api_of(process) as channel:
        assert (await refusal(Api(channel).lock(item="")))[1] == "INVALID_ID"
    _, errors = await process.stop()
    calls = [line for line in errors.splitlines() if '"event": "call"' in line]
    assert len(calls) == 1
    assert '"code": "INVALID_ARGUMENT", "reason": "INVALID_ID"' in calls[0]
    assert '"method": "/coordd.v1.EngagementService/RequestLock"' in calls[0]


async def lock_until_refused(api: Api, worker: str) -> grpc.StatusCode:
    """Take locks and give them back until that fails; return how."""
    try:
        while True:
            await api.unlock(await api.lock(worker, worker))
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_it_stops_well_in_the_middle_of_work(process: DaemonProcess) -> None:
    async with api_of(process) as channel:
        api = Api(channel)
        events = api.admin.WatchEvents(admin_pb2.WatchEventsRequest())
        await events.initial_metadata()
        work = [asyncio.create_task(lock_until_refused(api, f"w{number}")) for number in range(32)]
        for _ in range(100):
            await events.read()
        code, errors = await process.stop()
        assert {*await asyncio.gather(*work)} == {grpc.StatusCode.UNAVAILABLE}
        events.cancel()
    assert code == 0
    assert "Traceback" not in errors


async def test_told_twice_it_ends_well_too(process: DaemonProcess) -> None:
    async with api_of(process) as channel:
        events = Api(channel).admin.WatchEvents(admin_pb2.WatchEventsRequest())
        await events.initial_metadata()
        code, errors = await process.stop(signal.SIGTERM, signal.SIGINT)
        events.cancel()
    assert code == 0
    assert "Traceback" not in errors
