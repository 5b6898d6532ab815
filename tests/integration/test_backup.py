"""Backups of the running daemon, and what a daemon knows that is started on one: over gRPC, by coordctl."""
# A test has its event loop for itself, so it may block it.
# ruff: noqa: ASYNC240

import asyncio
import json
import shutil
import signal
import stat
from pathlib import Path

import grpc
from daemon_api import BIN, Api, DaemonProcess, refusal, rest, stream_refusal

from coordd.doctor import examine
from coordd.server import Daemon
from coordd.v1 import admin_pb2, engagement_pb2


async def coordctl(*args: str | Path) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "coordctl", *map(str, args), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


def address_of(process: DaemonProcess) -> tuple[str, str]:
    return "--address", process.address


async def work(api: Api, worker: str, granted: list[int]) -> None:
    """Take locks and never give one back, until cancelled."""
    while True:
        granted.append((await api.lock(worker, f"{worker}/{len(granted)}", ttl=None)).fencing_token)


async def test_a_backup_under_load_has_all_that_was_acknowledged_before_it(
    process: DaemonProcess, tmp_path: Path
) -> None:
    target = tmp_path / "backup.db"
    async with grpc.aio.insecure_channel(process.address) as channel:
        api = Api(channel)
        before = [(await api.lock("early", f"early/{number}")).fencing_token for number in range(200)]
        during: list[int] = []
        workers = [asyncio.create_task(work(api, f"w{number}", during)) for number in range(8)]
        code, out, errors = await coordctl(*address_of(process), "backup", "--json", target)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert (code, errors) == (0, "")
    told = json.loads(out)
    assert told["size"] == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    report = examine(target, told["instant"])
    assert (report.gravest, report.sequence, report.last_id) == (None, told["sequence"], told["last_id"])
    assert report.last_id is not None
    assert max(before) <= report.last_id
    # Every lock is in it that was granted before it, and of those after it none.
    missing = sum(token > report.last_id for token in during)
    assert report.records["locks"] in range(len(before) + len(during) - missing, report.last_id)
    assert missing > 0, "nothing was granted while the copy was taken and checked"
    assert sorted(file.name for file in target.parent.iterdir() if "backup" in file.name) == ["backup.db"]


async def test_what_is_there_already_is_left_alone(process: DaemonProcess, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("precious")
    code, out, errors = await coordctl(*address_of(process), "backup", target)
    assert (code, out) == (4, "")
    assert errors == f"coordctl backup: {target}: is there already; it is left as it is\n"
    assert target.read_text() == "precious"


async def test_no_daemon_no_file(tmp_path: Path) -> None:
    code, out, errors = await coordctl("--address", "127.0.0.1:1", "backup", tmp_path / "backup.db")
    assert (code, out) == (3, "")
    assert errors.startswith("coordctl backup: cannot reach the daemon at 127.0.0.1:1: ")
    assert not list(tmp_path.iterdir())


async def test_a_file_is_copied_without_a_daemon_and_beside_one(config: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "coordd.db"
    process = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(process.address) as channel:
        await Api(channel).lock()
        beside = await coordctl("backup", "--data", data, tmp_path / "beside.db")
        assert (beside[0], beside[2]) == (0, "")
        await process.stop(signal.SIGKILL)
    before = {file: file.read_bytes() for file in data.parent.iterdir()}
    code, out, errors = await coordctl("backup", "--data", data, tmp_path / "without.db")
    assert (code, errors) == (0, "")
    assert out.startswith(f"{tmp_path}/without.db: ")
    assert {file: file.read_bytes() for file in data.parent.iterdir()} == before
    for name in ("beside.db", "without.db"):
        assert examine(tmp_path / name, 0).records["locks"] == 1


async def test_a_damaged_file_gives_no_backup(process: DaemonProcess, tmp_path: Path) -> None:
    await process.stop()
    data = tmp_path / "data" / "coordd.db"
    content = bytearray(data.read_bytes())
    content[4096 * 2 : 4096 * 3] = bytes(4096)
    data.write_bytes(content)
    code, _, errors = await coordctl("backup", "--data", data, tmp_path / "backup.db")
    assert code == 4
    assert errors.startswith("coordctl backup: ")
    assert not (tmp_path / "backup.db").exists()


async def test_the_stream_says_what_it_sends_and_one_backup_goes_at_a_time(daemon: Daemon, api: Api) -> None:
    last = (await api.lock()).fencing_token
    async with daemon.engine.store.copied():
        second = api.admin.Backup(admin_pb2.BackupRequest())
        refused = ("FAILED_PRECONDITION", "BACKUP_REFUSED", {"cause": "UNDER_WAY"})
        assert await stream_refusal(second) == refused
    stream = api.admin.Backup(admin_pb2.BackupRequest())
    header = (await stream.read()).header
    assert (header.last_id, header.sequence) == (last, 1)
    assert sum([len(part.chunk) async for part in rest(stream)]) == header.size


async def restored(config: Path, backup: Path) -> DaemonProcess:
    """Start a daemon on a backup, in the place of the lost file, as docs/operations.md says."""
    data = config.parent / "data" / "coordd.db"
    shutil.rmtree(data.parent)
    data.parent.mkdir()
    shutil.copyfile(backup, data)
    data.chmod(0o600)
    return await DaemonProcess.start(config)


async def test_a_daemon_on_an_old_backup_never_gives_an_id_again(config: Path, tmp_path: Path) -> None:
    """What was granted after the copy is over: its holder is told so; whoever is next has a higher token."""
    first = await DaemonProcess.start(config)
    async with grpc.aio.insecure_channel(first.address) as channel:
        api = Api(channel)
        kept = await api.lock("w1", "kept", request_id="r1")
        assert (await coordctl(*address_of(first), "backup", tmp_path / "backup.db"))[0] == 0
        lost = await api.lock("w1", "lost", request_id="r2")
        units = await api.reserve("slot", units=2)
        late = [(await api.lock("w1", f"late/{number}")).fencing_token for number in range(500)]
        permit = await api.permit()
        # At once: within the same second as all of these, on a fast machine.
        await first.stop(signal.SIGKILL)
    second = await restored(config, tmp_path / "backup.db")
    async with grpc.aio.insecure_channel(second.address) as channel:
        api = Api(channel)
        renew = engagement_pb2.RenewLockRequest(item="kept", worker="w1", fencing_token=kept.fencing_token)
        await api.engagement.RenewLock(renew)
        again = await api.lock("w1", "kept", request_id="r1")
        assert again.fencing_token == kept.fencing_token
        renew = engagement_pb2.RenewLockRequest(item="lost", worker="w1", fencing_token=lost.fencing_token)
        assert (await refusal(api.engagement.RenewLock(renew)))[:2] == ("FAILED_PRECONDITION", "LEASE_LOST")
        # Whatever was given: a pool's units, items, permits. Also to who asks again for what it had.
        highest = max(lost.fencing_token, units.reservation_id, permit.permit_id, *late)
        assert (await api.lock("w2", "late/0")).fencing_token > highest
        assert (await api.lock("w1", "lost", request_id="r2")).fencing_token > highest
        assert (await api.reserve("slot", "w2", units=3)).reservation_id > highest
        assert (await api.permit(worker="w2")).permit_id > highest
    assert (await second.stop())[0] == 0
