"""What a judge says."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Violation:
    """A law that was broken, when it showed, and how."""

    at: int
    law: str
    text: str

    def __str__(self) -> str:
        return f"{self.at / 1e9:.9f} {self.law}: {self.text}"
