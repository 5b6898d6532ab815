"""coordctl as a process of its own: signals, pipes, terminals, and nothing on stderr but our own lines."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from scripted_daemon import ScriptedDaemon

from coordd.v1 import admin_pb2, common_pb2, engagement_pb2, rate_limit_pb2

Start = Callable[..., "subprocess.Popen[str]"]
EVENT = admin_pb2.WatchEventsResponse(type=admin_pb2.EVENT_TYPE_GRANTED, name="tweet:1")
QUEUED = engagement_pb2.AwaitLockResponse(queued=common_pb2.Queued(position=1))


class Hanging:
    """A stream that sends one message and then nothing, until its reader goes."""

    def __init__(self, message: admin_pb2.WatchEventsResponse | engagement_pb2.AwaitLockResponse) -> None:
        self.message = message
        self.cancelled = threading.Event()

    def __call__(
        self, context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.WatchEventsResponse | engagement_pb2.AwaitLockResponse]:
        context.add_callback(self.cancelled.set)
        yield self.message
        self.cancelled.wait()


def test_ctrl_c_ends_a_watch_quietly(daemon: ScriptedDaemon, start: Start) -> None:
    hanging = Hanging(EVENT)
    daemon.answers("WatchEvents", hanging)
    process = start("watch")
    assert process.stdout is not None
    assert "tweet:1" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130
    assert hanging.cancelled.wait(timeout=30)


def test_ctrl_c_gives_the_place_in_the_queue_back(daemon: ScriptedDaemon, start: Start) -> None:
    hanging = Hanging(QUEUED)
    daemon.answers("AwaitLock", hanging)
    process = start("lock", "tweet:1", "--kind", "reply", "--worker", "w7", "--wait", "1h")
    assert process.stderr is not None
    assert process.stderr.readline() == "waiting at place 1\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130
    assert hanging.cancelled.wait(timeout=30)


def test_a_reader_that_goes_is_no_traceback(daemon: ScriptedDaemon, start: Start) -> None:
    def endless(context: grpc.ServicerContext) -> Iterator[admin_pb2.WatchEventsResponse]:
        while context.is_active():
            yield EVENT

    daemon.answers("WatchEvents", endless)
    process = start("watch", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["name"] == "tweet:1"
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_daemon_that_dies_in_the_middle_of_a_watch(daemon: ScriptedDaemon, start: Start) -> None:
    daemon.answers("WatchEvents", Hanging(EVENT))
    process = start("watch")
    assert process.stdout is not None
    process.stdout.readline()
    daemon.stop()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert len(errors.splitlines()) == 1
    assert errors.startswith("coordctl watch: cannot reach the daemon at ")


def test_a_real_error_is_one_line(daemon: ScriptedDaemon, start: Start) -> None:
    daemon.stop()
    process = start("status")
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "")
    assert len(errors.splitlines()) == 1


def test_a_pipe_gets_a_plain_table(daemon: ScriptedDaemon, start: Start) -> None:
    endpoint = rate_limit_pb2.EndpointStatus(endpoint="e" * 200, health=rate_limit_pb2.HEALTH_WARNING)
    daemon.answers("GetStatus", admin_pb2.GetStatusResponse(version="0.1.0"))
    daemon.answers("GetSystemStatus", rate_limit_pb2.GetSystemStatusResponse(endpoints=[endpoint]))
    daemon.answers("ListPools", admin_pb2.ListPoolsResponse())
    daemon.answers("ListLimits", admin_pb2.ListLimitsResponse())
    out, errors = start("status", env={"COLUMNS": "80", "TERM": "xterm-256color"}).communicate(timeout=30)
    assert errors == ""
    assert "\x1b" not in out
    assert any(line.startswith("e" * 200 + "  WARNING") for line in out.splitlines())


def _terminal_output(start: Start, *args: str, exit_code: int = 0) -> str:
    ours, theirs = pty.openpty()
    process = start(*args, stdout=theirs, env={"COLUMNS": "60", "TERM": "xterm-256color", "NO_COLOR": ""})
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65_536):
            output += chunk
    except OSError:  # Linux's way to say that the other end has closed
        pass
    os.close(ours)
    assert process.wait(timeout=30) == exit_code
    return output.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_gets_colours_and_all_of_a_long_name(daemon: ScriptedDaemon, start: Start) -> None:
    lock = engagement_pb2.Lock(item="x" * 90, kind="reply", worker="w7", expires_in=Duration(seconds=1))
    daemon.answers("ListLocks", engagement_pb2.ListLocksResponse(locks=[lock]))
    output = _terminal_output(start, "locks")
    assert "\x1b[1m" in output
    assert output.count("x") == 90


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_only_the_instant_of_an_event_is_dim(daemon: ScriptedDaemon, start: Start) -> None:
    daemon.answers("WatchEvents", [EVENT])
    output = _terminal_output(start, "watch", exit_code=3)
    assert "\x1b[2m1970-01-01T00:00:00.000Z\x1b[0m" in output
    assert output.count("\x1b[2") == 1


def test_the_module_runs_as_a_program(daemon: ScriptedDaemon) -> None:
    daemon.answers("ListLocks", engagement_pb2.ListLocksResponse())
    command = [sys.executable, "-m", "coordd.cli.coordctl", "--address", daemon.address, "locks"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == "no locks\n"


def test_ctrl_c_while_the_daemon_is_away_is_quiet(daemon: ScriptedDaemon, start: Start) -> None:
    daemon.stop()
    process = start("lock", "tweet:1", "--kind", "reply", "--worker", "w7", "--wait", "1h")
    assert process.stderr is not None
    assert process.stderr.readline() == "the daemon is away; waiting for it to come back\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


def _completions(start: Start, *words: str) -> list[str]:
    environment = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    out, errors = start(env={**environment, "_COORDCTL_COMPLETE": "bash_complete"}).communicate(timeout=30)
    assert errors == ""
    return [line.removeprefix("plain,") for line in out.splitlines() if line]


def test_the_shell_completes_commands_words_and_the_daemons_names(
    daemon: ScriptedDaemon, start: Start
) -> None:
    limits = [admin_pb2.Limit(endpoint=name) for name in ("post_tweet", "search_tweets")]
    daemon.answers("ListLimits", admin_pb2.ListLimitsResponse(limits=limits))
    daemon.answers("ListPools", admin_pb2.ListPoolsResponse(pools=[admin_pb2.Pool(name="cores")]))
    assert _completions(start, "coordctl", "lo") == ["lock", "locks"]
    assert _completions(start, "coordctl", "lock", "x", "--priority", "h") == ["high"]
    assert _completions(start, "coordctl", "capacity", "p") == ["post_tweet"]
    assert _completions(start, "coordctl", "pools", "set", "c") == ["cores"]
    daemon.stop()
    assert _completions(start, "coordctl", "capacity", "p") == []


def test_a_terminal_without_the_letter_gets_its_number(daemon: ScriptedDaemon, start: Start) -> None:
    daemon.answers("GetLock", engagement_pb2.GetLockResponse(state=engagement_pb2.ITEM_STATE_FREE))
    out, errors = start("show", "tw\u65e5", env={"PYTHONIOENCODING": "latin-1"}).communicate(timeout=30)
    assert (out, errors) == ("tw\\u65e5  FREE\n", "")
