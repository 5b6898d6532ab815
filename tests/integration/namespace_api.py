"""What the tests of namespaces call: the stubs of one namespace, and the files of a daemon with two."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from daemon_api import CONFIG, Api

BLUE = """
[kinds.analysis]
lock_delay = "0s"
[pools.small]
capacity = 1
[types.slot]
pool = "small"
[limits.post]
windows = { "15m" = 2 }
[limits.only_in_blue]
windows = { "15m" = 2 }
"""


def fleets(directory: Path, blue: str = BLUE, more: str = "") -> Path:
    """Write the files of a daemon with the namespaces `default` and `blue`; return the main one."""
    file = directory / "coordd.toml"
    main = CONFIG.format(address="127.0.0.1:0", path=directory / "data" / "coordd.db")
    file.write_text(f'{main}[namespaces.blue]\nfile = "blue.toml"\n{more}')
    (directory / "blue.toml").write_text(blue)
    return file


class _Named:
    """A channel whose every call has the same metadata."""

    def __init__(self, channel: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, form: str) -> Callable[..., Any]:
        def method(*args: Any, **more: Any) -> Any:
            return partial(getattr(self._channel, form)(*args, **more), metadata=self._metadata)

        return method


def named(channel: Any, *metadata: tuple[str, str]) -> Any:
    """Return a channel whose every call has this metadata."""
    return _Named(channel, metadata)


def in_namespace(channel: Any, namespace: str, *more: tuple[str, str]) -> Api:
    """Return the stubs of a namespace over a channel."""
    return Api(named(channel, ("coordd-namespace", namespace), *more))
