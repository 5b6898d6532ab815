"""Both Python clients, coordctl and grpcurl, with tokens, certificates and Unix sockets, all of them real."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from daemon_api import BIN
from identity_rig import IDENTITIES, TOKENS, guarded_config
from tls_files import Files

from coordd.config import load
from coordd.server import Daemon
from coordd_client import (
    Client,
    Config,
    InvalidRequest,
    PermissionDenied,
    Tls,
    Unauthenticated,
    Unavailable,
    blocking,
)
from coordd_client.target import Target

IN_THE_CLEAR = (
    "coordctl status: a token would go to 10.0.0.1:1 in the clear; give tls=Tls(...) "
    "(with coordctl: --tls or --ca)\n"
)
CERTIFICATES = (
    '[identities.certified]\nrole = "worker"\nworkers = ["cert-*"]\ncertificates = ["certified.example"]\n'
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def started(tmp_path: Path, more: str, address: str = "127.0.0.1:0") -> Daemon:
    daemon = Daemon(load(guarded_config(tmp_path, more, address), {}))
    await daemon.start()
    return daemon


@pytest.fixture
async def tls(tmp_path: Path, files: Files) -> AsyncIterator[str]:
    """The address of a daemon with TLS and identities."""
    daemon = await started(tmp_path, files.table() + IDENTITIES)
    yield daemon.address.replace("127.0.0.1", "localhost")
    await daemon.stop(0)


@pytest.fixture
async def mutual(tmp_path: Path, files: Files) -> AsyncIterator[str]:
    """The address of a daemon that also wants certificates."""
    daemon = await started(tmp_path, files.table(mutual=True) + IDENTITIES + CERTIFICATES)
    yield daemon.address.replace("127.0.0.1", "localhost")
    await daemon.stop(0)


@pytest.fixture
async def unix(tmp_path: Path) -> AsyncIterator[str]:
    """The address of a daemon on a Unix socket, with identities."""
    daemon = await started(tmp_path, IDENTITIES, f"unix:{tmp_path / 's'}")
    yield daemon.address
    await daemon.stop(0)


async def locked(address: str, worker: str, **more: Any) -> str:
    """Take a lock by the async client and by the blocking one; return whose it was, or how both failed."""

    def blocking_lock() -> str:
        with (
            blocking.Client(address, worker=worker, **more) as client,
            client.lock("j", kind="analysis") as lock,
        ):
            return lock.grant.worker

    async def async_lock() -> str:
        async with (
            Client(address, worker=worker, **more) as client,
            client.lock("i", kind="analysis") as lock,
        ):
            return lock.grant.worker

    return await same(async_lock(), asyncio.to_thread(blocking_lock))


async def same(*tries: Any) -> str:
    outcomes = set()
    for each in tries:
        try:
            outcomes.add(await each)
        except (PermissionDenied, Unauthenticated, Unavailable) as error:
            outcomes.add(f"{type(error).__name__} {error.reason}".strip())
    (outcome,) = outcomes
    return outcome


# ---------------------------------------------------------------------- the Python clients


async def test_a_token_over_tls(tls: str, files: Files) -> None:
    trusted = Tls(ca=files.ca_file())
    assert await locked(tls, "bot-1", token=TOKENS["bots"], tls=trusted) == "bot-1"
    # As a file has it.
    assert await locked(tls, "bot-1", token=TOKENS["bots"] + "\n", tls=trusted) == "bot-1"
    assert (
        await locked(tls, "rival-1", token=TOKENS["bots"], tls=trusted) == "PermissionDenied WORKER_REQUIRED"
    )
    assert await locked(tls, "bot-1", token=TOKENS["eye"], tls=trusted) == "PermissionDenied ROLE_REQUIRED"
    assert await locked(tls, "bot-1", token=TOKENS["nobody"], tls=trusted) == "Unauthenticated UNKNOWN_TOKEN"
    assert await locked(tls, "bot-1", tls=trusted) == "Unauthenticated TOKEN_REQUIRED"


async def test_a_certificate(mutual: str, files: Files) -> None:
    certificate, key = files.client("certified.example")
    shown = Tls(ca=files.ca_file(), certificate=certificate, key=key)
    assert await locked(mutual, "cert-1", tls=shown) == "cert-1"
    assert await locked(mutual, "bot-1", tls=shown) == "PermissionDenied WORKER_REQUIRED"
    assert await locked(mutual, "bot-1", tls=shown, token=TOKENS["bots"]) == "bot-1"


async def test_another_name_than_the_address(tls: str, files: Files) -> None:
    files.ca_file()
    address = tls.replace("localhost", "127.0.0.1")
    files.show(files.ca, "coordd.fleet.example")
    trusted = Tls(ca=files.ca_file(), server_name="coordd.fleet.example")
    assert await locked(address, "bot-1", token=TOKENS["bots"], tls=trusted) == "bot-1"


async def test_a_session_a_wait_and_a_list_show_the_token_too(tls: str, files: Files) -> None:
    trusted = Tls(ca=files.ca_file())
    client = Client(tls, worker="bot-1", token=TOKENS["bots"], tls=trusted)
    async with client, client.session(), client.lock("i", kind="analysis", wait=5):
        assert [lock.worker async for lock in client.locks()] == ["bot-1"]


async def test_a_daemon_that_cannot_be_trusted_is_not_told_the_token(tls: str, files: Files) -> None:
    stranger = Files(_folder(files.folder / "other"))
    for address, shown in ((tls, Tls(ca=stranger.ca_file())), (tls, None)):
        outcome = await locked(
            address, "bot-1", tls=shown, token=TOKENS["bots"], config=Config(call_timeout_s=0.5)
        )
        assert outcome == "Unavailable"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def test_a_token_over_a_unix_socket(unix: str) -> None:
    assert await locked(unix, "bot-1", token=TOKENS["bots"]) == "bot-1"
    assert await locked(unix, "bot-1") == "Unauthenticated TOKEN_REQUIRED"


@pytest.mark.parametrize("address", ["10.0.0.1:1", "coordd.example:7651", "localhost.example:1", "unixes:1"])
@pytest.mark.parametrize("make", [Client, blocking.Client])
async def test_a_token_never_leaves_in_the_clear(make: Any, address: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make(address, worker="w", token="coordd_secret")  # noqa: S106
    assert refused.value.reason == "TOKEN_IN_THE_CLEAR"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/s"])
async def test_it_does_where_nobody_else_is_on_the_way(address: str) -> None:
    blocking.Client(address, worker="w", token="coordd_secret").close()  # noqa: S106
    await Client(address, worker="w", token="coordd_secret").close()  # noqa: S106


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nauthorization: b", "ü", "a\0"])
async def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Client("localhost:1", worker="w", token=token)
    assert (refused.value.reason, refused.value.args) == (
        "INVALID_TOKEN",
        ("token is empty, or has characters that no token has",),
    )


async def test_a_certificate_without_its_key() -> None:
    with pytest.raises(InvalidRequest, match="a certificate and its key go together"):
        Tls(certificate="c.pem")


async def test_a_clients_token_is_in_no_repr() -> None:
    assert "secret" not in repr(Target("localhost:1", token="coordd_secret"))  # noqa: S106


# ---------------------------------------------------------------------- programs


async def ran(program: str, *arguments: object, **environment: str) -> tuple[int, str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COORDD_")}
    process = await asyncio.create_subprocess_exec(
        BIN / program,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean | environment,
    )
    out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_coordctl_by_token_file_by_variable_and_by_certificate(
    mutual: str, files: Files, tmp_path: Path
) -> None:
    ca = files.ca_file()
    certificate, key = files.client("certified.example")
    token = _written(tmp_path / "chief.token", TOKENS["chief"] + "\n")
    shown = ("--address", mutual, "--ca", ca, "--cert", certificate, "--key", key)
    status, out, _ = await ran("coordctl", *shown, "--token-file", token, "drain", "--undo", "--json")
    assert (status, json.loads(out)) == (0, {"draining": False})
    environment = {"COORDD_ADDRESS": mutual, "COORDD_CA": str(ca), "COORDD_TOKEN": TOKENS["bots"]}
    environment |= {"COORDD_CERT": str(certificate), "COORDD_KEY": str(key)}
    status, _, errors = await ran("coordctl", "drain", **environment)
    assert status == 4
    assert errors == (
        "coordctl drain: bots is not permitted to call /coordd.v1.AdminService/Drain: "
        "it takes the role operator (ROLE_REQUIRED)\n"
    )


async def test_coordctl_over_a_unix_socket(unix: str) -> None:
    status, _, errors = await ran("coordctl", "--address", unix, "status")
    assert status == 4
    assert errors.endswith(
        "(TOKEN_REQUIRED); say who asks with --token-file, COORDD_TOKEN, or --cert and --key\n"
    )
    assert (await ran("coordctl", "--address", unix, "status", COORDD_TOKEN=TOKENS["eye"]))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--address", "10.0.0.1:1", "status"], IN_THE_CLEAR),
        (["--ca", "/none", "status"], "coordctl status: can't read /none: No such file or directory\n"),
        (
            ["--token-file", "/none", "status"],
            "coordctl status: can't read /none: No such file or directory\n",
        ),
        (
            ["--cert", "/none", "status"],
            "coordctl status: a certificate and its key go together (--cert and --key)\n",
        ),
    ],
)
async def test_coordctl_says_what_is_wrong_in_one_line(arguments: list[str], told: str) -> None:
    assert await ran("coordctl", *arguments, COORDD_TOKEN="coordd_secret") == (2, "", told)  # noqa: S106


async def test_grpcurl_with_a_ca_and_a_token(tls: str, files: Files) -> None:
    bearer = f"authorization: Bearer {TOKENS['bots']}"
    request = '{"item": "tweet:1", "worker": "bot-1", "kind": "analysis"}'
    method = "coordd.v1.EngagementService/RequestLock"
    status, out, _ = await ran(
        "grpcurl", "-cacert", files.ca_file(), "-H", bearer, "-d", request, tls, method
    )
    assert (status, json.loads(out)["granted"]["worker"]) == (0, "bot-1")
    status, out, errors = await ran("grpcurl", "-cacert", files.ca_file(), tls, "list")
    assert status != 0
    assert "TOKEN_REQUIRED" in out + errors or "Unauthenticated" in out + errors


async def test_grpcurl_over_a_unix_socket(unix: str) -> None:
    bearer = f"authorization: Bearer {TOKENS['eye']}"
    path = unix.removeprefix("unix:")
    status, out, _ = await ran("grpcurl", "-plaintext", "-unix", "-H", bearer, path, "list")
    assert (status, "coordd.v1.AdminService" in out) == (0, True)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
