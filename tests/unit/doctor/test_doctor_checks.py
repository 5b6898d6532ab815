"""What tables must not say together: each such damage is found."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from doctor_files import INSTANT, made_now

from coordd.doctor import examine
from coordd.doctor.checks import CHECKS

# By the check that finds it.
DAMAGES = {
    "ids": "UPDATE meta SET last_id = 12",
    "distinct": "UPDATE engagements SET token = 11",
    "holders": "UPDATE locks SET item = 'tweet:1'",
    "resources": "INSERT INTO reservations SELECT 30, type, resource_id, pool, units, 'w2', granted_at,"
    " expires_at, ttl_ns, 0, '', 0, 2 FROM reservations",
    "requests": "UPDATE permits SET request_id = 'r1'",
    "counts": "UPDATE bookings SET count = -1",
    "classes": "UPDATE cells SET medium = 2, high = 2",
    "charges": "UPDATE cells SET count = 2",
    "order": "UPDATE locks SET granted_at = expires_at + 1",
    "future": "UPDATE engagements SET at = (SELECT instant + 1 FROM meta)",
    "waiters": "UPDATE waiters SET command = '{'",
    "bundles": "UPDATE bundles SET members = '[1,2]'",
    "values": "UPDATE engagements SET outcome = 9",
    "escalations": "DELETE FROM waiters",
    "expired": "UPDATE locks SET expires_at = (SELECT instant FROM meta)",
}


def test_every_check_has_a_damage_that_it_finds() -> None:
    assert DAMAGES.keys() == {check.name for check in CHECKS}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_found_and_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "coordd.db"
    made_now(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DAMAGES[name])
    report = examine(path, INSTANT)
    [found] = [found for found in report.findings if found.check == name]
    [check] = [check for check in CHECKS if check.name == name]
    assert found.gravity is check.gravity
    assert found.what.partition(" ")[0].isdigit()
    assert found.remedy
