"""Fixtures of the engine's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_rig import GatedStore, VirtualTime, running

from coordd.engine import Engine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordd.db"


@pytest.fixture
async def store(path: Path) -> GatedStore:
    return GatedStore(path)


@pytest.fixture
async def engine(store: GatedStore) -> AsyncIterator[Engine]:
    async with running(store) as engine:
        yield engine


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()
