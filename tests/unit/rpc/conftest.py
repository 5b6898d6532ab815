from collections.abc import Iterator
from pathlib import Path

import pytest
from offline import Offline

from coordd.config import load

CONFIG = """
[limits.post]
windows = { "15m" = 3, "1h" = 5 }
[pools.small]
capacity = 2
[types.slot]
pool = "small"
"""


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    config = tmp_path / "coordd.toml"
    config.write_text(CONFIG)
    offline = Offline(tmp_path, load(config, {}))
    yield offline
    offline.close()
