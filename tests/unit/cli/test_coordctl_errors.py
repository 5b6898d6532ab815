"""How commands fail, and the options that all of them share."""

import json
import socket
from collections.abc import Callable
from importlib.metadata import version

import grpc
import pytest
from click.testing import CliRunner, Result
from scripted_daemon import Refuse, ScriptedDaemon

from coordd.cli.coordctl import coordctl
from coordd.v1 import admin_pb2, engagement_pb2

Run = Callable[..., Result]
RELEASE = ("release", "tweet:1", "--worker", "w7", "--outcome", "success", "--token", "42")


@pytest.fixture
def closed_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_no_daemon_is_one_line_that_says_how_to_start_it(closed_address: str) -> None:
    result = CliRunner().invoke(coordctl, ["--address", closed_address, "locks"], prog_name="coordctl")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"coordctl locks: cannot reach the daemon at {closed_address}: Connection refused; is it running? "
        "Start it with 'coordd serve --config FILE', or say where it is with --address\n"
    )


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "advice"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST", 4, "coordctl show tweet:1"),
        (grpc.StatusCode.FAILED_PRECONDITION, "NOT_HOLDER", 4, "coordctl force-release 42 --reason TEXT"),
        (grpc.StatusCode.NOT_FOUND, "UNKNOWN_ID", 4, "coordctl locks"),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ID", 4, "(INVALID_ID)\n"),
        (grpc.StatusCode.UNAVAILABLE, "DRAINING", 3, "coordctl drain --undo"),
        (grpc.StatusCode.UNAVAILABLE, "STORE_FAILED", 3, "see its log"),
    ],
)
def test_an_error_is_one_line_with_reason_and_advice(
    daemon: ScriptedDaemon, run: Run, *, code: grpc.StatusCode, reason: str, exit_code: int, advice: str
) -> None:
    daemon.answers("ReleaseLock", Refuse(code, reason, "it is so", metadata={"id": "42"}))
    daemon.answers("GetLock", engagement_pb2.GetLockResponse())
    result = run(*RELEASE)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith(f"coordctl release: it is so ({reason})")
    assert advice in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_error_without_details_has_its_code(daemon: ScriptedDaemon, run: Run) -> None:
    error = Refuse(grpc.StatusCode.UNIMPLEMENTED, "", "no such method")
    error.status.ClearField("details")
    daemon.answers("Drain", error)
    result = run("drain")
    assert result.exit_code == 4
    assert result.stderr == "coordctl drain: no such method (UNIMPLEMENTED)\n"


@pytest.mark.parametrize(
    ("text", "is_undone"),
    [
        ("the daemon is draining", True),
        ("the daemon is draining: stopping for an upgrade", True),
        ("the daemon is stopping", False),
        ("the daemon is draining: the daemon is shutting down", False),
        ("the daemon has stopped", False),
    ],
)
def test_only_an_operators_drain_can_be_undone(
    daemon: ScriptedDaemon, run: Run, *, text: str, is_undone: bool
) -> None:
    daemon.answers("ReleaseLock", Refuse(grpc.StatusCode.UNAVAILABLE, "DRAINING", text, retry_s=1))
    advice = "; it grants again after 'coordctl drain --undo'" if is_undone else ""
    assert run(*RELEASE).stderr == f"coordctl release: {text} (DRAINING){advice}\n"


def test_details_that_are_garbage_are_no_traceback(daemon: ScriptedDaemon, run: Run) -> None:
    error = Refuse(grpc.StatusCode.NOT_FOUND, "UNKNOWN_POOL", "no such\npool")
    error.status.details[0].value = b"\xff\xff"
    daemon.answers("UpdatePool", error)
    result = run("pools", "set", "x", "--capacity", "1")
    assert result.exit_code == 4
    assert result.stderr == "coordctl pools set: no such\\npool (NOT_FOUND)\n"


def test_no_answer_in_time_says_that_it_may_have_taken_effect(daemon: ScriptedDaemon, run: Run) -> None:
    daemon.answers("ReleaseLock", Refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "", "Deadline Exceeded"))
    result = run(*RELEASE, "--timeout", "1m30s")
    assert result.exit_code == 3
    assert result.stderr == (
        f"coordctl release: no answer from {daemon.address} within 1m30s; "
        "it may have taken effect all the same; give more with --timeout\n"
    )
    assert 80 < (daemon.timeouts[0] or 0) < 100


