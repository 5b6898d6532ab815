"""What is installed and pinned, audited as far as that goes without a network."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools import audit_deps

HASH = "--hash=sha256:" + "0" * 64


def test_everything_is_pinned_by_hash_known_and_permissively_licensed() -> None:
    assert list(audit_deps.problems()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a==1 \\\n    {HASH}\n", []),
        (f"a==1 ; python_version < '3.12' \\\n    {HASH} \\\n    {HASH}\nb==2 \\\n    {HASH}\n", []),
        ("a==1\n", ["p: a==1: has no hash"]),
        (f"a==1\nb==2 \\\n    {HASH}\n", ["p: a==1: has no hash"]),
        ("a==1 \\\n    --hash=md5:00\n", ["p: a==1: has no hash"]),
        ("a>=1\n", ["p: a>=1: is no pin"]),
        ("git+https://example.invalid/a\n", ["p: git+https://example.invalid/a: is no pin"]),
    ],
)
def test_what_is_no_pin(text: str, told: list[str]) -> None:
    assert list(audit_deps.pin_problems("p", text)) == told


def test_a_licence_that_is_told_wrongly() -> None:
    row = "| click | the command lines | no rival | MIT |"
    assert list(audit_deps.documented_problems(row, {"click": metadata.distribution("click")})) == [
        "docs/dependencies.md: click: MIT, but its metadata say BSD-3-Clause"
    ]


@pytest.mark.parametrize(
    ("expression", "licences"),
    [
        ("MIT", {"MIT"}),
        ("MIT License", {"MIT"}),
        ("Apache-2.0 OR BSD-3-Clause", {"Apache-2.0", "BSD-3-Clause"}),
        ("(MIT and Zlib)", {"MIT", "Zlib"}),
        ("Mozilla Public License 2.0 (MPL 2.0)", {"MPL-2.0"}),
        ("GPL-3.0-only", {"GPL-3.0-only"}),
    ],
)
def test_licences_by_their_spdx_names(expression: str, licences: set[str]) -> None:
    assert audit_deps.spdx(expression) == licences
