"""The port with certificates, and the Unix socket: real handshakes, real files, real permissions."""

import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from daemon_api import Api, DaemonProcess, launch, refusal
from identity_rig import by, guarded_config
from tls_files import LONG_AGO, Files

from coordd.config import load
from coordd.server import AddressUnusable, Daemon, Misconfigured
from coordd.v1 import admin_pb2, engagement_pb2


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def channel(address: str, root: trustme.CA, shown: trustme.LeafCert | None = None) -> grpc.aio.Channel:
    """Return a channel that trusts `root`, and shows a certificate."""
    credentials = grpc.ssl_channel_credentials(
        root.cert_pem.bytes(),
        shown and shown.private_key_pem.bytes(),
        shown and b"".join(each.bytes() for each in shown.cert_chain_pems),
    )
    # Of its own: gRPC would share a connection that another channel has made.
    return grpc.aio.secure_channel(
        f"localhost:{address.rpartition(':')[2]}",
        credentials,
        options=[("grpc.use_local_subchannel_pool", 1)],
    )


async def asked(connection: grpc.aio.Channel, metadata: Any = ()) -> str:
    """Return the code of a call that anybody known may make; UNAVAILABLE if there is no connection."""
    async with connection:
        try:
            await Api(connection).admin.GetStatus(admin_pb2.GetStatusRequest(), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def serving(tmp_path: Path, more: str, address: str = "127.0.0.1:0") -> Daemon:
    daemon = Daemon(load(guarded_config(tmp_path, more, address), {}))
    await daemon.start()
    return daemon


@pytest.fixture
async def daemon(files: Files, tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon that has a certificate."""
    daemon = await serving(tmp_path, files.table())
    yield daemon
    await daemon.stop(0)


@pytest.fixture
async def mutual(files: Files, tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon that has a certificate, and wants one."""
    identities = (
        '[identities.bots]\nrole = "worker"\nworkers = ["bot-*"]\ncertificates = ["bots.example"]\n'
        '[identities.old]\nrole = "observer"\ncertificates = ["common name"]\n'
        '[identities.mesh]\nrole = "observer"\ncertificates = ["10.0.0.7", "mesh@fleet.example"]\n'
    )
    daemon = await serving(tmp_path, files.table(mutual=True) + identities)
    yield daemon
    await daemon.stop(0)


# ---------------------------------------------------------------------- the daemon's certificate


async def test_a_client_that_trusts_its_ca_is_served(daemon: Daemon, files: Files) -> None:
    assert await asked(channel(daemon.address, files.ca)) == "OK"


async def test_a_client_that_trusts_another_ca_does_not_talk_to_it(daemon: Daemon) -> None:
    assert await asked(channel(daemon.address, trustme.CA())) == "UNAVAILABLE"


async def test_there_is_no_plaintext_beside_it(daemon: Daemon) -> None:
    assert await asked(grpc.aio.insecure_channel(daemon.address)) == "UNAVAILABLE"


async def test_a_client_sees_that_its_certificate_has_expired(daemon: Daemon, files: Files) -> None:
    files.show(files.ca, not_after=LONG_AGO)
    assert await asked(channel(daemon.address, files.ca)) == "UNAVAILABLE"


async def test_new_files_hold_from_the_next_handshake_without_a_restart(daemon: Daemon, files: Files) -> None:
    other = trustme.CA()
    async with channel(daemon.address, files.ca) as before:
        await Api(before).admin.GetStatus(admin_pb2.GetStatusRequest())
        files.show(other)
        assert await asked(channel(daemon.address, other)) == "OK"
        assert await asked(channel(daemon.address, files.ca)) == "UNAVAILABLE"
        # What is connected stays so.
        await Api(before).admin.GetStatus(admin_pb2.GetStatusRequest())


async def test_files_that_cannot_be_used_change_nothing_until_they_can(
    daemon: Daemon, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    good = files.key.read_bytes()
    for wrong in (b"", b"nonsense", trustme.CA().issue_cert("x").private_key_pem.bytes()):
        files.key.write_bytes(wrong)
        assert await asked(channel(daemon.address, files.ca)) == "OK"
    files.certificate.rename(files.folder / "away")
    assert await asked(channel(daemon.address, files.ca)) == "OK"
    told = "".join(capsys.readouterr())
    assert told.count("the new certificates can't be used; the old ones hold") == 4
    assert "PRIVATE KEY" not in told
    (files.folder / "away").rename(files.certificate)
    files.key.write_bytes(good)
    assert await asked(channel(daemon.address, files.ca)) == "OK"
    assert "certificates read again" in "".join(capsys.readouterr())


# ---------------------------------------------------------------------- the client's certificate


@pytest.mark.parametrize(
    ("names", "common", "code"),
    [
        (["bots.example"], None, "OK"),
        (["x.example", "bots.example"], "whoever", "OK"),
        ([], "common name", "OK"),
        (["10.0.0.7"], None, "OK"),
        (["mesh@fleet.example"], None, "OK"),
        (["x.example"], None, "UNAUTHENTICATED"),
        # A common name counts only where there is no other.
        (["x.example"], "common name", "UNAUTHENTICATED"),
        # Of two identities.
        (["bots.example", "10.0.0.7"], None, "UNAUTHENTICATED"),
    ],
)
async def test_who_calls_is_told_by_the_certificate(
    mutual: Daemon, files: Files, names: list[str], common: str | None, code: str
) -> None:
    shown = files.client_ca.issue_cert(*names, common_name=common)
    assert await asked(channel(mutual.address, files.ca, shown)) == code


@pytest.mark.skipif(shutil.which("openssl") is None, reason="trustme knows no URIs, so it takes openssl")
async def test_a_uri_is_a_name_too(tmp_path: Path, files: Files) -> None:
    identities = '[identities.mesh]\nrole = "observer"\ncertificates = ["spiffe://fleet/mesh"]\n'
    daemon = await serving(tmp_path, files.table(mutual=True) + identities)
    shown = files.by_openssl("URI:spiffe://fleet/mesh")
    assert await asked(channel(daemon.address, files.ca, shown)) == "OK"
    other = files.by_openssl("URI:spiffe://fleet/other")
    assert await asked(channel(daemon.address, files.ca, other)) == "UNAUTHENTICATED"
    await daemon.stop(0)


async def test_a_client_without_a_certificate_is_not_connected(mutual: Daemon, files: Files) -> None:
    assert await asked(channel(mutual.address, files.ca)) == "UNAVAILABLE"


@pytest.mark.parametrize(
    "shown",
    [
        trustme.CA().issue_cert("bots.example"),
        pytest.param(None, id="expired"),
    ],
)
async def test_a_certificate_of_another_ca_or_of_yesterday_is_none(
    mutual: Daemon, files: Files, shown: trustme.LeafCert | None
) -> None:
    shown = shown or files.client_ca.issue_cert("bots.example", not_after=LONG_AGO)
    assert await asked(channel(mutual.address, files.ca, shown)) == "UNAVAILABLE"


async def test_a_new_client_ca_holds_from_the_next_handshake(mutual: Daemon, files: Files) -> None:
    new = trustme.CA()
    new.cert_pem.write_to_path(files.clients)
    assert await asked(channel(mutual.address, files.ca, new.issue_cert("bots.example"))) == "OK"
    old = files.client_ca.issue_cert("bots.example")
    assert await asked(channel(mutual.address, files.ca, old)) == "UNAVAILABLE"


async def test_a_certificate_acts_in_its_workers_names_only(mutual: Daemon, files: Files) -> None:
    shown = files.client_ca.issue_cert("bots.example")
    async with channel(mutual.address, files.ca, shown) as connection:
        api = Api(connection)
        assert (await api.lock("bot-1")).worker == "bot-1"
        other = engagement_pb2.RequestLockRequest(item="j", worker="rival-1", kind="analysis")
        assert (await refusal(api.engagement.RequestLock(other)))[:2] == (
            "PERMISSION_DENIED",
            "WORKER_REQUIRED",
        )


async def test_a_token_that_is_given_decides_also_where_there_is_a_certificate(
    mutual: Daemon, files: Files
) -> None:
    shown = files.client_ca.issue_cert("bots.example")
    assert await asked(channel(mutual.address, files.ca, shown), by("nobody")) == "UNAUTHENTICATED"


# ---------------------------------------------------------------------- what can't be used


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda files: files.key.unlink(), "k.pem: can't be read: No such file or directory"),
        (lambda files: files.clients.unlink(), "ca.pem: can't be read: No such file or directory"),
        (lambda files: files.certificate.write_text("x"), "k.pem: is not PEM, or not what it should be"),
        (lambda files: files.clients.write_text("x"), "ca.pem: is not PEM, or not what it should be"),
        (
            lambda files: trustme.CA().issue_cert("x").private_key_pem.write_to_path(files.key),
            "k.pem: the key is not the certificate's",
        ),
        (
            lambda files: files.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            "k.pem: has a password; coordd takes a key without one",
        ),
    ],
)
async def test_files_that_cannot_be_used_are_told_and_nothing_is_touched(
    files: Files, tmp_path: Path, spoil: Any, told: str
) -> None:
    spoil(files)
    with pytest.raises(Misconfigured) as error:
        await serving(tmp_path, files.table(mutual=True))
    assert str(error.value).endswith(told)
    assert not (tmp_path / "guarded").exists()


