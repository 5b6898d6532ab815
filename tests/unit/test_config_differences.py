"""How two configurations differ, in words; and that nothing secret is among them."""

import hashlib
from pathlib import Path

import pytest

from coordd.config import Difference, differences, load


def between(tmp_path: Path, before: str, after: str) -> list[tuple[str, str, str]]:
    first, second = tmp_path / "before.toml", tmp_path / "after.toml"
    first.write_text(before)
    second.write_text(after)
    return [(each.key, each.before, each.after) for each in differences(load(first, {}), load(second, {}))]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", []),
        ("", '[store]\nhistory_retention = "90d"', []),
        ("", "[waits]\nshed = false", [("waits.shed", "true", "false")]),
        ("", '[recovery]\ngrace = "1m"', [("recovery.grace", "30s", "1m")]),
        ("[pools.p]\ncapacity = 2", "[pools.p]\ncapacity = 3", [("pools.p.capacity", "2", "3")]),
        (
            '[limits.l]\nwindows = { "15m" = 3 }',
            '[limits.l]\nwindows = { "15m" = 3, "1h" = 9 }',
            [("limits.l.windows", "3/15m", "3/15m, 9/1h")],
        ),
        ("", "[worker_classes.big]\nweight = 2.0", [("worker_classes.big.weight", "-", "2.0")]),
        ("[workers.w]\nweight = 2.0", "", [("workers.w.weight", "2.0", "-")]),
    ],
)
def test_what_differs(tmp_path: Path, before: str, after: str, expected: list[tuple[str, str, str]]) -> None:
    assert between(tmp_path, before, after) == expected


def test_a_thing_that_came_or_went_is_told_with_all_that_is_said_of_it(tmp_path: Path) -> None:
    gone = between(tmp_path, "[kinds.new]\n", "")
    assert ("kinds.new.ttl", "15m", "-") in gone
    assert all(after == "-" for _, _, after in gone)


def test_of_who_may_call_nothing_is_shown(tmp_path: Path) -> None:
    one, two = (hashlib.sha256(word).hexdigest() for word in (b"one", b"two"))
    identity = '[identities.me]\nrole = "operator"\ntoken_sha256 = ["{}"]\n'
    told = between(tmp_path, identity.format(one), identity.format(two))
    assert told
    assert {(before, after) for _, before, after in told} == {("(not shown)", "(not shown)")}


@pytest.mark.parametrize(
    ("key", "is_live"),
    [
        ("kinds.reply.ttl", True),
        ("identities.me.role", True),
        ("log.level", True),
        ("store.history_retention", True),
        ("server.drain_timeout", True),
        ("store.path", False),
        ("server.address", False),
        ("log.format", False),
        ("tls.key", False),
        ("namespaces.blue.file", False),
        ("metrics.address", False),
    ],
)
def test_what_takes_a_restart(key: str, is_live: bool) -> None:  # noqa: FBT001
    assert Difference("default", key, "a", "b").is_live is is_live
