"""The demo's limits and names, in one place, so that daemon and upstream can't disagree about a window.

Time runs 225 times faster than outside: 15 minutes of an API's limits last 4 seconds, an hour 16 s and a day
384 s. The limits are those of examples/glitchbot.toml times 4: 50 per 15 min, 200 an hour; and the same rate
for the day, which is longer than the demo: calls that are spread evenly keep to the slowest window's rate. So
the shortest one binds.
"""

from collections.abc import Mapping
from typing import Final

ENDPOINT: Final = "post_tweet"
KIND: Final = "reply"
POST_PATH: Final = "/2/tweets"

# Window length in seconds -> calls allowed within any such length of time, shortest first.
WINDOWS: Final[Mapping[int, int]] = {4: 200, 16: 800, 384: 19_200}

# A lease outlasts the daemon's restart, so that only a dead holder loses its lock, and is still short enough
# for the dead worker's tweet to become UNKNOWN within the demo. Renewals cover longer waits for a permit.
LOCK_TTL_S: Final = 6.0
# An unreported permit is charged at the latest time it may be used; reports come within milliseconds.
USE_WITHIN_S: Final = 2.0
# With two classes each worker has so many tweets in hand at once, so that there is a queue to go ahead of.
HANDS_BY_CLASS: Final = 8

_CONFIG: Final = """\
[server]
address = "127.0.0.1:0"

[store]
path = "{data_path}"

[log]
level = "warning"

[kinds.{kind}]
ttl = "{ttl_ms}ms"
min_interval = "24h"
lock_delay = "500ms"

[limits.{endpoint}]
windows = {{ {windows} }}
allocation = "priority"
pace = "{pace}"
use_within = "{use_within_ms}ms"
claim_window = "5s"

[waits]
resume_grace = "30s"

[recovery]
grace = "2s"
"""


def daemon_config(data_path: str, *, is_by_class: bool = False) -> str:
    """Return the daemon's configuration file: a free port of the loopback, data at `data_path`.

    With two classes calls are spread over the window, all but critical ones: else a window that was used up
    by low ones would let nobody call until it moves on.
    """
    return _CONFIG.format(
        data_path=data_path,
        kind=KIND,
        ttl_ms=round(LOCK_TTL_S * 1000),
        endpoint=ENDPOINT,
        pace="even" if is_by_class else "asap",
        windows=", ".join(f'"{window_s}s" = {limit}' for window_s, limit in WINDOWS.items()),
        use_within_ms=round(USE_WITHIN_S * 1000),
    )


def upstream_limits() -> str:
    """Return the same windows in Flask-Limiter's notation."""
    return ";".join(f"{limit} per {window_s} second" for window_s, limit in WINDOWS.items())
