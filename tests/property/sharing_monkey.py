"""A monkey that only wants what is shared: crowds at one queue, mixed sizes, failures, comings and goings."""

from collections.abc import Callable

from monkey import Monkey

from coordd.core import commands
from coordd.core.limits import SECOND
from coordd.core.rules import HIGH, MEDIUM


class SharingMonkey(Monkey):
    """Does something about the limit `post` or the pool `slots` at random."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.weights = [weight for _, weight in self._deeds()]
        self.is_patient = True
        self.sizes = self.random.choice([[1], [1, 1, 2], [1, 2, 3]])
        self.is_of_one_class = self.random.random() < 0.5

    def take_permit(self) -> None:
        self.harness.do(
            commands.TakePermit(endpoint="post", count=self.random.choice(self.sizes), **self._asking())
        )

    def reserve(self) -> None:
        self.harness.do(
            commands.ReserveResource(type="slot", units=self.random.choice(self.sizes), **self._asking())
        )

    def record_usage(self) -> None:
        permit = self._pick("permits")
        if permit is not None:
            is_sent, is_success = self.random.random() < 0.8, self.random.random() < 0.4
            self.harness.do(
                commands.RecordUsage(
                    endpoint=permit.endpoint,
                    worker=permit.worker,
                    id=permit.id,
                    is_sent=is_sent,
                    is_success=is_success,
                )
            )

    def update(self) -> None:
        number = self.random.randint(3, 4)
        windows = {8 * SECOND: number, 40 * SECOND: self.random.randint(7, 12)}
        self.harness.do(
            self.random.choice(
                [
                    commands.UpdateLimit(endpoint="post", windows=windows),
                    commands.UpdatePool(name="slots", capacity=number),
                ]
            )
        )

    def restart(self) -> None:
        self.harness.restart(self.random.choice([0, SECOND, 10 * SECOND]))

    def _asking(self) -> dict[str, object]:
        asking = self._wanting() | {"worker": self.random.choice(["w1", "w2", "w3", "w4", "w5"])}
        if self.is_of_one_class:
            asking["priority"] = MEDIUM
        elif self.random.random() < 0.7:
            asking["priority"] = self.random.choice([MEDIUM, HIGH])
        return asking

    def _deeds(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.reserve, 6),
            (self.take_permit, 8),
            (self.release_resource, 3),
            (self.renew_reservation, 1),
            (self.record_usage, 4),
            (self.leave, 1),
            (self.come_back, 1),
            (self.return_grant, 1),
            (self.force, 1),
            (self.update, 1),
            (self.restart, 1),
            (self.let_time_pass, 6),
        ]
