"""Start-up and shut-down of the daemon."""

from coordd.server.addresses import AddressUnusable
from coordd.server.daemon import OPTIONS, Daemon
from coordd.server.log import configure_log
from coordd.server.serving import (
    EXIT_ADDRESS,
    EXIT_MISCONFIGURED,
    EXIT_STOPPED,
    EXIT_STORE_FAILED,
    EXIT_UNUSABLE,
    run,
    serve,
)
from coordd.server.tls import Misconfigured

__all__ = [
    "EXIT_ADDRESS",
    "EXIT_MISCONFIGURED",
    "EXIT_STOPPED",
    "EXIT_STORE_FAILED",
    "EXIT_UNUSABLE",
    "OPTIONS",
    "AddressUnusable",
    "Daemon",
    "Misconfigured",
    "configure_log",
    "run",
    "serve",
]
