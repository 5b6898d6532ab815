"""Hypothesis profiles: `default` is quick and always the same, `thorough` is long and different every time.

Choose by COORDD_HYPOTHESIS_PROFILE.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "default",
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    database=None,
    suppress_health_check=_SLOW,
)
settings.register_profile(
    "thorough",
    max_examples=2_000,
    stateful_step_count=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=_SLOW,
)
_PROFILE = os.environ.get("COORDD_HYPOTHESIS_PROFILE", "default")
settings.load_profile(_PROFILE)


# They only compute, so none can hang on anybody: with coverage, on a machine that does five other things, the
# longest take more than the minute that other tests have. Thorough ones take their time.
_TIMEOUT_S = 0 if _PROFILE == "thorough" else 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let these tests take longer than others."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
