"""A monkey at the desk: long random runs from a seed, without Hypothesis, hence able to run in a subprocess.

`python monkey.py SEED STEPS` prints the digest at the end and a hash of every answer on the way.
"""

import sys
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

from harness import Harness
from property_rules import rules_of

from coordd.core import commands
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.rules import PRIORITIES
from coordd.core.waiters import ReturnGrant

_WANTED = [
    ("db", "", 0),
    ("db", "", 1),
    ("db", "", 2),
    ("db", "", 3),
    ("db", "x", 0),
    ("db", "x", 2),
    ("db", "y", 3),
    ("gpu", "x", 1),
    ("file", "x", 0),
    ("quota", "tweet", 1),
    ("quota", "tweet", 2),
    ("post", "x", 1),
    ("post", "y", 2),
    ("slot", "", 1),
    ("slot", "", 3),
]


class Monkey:
    """Does something at random, `step` by `step`. Keeps to what its seed says, whatever the hash seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.harness = Harness(rules_of(is_exclusive_by_kind=self.random.random() < 0.3))
        # Each monkey prefers some things: a crowd at one queue finds what an even spread does not.
        self.deeds: list[Callable[[], None]] = [deed for deed, _ in self._deeds()]
        self.weights = [weight * self.random.choice([0, 1, 1, 4]) for _, weight in self._deeds()]
        self.weights[-1] = 4
        # Half of them keep to one component.
        focus = self.random.choice([None, None, None, 0, 1, 2])
        if focus is not None:
            self.weights[:3] = [0, 0, 0]
            self.weights[focus] = 8
        self.request_ids = self.random.choice([[""], ["", "", "r1", "r2"], ["", "r1", "r2", "r3", "r4"]])
        self.is_patient = self.random.random() < 0.8

    def step(self) -> None:
        """Do one thing."""
        self.random.choices(self.deeds, self.weights)[0]()

    def _deeds(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.request_lock, 4),
            (self.reserve, 4),
            (self.take_permit, 4),
            (self.schedule, 2),
            (self.claim, 2),
            (self.release_lock, 3),
            (self.renew_lock, 1),
            (self.release_resource, 3),
            (self.renew_reservation, 1),
            (self.record_usage, 3),
            (self.cancel, 1),
            (self.leave, 2),
            (self.come_back, 2),
            (self.return_grant, 1),
            (self.force, 1),
            (self.update, 1),
            (self.commit, 1),
            (self.let_time_pass, 4),
        ]

    def _wanting(self) -> dict[str, Any]:
        return {
            "worker": self.random.choice(["w1", "w2", "w3"]),
            "priority": self.random.choice(PRIORITIES),
            "request_id": self.random.choice(self.request_ids),
            "wait_ns": self.random.choice([0, 5 * SECOND, 60 * SECOND]) if self.is_patient else 0,
        }

    def _pick(self, name: str) -> Any:
        found = getattr(self.harness.model, name)
        return self.random.choice(found) if found else None

    def request_lock(self) -> None:
        kind, item = self.random.choice(["reply", "like", "quote"]), self.random.choice(["a", "b"])
        quality = self.random.choice([0.0, 0.5, 1.0])
        self.harness.do(commands.RequestLock(item=item, kind=kind, quality=quality, **self._wanting()))

    def reserve(self) -> None:
        type_, resource_id, units = self.random.choice(_WANTED)
        self.harness.do(
            commands.ReserveResource(type=type_, resource_id=resource_id, units=units, **self._wanting())
        )

    def take_permit(self) -> None:
        endpoint, count = self.random.choice(["search", "post"]), self.random.choice([1, 1, 2, 3])
        wanting = self._wanting()
        if self._smallest(endpoint) < count:
            wanting["wait_ns"] = 0
        self.harness.do(commands.TakePermit(endpoint=endpoint, count=count, **wanting))

    def _smallest(self, endpoint: str) -> int:
        return min(self.harness.model.limits[f"limit/{endpoint}"].values())

    def schedule(self) -> None:
        wanting = self._wanting()
        del wanting["wait_ns"]
        self.harness.do(
            commands.ScheduleRequest(
                endpoint=self.random.choice(["search", "post"]),
                count=self.random.choice([1, 2, 3]),
                not_before_ns=self.random.choice([0, 0, 7 * SECOND]),
                **wanting,
            )
        )

    def claim(self) -> None:
        slot = self._pick("slots")
        if slot is not None:
            if slot.execute_at > self.harness.now and self.random.random() < 0.5:
                self.harness.advance(slot.execute_at)
            request_id = self.random.choice(self.request_ids)
            self.harness.do(
                commands.TakePermit(
                    endpoint=slot.endpoint, worker=slot.worker, booking_id=slot.id, request_id=request_id
                )
            )

    def release_lock(self) -> None:
        lock = self._pick("locks")
        if lock is not None:
            outcome = self.random.choice([1, 2, 2, 3])
            self.harness.do(
                commands.ReleaseLock(item=lock.item, worker=lock.worker, token=lock.id, outcome=outcome)
            )

    def renew_lock(self) -> None:
        lock = self._pick("locks")
        if lock is not None:
            ttl_ns = self.random.choice([0, SECOND, 9 * SECOND])
            self.harness.do(
                commands.RenewLock(item=lock.item, worker=lock.worker, token=lock.id, ttl_ns=ttl_ns)
            )

    def release_resource(self) -> None:
        held = self._pick("holdings")
        if held is not None:
            unused_units = self.random.choice([0, 0, 1, 2])
            self.harness.do(
                commands.ReleaseResource(id=held.id, worker=held.worker, unused_units=unused_units)
            )

    def renew_reservation(self) -> None:
        held = self._pick("holdings")
        if held is not None:
            ttl_ns = self.random.choice([0, SECOND, 9 * SECOND])
            self.harness.do(commands.RenewReservation(id=held.id, worker=held.worker, ttl_ns=ttl_ns))

    def record_usage(self) -> None:
        permit = self._pick("permits")
        if permit is not None:
            is_sent = self.random.random() < 0.6
            self.harness.do(
                commands.RecordUsage(
                    endpoint=permit.endpoint,
                    worker=permit.worker,
                    id=permit.id,
                    is_sent=is_sent,
                    is_success=is_sent,
                )
            )

    def cancel(self) -> None:
        slot = self._pick("slots")
        if slot is not None:
            self.harness.do(commands.CancelSchedule(id=slot.id, worker=slot.worker))

    def leave(self) -> None:
        waiter = self._pick("waiting")
        if waiter is not None:
            self.harness.do(commands.LeaveWait(id=waiter.id))

    def come_back(self) -> None:
        waiter = self._pick("waiting")
        if waiter is not None and waiter.command.request_id:
            fields = {name: getattr(waiter.command, name) for name in waiter.command.__struct_fields__}
            wait_ns = self.random.choice([0, 5 * SECOND, 60 * SECOND])
            self.harness.do(type(waiter.command)(**(fields | {"wait_ns": wait_ns})))

    def return_grant(self) -> None:
        if self.harness.unheard:
            unheard, waiter = self.harness.unheard.popitem()
            self.harness.do(ReturnGrant(id=unheard, waiter=waiter))

    def force(self) -> None:
        grant = self._pick(self.random.choice(["locks", "holdings", "slots", "permits"]))
        if grant is not None and self.random.random() < 0.3:
            self.harness.do(commands.ForceRelease(id=grant.id, reason="because"))

    def update(self) -> None:
        number = self.random.randint(3, 4)
        windows = {10 * SECOND: number, 30 * SECOND: self.random.randint(number, 6)}
        update: Any = self.random.choice(
            [
                commands.UpdateLimit(endpoint="search", windows=windows),
                commands.UpdatePool(name="conns", capacity=number),
                commands.UpdatePool(name="tweets", windows={10 * SECOND: number}),
            ]
        )
        self.harness.do(update)

    def commit(self) -> None:
        self.harness.commit()
        if self.random.random() < 0.3:
            self.harness.check_store()

    def let_time_pass(self) -> None:
        due_at = self.harness.machine.next_deadline()
        if due_at is not None and self.random.random() < 0.5:
            self.harness.advance(max(self.harness.now, due_at + self.random.choice([-1, 0, 0, 1])))
        else:
            by_ns = self.random.choice([MILLISECOND, 700 * MILLISECOND, 4 * SECOND, 12 * SECOND])
            self.harness.advance(self.harness.now + by_ns, is_late=self.random.random() < 0.1)


def run(seed: int, steps: int) -> Monkey:
    """Let a monkey do `steps` things."""
    monkey = Monkey(seed)
    for _ in range(steps):
        monkey.step()
    return monkey


if __name__ == "__main__":
    done = run(int(sys.argv[1]), int(sys.argv[2]))
    answered = repr([(at, answer) for at, _, answer in done.harness.journal])
    answers = blake2b(answered.encode(), digest_size=16).hexdigest()
    sys.stdout.write(f"{done.harness.machine.digest().hex()} {answers}\n")
