"""What is wrong with a configuration, told with its key.

Owns: the error that refuses a configuration, and how a check of several keys together names each of them.
"""

from collections.abc import Iterable


class ConfigError(Exception):
    """The configuration is refused. `problems`: one line each, with file (or variable), key and reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Problems(ValueError):
    """What several keys say together is wrong. Each problem names its key below the field that is checked."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{key}: {reason}" for key, reason in self.problems))

    @classmethod
    def raise_any(cls, problems: Iterable[tuple[str, str]]) -> None:
        """Raise the problems, if there is one."""
        if found := tuple(problems):
            raise cls(found)
