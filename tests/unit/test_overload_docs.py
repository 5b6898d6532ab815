"""The table of bounds in docs/overload.md is that of the code."""

import re
from pathlib import Path

from coordd.config import Settings
from coordd.core import limits
from coordd.engine import session_stream, watch
from coordd.server.daemon import OPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "overload.md").read_text("utf-8")
# Lengths of time are ranges of what may be asked for, and no bounds on what grows.
IN_CODE = {
    name: value
    for module in (limits, watch, session_stream)
    for name, value in vars(module).items()
    if re.fullmatch(r"[A-Z_]+_(MAX|MIN)", name) and "_NS_" not in name
}


def told() -> dict[str, int]:
    """Return what the table says of each name, key and option."""
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ([\d, ]*) ?\|", PAGE, re.MULTILINE)
    pairs: dict[str, int] = {}
    for names, values in rows:
        named = re.findall(
            r"`([\w.]+)`", names.replace("`_hard_limit`", "`grpc.server.max_pending_requests_hard_limit`")
        )
        numbers = [int(value) for value in re.findall(r"\d+", values)]
        bounds = [name for name in named if not name.startswith("quotas.")]
        # One value for each, or one for all.
        pairs |= dict(zip(bounds, numbers if len(numbers) > 1 else numbers * len(bounds), strict=True))
    return pairs


def test_every_bound_of_the_code_is_in_the_table_with_its_value() -> None:
    assert {name: value for name, value in told().items() if name.isupper()} == IN_CODE


def test_every_option_of_the_transport_that_bounds_something_is_in_the_table() -> None:
    bounding = {
        name: value for name, value in OPTIONS.items() if re.search(r"max|limit", name) and "ping" not in name
    }
    assert {name: value for name, value in told().items() if name.startswith("grpc.")} == bounding


def test_every_key_in_the_table_has_its_default() -> None:
    keys = {name: value for name, value in told().items() if name.startswith("server.")}
    server = Settings().server
    assert keys == {
        "server.max_calls": server.max_calls,
        "server.max_message_bytes": server.max_message_bytes,
    }
