"""Fixtures of the tests of core."""

import pytest
from core_desk import Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()
