from collections.abc import Iterator

import pytest
from fuzz_daemon import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all that is thrown at it: what one leaves behind must not hurt the next."""
    daemon = Daemon(tmp_path_factory.mktemp("fuzz"))
    yield daemon
    daemon.stop()
