"""The load generator (tools/load) as a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

# By sort of call and step (`lease_request`, `critical_release`): how the calls ended, and how long they took.
Report = dict[str, Any]

EXECUTABLE: Final = Path(sys.executable).with_name("coordd-load")
WARM_UP_S: Final = 2.0
_LATE_S_MAX: Final = 60.0


def generate(address: str, label: str, seconds: float, **rates: float) -> Report:
    """Load the daemon for so long, and return what became of it.

    Args: label: begins every name, so that two loads do not meet. rates: as the program's flags say.
    Raises: RuntimeError if the load could not be made.
    """
    flags = [f"-{name}={value:g}" for name, value in rates.items()]
    command = [
        str(EXECUTABLE),
        f"-address={address}",
        f"-label={label}",
        f"-seconds={seconds + WARM_UP_S:g}",
    ]
    try:
        done = subprocess.run(
            [*command, f"-warm-up={WARM_UP_S:g}", *flags],
            check=True,
            capture_output=True,
            timeout=seconds + WARM_UP_S + _LATE_S_MAX,
        )
    except FileNotFoundError as error:
        raise RuntimeError("there is no load generator; `make setup-load` builds it") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"the load ended with {error.stderr[-500:]!r}") from error
    report: Report = msgspec.json.decode(done.stdout)
    return report
