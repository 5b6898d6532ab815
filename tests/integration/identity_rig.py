"""A daemon with identities, and calls by each of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from daemon_api import CONFIG, Api

from coordd.access import fingerprint, spell_token

TOKENS = {name: spell_token(name.encode().ljust(32)) for name in ("bots", "rivals", "eye", "chief", "nobody")}
IDENTITIES = f"""
[identities.bots]
role = "worker"
workers = ["bot-*"]
token_sha256 = ["{fingerprint(TOKENS["bots"])}"]
[identities.rivals]
role = "worker"
workers = ["rival-*"]
token_sha256 = ["{fingerprint(TOKENS["rivals"])}"]
[identities.eye]
role = "observer"
token_sha256 = ["{fingerprint(TOKENS["eye"])}"]
[identities.chief]
role = "operator"
token_sha256 = ["{fingerprint(TOKENS["chief"])}"]
"""


_STUBS: Final = ("engagement", "reservation", "rate_limit", "bundle", "session", "admin")


def guarded_config(folder: Path, more: str = IDENTITIES, address: str = "127.0.0.1:0") -> Path:
    """Write a configuration with identities."""
    file = folder / "guarded.toml"
    file.write_text(CONFIG.format(address=address, path=folder / "guarded" / "coordd.db") + more)
    return file


def by(name: str) -> Sequence[tuple[str, str]]:
    """Return the metadata of a call by an identity."""
    return (("authorization", f"Bearer {TOKENS[name]}"),)


class By:
    """Stubs of one service whose calls are all made by one identity."""

    def __init__(self, stub: Any, name: str) -> None:
        self._stub = stub
        self._metadata = by(name)

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._stub, method)
        return lambda *args, **more: call(*args, metadata=self._metadata, **more)


def api_of(channel: grpc.aio.Channel, name: str) -> Api:
    """Return stubs whose calls are all made by one identity."""
    api = Api(channel)
    for stub in _STUBS:
        setattr(api, stub, By(getattr(api, stub), name))
    return api
