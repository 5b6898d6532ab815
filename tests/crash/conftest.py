import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random, SystemRandom

import pytest

# What they assert is to be told as what a test asserts is.
pytest.register_assert_rewrite("crash_audit", "crash_work")

from crash_daemon import Daemon  # noqa: E402
from crash_rig import Fleet  # noqa: E402


@pytest.fixture
def random() -> Random:
    """A source of chance whose seed is shown when the test fails."""
    seed = int(os.environ.get("COORDD_CRASH_SEED") or SystemRandom().randrange(10**9))
    print(f"COORDD_CRASH_SEED={seed}")  # noqa: T201
    return Random(seed)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """The real daemon, not started yet."""
    daemon = Daemon(tmp_path)
    yield daemon
    await daemon.close()


@pytest.fixture
async def fleet(random: Random) -> AsyncIterator[Fleet]:
    """Clients that are not at work yet."""
    fleet = Fleet(random)
    yield fleet
    await fleet.close()
