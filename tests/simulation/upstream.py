"""Who is called under permits: it counts arrivals at true time, and may refuse.

Rules: whatever it says, each call that arrives counts.
"""

from dataclasses import dataclass
from random import Random

from audit import history as to

from simulation.history import Record
from simulation.loop import Loop
from simulation.mix import UpstreamMix


@dataclass(frozen=True)
class Response:
    """What a call was answered."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


class Upstream:
    """All the endpoints that there are."""

    def __init__(self, loop: Loop, record: Record, random: Random, mix: UpstreamMix) -> None:
        self._loop = loop
        self._record = record
        self._random = random
        self._mix = mix

    def arrive(self, endpoint: str, permit: int, calls: int) -> Response:
        """A permit's calls arrive, all at once; return what they are answered."""
        self._record.add(to.Arrived(at=self._loop.now_ns, name=endpoint, id=permit, calls=calls))
        chance = self._random.random()
        if chance < self._mix.refusal_rate:
            return Response(429, self._headers())
        return Response(500 if chance < self._mix.refusal_rate + self._mix.failure_rate else 200)

    def take(self, pool: str, reservation: int, units: int) -> None:
        """Units of a refilling pool are used."""
        self._record.add(to.Arrived(at=self._loop.now_ns, name=pool, id=reservation, of="pool", calls=units))

    def _headers(self) -> tuple[tuple[str, str], ...]:
        if self._random.random() < 0.5:
            return ()
        return (("Retry-After", str(self._random.randrange(8))),)
