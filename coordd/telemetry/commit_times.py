"""Commits that take long are said: a slow disk is what most often makes a daemon slow."""

import structlog

from coordd.core.limits import MILLISECOND
from coordd.engine import Commit

_logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class CommitTimes:
    """See `coordd.engine.CommitObserver`. Args: slow_ns: to take longer is warned of; 0: never."""

    def __init__(self, slow_ns: int, namespace: str) -> None:
        self._slow_ns = slow_ns
        self._namespace = namespace

    def committed(self, commit: Commit) -> None:
        """See CommitObserver."""
        took_ns = commit.ended_at - commit.began_at
        if 0 < self._slow_ns < took_ns:
            _logger.warning(
                "slow commit",
                namespace=self._namespace,
                ms=took_ns // MILLISECOND,
                commands=commit.commands,
                records=commit.records,
            )