USAGE_ERRORS = [
    ["lokc"],
    ["lock"],
    ["lock", "tweet:1", "--worker", "w7"],
    ["lock", "tweet:1", "--worker", "w7", "--kind", "reply", "--ttl", "30"],
    ["lock", "tweet:1", "--worker", "w7", "--kind", "reply", "--ttl", "-30s"],
    ["lock", "tweet:1", "--worker", "w7", "--kind", "reply", "--priority", "urgent"],
    ["lock", "tweet:1", "--worker", "w7", "--kind", "reply", "--quality", "2"],
    ["release", "tweet:1", "--worker", "w7"],
    ["release", "tweet:1", "--worker", "w7", "--outcome", "unspecified"],
    ["force-release", "0", "--reason", "x"],
    ["force-release", "18446744073709551616", "--reason", "x"],
    ["force-release", "42"],
    ["locks", "--limit", "0"],
    ["stats", "--hours", "0"],
    ["watch", "--type", "unspecified"],
    ["status", "--address", "somewhere"],
    ["status", "--address", "[::1]"],
    ["status", "--address", "::1:7651"],
    ["status", "--address", "localhost:"],
    ["status", "--address", ":7651"],
    ["status", "--address", "localhost:http"],
    ["status", "--address", "localhost:0"],
    ["status", "--address", "localhost:65536"],
    ["status", "--address", "http://localhost:7651"],
    ["status", "--address", ""],
    ["stats", "--hours", "nan"],
    ["--timeout", "0s", "status"],
    ["completion", "tcsh"],
    ["status", "extra"],
    ["show", "tweet:\udcff"],
]


@pytest.mark.parametrize("args", USAGE_ERRORS, ids=" ".join)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    daemon: ScriptedDaemon, run: Run, args: list[str]
) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("coordctl")
    assert daemon.requests == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["locks", "--limit", "abc"], "'abc' is not a whole number of at least 1"),
        (["locks", "--limit", "0"], "'0' is not a whole number of at least 1"),
        (["pools", "set", "x", "--capacity", "1.5"], "'1.5' is not a whole number from 1 to 1000000000"),
        (["stats", "--hours", "day"], "'day' is not a number above 0 and up to 87660"),
        (["stats", "--hours", "0"], "'0' is not a number above 0 and up to 87660"),
        (["lock", "x", "--kind", "k", "--worker", "w", "--quality", "2"], "'2' is not a number from 0 to 1"),
    ],
)
def test_a_wrong_number_is_told_with_its_bounds(run: Run, args: list[str], words: str) -> None:
    assert words in run(*args).stderr


def test_a_usage_error_has_single_blanks(run: Run) -> None:
    assert "Choose from: bash, zsh, fish; see" in run("completion").stderr


def test_the_version_is_one_name_and_one_number(run: Run) -> None:
    assert run("--version").stdout == f"coordctl {version('coordd')}\n"


def test_help_of_all_commands_is_not_cut_off(run: Run) -> None:
    commands = run("--help").stdout.split("Commands:")[1].split("\n\n")[0]
    assert "..." not in commands


@pytest.mark.parametrize("command", ["pools", "limits"])
def test_help_says_how_to_get_back_to_the_file(run: Run, command: str) -> None:
    assert "set the file's value again" in " ".join(run(command, "set", "--help").stdout.split())


def test_help_has_no_formatting_marks(run: Run) -> None:
    text = run("completion", "--help").stdout
    assert "\\b" not in text
    assert '  bash  eval "$(coordctl completion bash)"\n  zsh ' in text


def test_no_command_at_all_is_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_help_tells_exit_codes_and_completion(run: Run) -> None:
    text = run("--help").stdout
    assert "Exit codes:" in text
    assert "coordctl completion bash" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(run: Run, shell: str) -> None:
    assert "_COORDCTL_COMPLETE" in run("completion", shell).stdout


# ---------------------------------------------------------------------------------------- shared options


def _leaves(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    commands = getattr(command, "commands", {})
    return [path] + [leaf for name, child in commands.items() for leaf in _leaves(child, (*path, name))]


@pytest.mark.parametrize("path", _leaves(coordctl, ())[1:], ids=" ".join)
def test_every_command_has_help_and_the_shared_options(run: Run, path: tuple[str, ...]) -> None:
    text = run(*path, "--help").stdout
    assert all(option in text for option in ("--address", "--timeout", "--json"))


def test_shared_options_stand_before_or_after_and_the_later_one_wins(
    daemon: ScriptedDaemon, closed_address: str
) -> None:
    daemon.answers("ListPools", admin_pb2.ListPoolsResponse(pools=[admin_pb2.Pool(name="cores")]))
    daemon.answers("UpdatePool", admin_pb2.UpdatePoolResponse(pool=admin_pb2.Pool(name="cores")))
    elsewhere, here = ["--address", closed_address], ["--address", daemon.address]
    for args in (
        [*here, "--json", "pools"],
        ["pools", *here, "--json"],
        [*elsewhere, "pools", *here, "--json"],
        [*elsewhere, "--json", "pools", *here, "set", "cores", "--capacity", "1"],
        ["pools", *elsewhere, "set", "cores", "--capacity", "1", "--json", *here],
    ):
        result = CliRunner().invoke(coordctl, args, env={"COORDD_ADDRESS": closed_address})
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)


def test_the_environment_does_not_override_what_stands_before_the_command(
    daemon: ScriptedDaemon, closed_address: str
) -> None:
    daemon.answers("ListLocks", engagement_pb2.ListLocksResponse())
    result = CliRunner().invoke(
        coordctl, ["--address", daemon.address, "locks"], env={"COORDD_ADDRESS": closed_address}
    )
    assert result.exit_code == 0