async def test_it_is_one_line_and_exit_code_2(files: Files, tmp_path: Path) -> None:
    files.key.unlink()
    process = await launch(guarded_config(tmp_path, files.table()))
    _, errors = await process.communicate()
    (line,) = errors.decode().splitlines()
    assert (process.returncode, line.endswith("k.pem: can't be read: No such file or directory")) == (2, True)


async def test_off_loopback_without_tls_is_refused_with_exit_code_2(tmp_path: Path) -> None:
    config = guarded_config(tmp_path, "", "0.0.0.0:0")
    process = await launch(config)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode() == (
        f"{config}: server.address: is reached from other machines, and there is no [tls] certificate; "
        "listen on loopback or unix:/PATH, or say [server] insecure = true\n"
    )


async def test_off_loopback_with_tls_it_is_served(tmp_path: Path, files: Files) -> None:
    daemon = await serving(tmp_path, files.table(), "0.0.0.0:0")
    try:
        assert await asked(channel(daemon.address, files.ca)) == "OK"
    finally:
        await daemon.stop(0)


# ---------------------------------------------------------------------- the Unix socket


@pytest.mark.parametrize("mode", ["0600", "0660", "0666"])
async def test_a_socket_is_served_and_gone_with_the_daemon(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "s"
    config = guarded_config(tmp_path, "", f"unix:{path}")
    config.write_text(config.read_text().replace("[server]", f'[server]\nsocket_mode = "{mode}"'))
    before = os.umask(0)
    os.umask(before)
    daemon = Daemon(load(config, {}))
    await daemon.start()
    try:
        assert daemon.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
        assert await asked(grpc.aio.insecure_channel(daemon.address)) == "OK"
    finally:
        await daemon.stop(0)
    assert not path.exists()
    assert os.umask(before) == before


async def test_permissions_hold_before_anybody_can_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask of whoever starts the daemon, the socket is never open to more, not for a moment."""
    seen = []
    add = grpc.aio._server.Server.add_insecure_port

    def watched(self: grpc.aio.Server, address: str) -> int:
        port = add(self, address)
        seen.append(stat.S_IMODE((tmp_path / "s").stat().st_mode))
        return port

    monkeypatch.setattr(grpc.aio._server.Server, "add_insecure_port", watched)
    before = os.umask(0)
    try:
        daemon = await serving(tmp_path, "", f"unix:{tmp_path / 's'}")
        await daemon.stop(0)
    finally:
        os.umask(before)
    assert seen == [0o600]


async def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    process = await DaemonProcess.start(guarded_config(tmp_path, "", f"unix:{path}"))
    process.process.kill()
    await process.process.communicate()
    assert path.is_socket()
    daemon = await serving(tmp_path, "", f"unix:{path}")
    assert await asked(grpc.aio.insecure_channel(f"unix:{path}")) == "OK"
    await daemon.stop(0)


async def test_a_living_daemons_socket_is_refused_and_goes_on(tmp_path: Path) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    other.mkdir()
    daemon = await serving(tmp_path, "", f"unix:{path}")
    try:
        with pytest.raises(AddressUnusable, match="somebody listens there; is another coordd running there"):
            await serving(other, "", f"unix:{path}")
        assert not (other / "guarded").exists()
        assert await asked(grpc.aio.insecure_channel(f"unix:{path}")) == "OK"
    finally:
        await daemon.stop(0)


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "s"
    file.write_text("mine")
    with pytest.raises(AddressUnusable, match="it is there, and is no socket"):
        await serving(tmp_path, "", f"unix:{file}")
    assert file.read_text() == "mine"


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AddressUnusable, match="is no directory that can be written to"):
        await serving(tmp_path, "", f"unix:{tmp_path}/none/s")
