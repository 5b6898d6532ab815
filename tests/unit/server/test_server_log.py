"""The log's level changes while loggers live, and its reader may go."""

import subprocess
import sys

CHANGES = """
import structlog
from coordd.config import LogSettings
from coordd.server.log import configure_log, set_level
logger = structlog.get_logger()
configure_log(LogSettings(format="json"))
bound = logger.bind(x=1)
for level in ("info", "debug", "error", "info"):
    set_level(level)
    for each in (logger, bound, structlog.get_logger()):
        each.debug("d"); each.info("i"); each.error("e")
"""
GONE = """
import os, structlog, sys
from coordd.config import LogSettings
from coordd.server.log import configure_log
configure_log(LogSettings())
read, write = os.pipe()
os.dup2(write, 2)
os.close(read)
os.close(write)
for _ in range(3):
    structlog.get_logger().error("nobody reads this")
    __import__("logging").error("nor this")
print("alive")
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_level_changes_for_loggers_that_are_in_use() -> None:
    events = [line.partition('"event": "')[2][:1] for line in run(CHANGES).stderr.splitlines()]
    assert "".join(events) == "ieieie" + "diediedie" + "eee" + "ieieie"


def test_a_log_that_nobody_reads_any_more_ends_nothing() -> None:
    done = run(GONE)
    assert (done.stdout, done.stderr) == ("alive\n", "")
