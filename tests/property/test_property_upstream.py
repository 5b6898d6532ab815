"""A strict upstream in miniature: moving windows, other users, moods; and a judge that knows nothing of core.

It knows what it told and what was reported, and of the machine its answers only: after a refusal was reported
there is one call at a time until upstream lets one in; what is granted never exceeds what is known to be
allowed; what others use is never made up.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from property_rules import rules_of

from coordd.core.commands import RecordUsage, TakePermit
from coordd.core.limits import MILLISECOND, SECOND
from coordd.core.machine import Machine
from coordd.core.outcomes import Granted, Reason, Refused
from coordd.core.records import KEY_COLUMNS, Booking, Permit, Row, Table
from coordd.core.rules import LimitRule, Rules
from coordd.core.shared_windows import SharedWindow
from coordd.core.window import Window
from coordd.core.windows import Windows

T0 = 1_790_000_000 * SECOND
WINDOW = 10 * SECOND
CONFIGURED = 8
USE_WITHIN = 2 * SECOND
RULE = LimitRule(
    windows={WINDOW: CONFIGURED},
    use_within_ns=USE_WITHIN,
    backoff_ns=SECOND,
    backoff_max_ns=5 * SECOND,
    backoff_decay_ns=4 * SECOND,
    forecast_max=0.0,
)

Deed = tuple[str, int]
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("arrive"), st.integers(0, 5)),
        st.tuples(st.just("report"), st.integers(0, 5)),
        st.tuples(st.just("call"), st.just(0)),
        st.tuples(st.just("report again"), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.integers(0, 5)),
        st.tuples(st.just("not sent"), st.integers(0, 5)),
        st.tuples(st.just("others"), st.integers(1, 4)),
        st.tuples(st.just("allow"), st.integers(1, 12)),
        st.tuples(st.just("mood"), st.integers(1, 2)),
        st.tuples(st.just("slow call"), st.integers(1, 1_999)),
        st.tuples(st.just("elapse"), st.integers(1, 4_000)),
        st.tuples(st.just("elapse"), st.integers(8_000, 10_000)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    min_size=10,
    max_size=70,
)


class Answer:
    """What upstream answered to a call."""

    def __init__(self, status_code: int, headers: Sequence[tuple[str, str]]) -> None:
        self.status_code = status_code
        self.headers = tuple(headers)


class Upstream:
    """Counts calls, ours and others', within any `WINDOW`; a mood refuses wordlessly and does not count."""

    def __init__(self) -> None:
        self.limit = CONFIGURED
        self.counted: list[int] = []
        self.moods = 0

    def call(self, now: int) -> Answer:
        if self.moods:
            self.moods -= 1
            return Answer(429, ())
        inside = self.inside(now)
        reset_s = -(-(min(inside, default=now) + WINDOW - now) // SECOND)
        is_refused = len(inside) >= self.limit
        if not is_refused:
            self.counted.append(now)
        headers = [
            ("X-RateLimit-Limit", str(self.limit)),
            ("X-RateLimit-Remaining", str(max(0, self.limit - len(inside) - (not is_refused)))),
            ("X-RateLimit-Reset", str(reset_s)),
            ("Retry-After", str(reset_s)),
        ]
        return Answer(429 if is_refused else 200, headers)

    def inside(self, now: int) -> list[int]:
        return [at for at in self.counted if at > now - WINDOW]


class Flight:
    """A permit under way."""

    def __init__(self, permit: Permit, number: int, limit: int) -> None:
        self.permit = permit
        self.number = number
        # The limit in force when it was granted.
        self.limit = limit
        self.answer: Answer | None = None


class World:
    """The machine, upstream, what is between them, and the judge."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.now = T0
        self.upstream = Upstream()
        self.machine = Machine(rules)
        self.machine.recover({}, 0, T0)
        self.rows: dict[Table, dict[tuple[Any, ...], Row]] = {table: {} for table in Table}
        self.journal: list[tuple[int, Any]] = []
        self.flights: list[Flight] = []
        self.reported: list[Flight] = []
        self.arrived: list[tuple[int, Flight]] = []
        self.is_alone = True
        self.granted = 0
        # The judge's own idea of the gate: the grants before `struck` can't be helped.
        self.is_closed = False
        self.struck = 0
        self.pause_until = 0

    # -- deeds -----------------------------------------------------------------------------------------------

    def do(self, deed: str, number: int) -> None:
        getattr(self, deed.replace(" ", "_"))(number)

    def apply(self, command: Any) -> Any:
        self.journal.append((self.now, command))
        self.machine.tick(self.now)
        return self.machine.apply(command, self.now)

    def take(self, times: int) -> None:
        for _ in range(times):
            answer = self.apply(TakePermit(endpoint="e", worker="w"))
            if isinstance(answer, Refused):
                assert answer.retry_at > self.now
                assert answer.reason in (Reason.GATE, Reason.WINDOW_FULL)
                return
            assert isinstance(answer, Granted)
            assert isinstance(answer.grant, Permit)
            self._judge_grant()
            self.granted += 1
            self.flights.append(Flight(answer.grant, self.granted, self.limit()))

    def arrive(self, index: int) -> None:
        waiting = [f for f in self.flights if f.answer is None and f.permit.use_by > self.now]
        if waiting:
            flight = waiting[index % len(waiting)]
            flight.answer = self.upstream.call(self.now)
            self.arrived.append((self.now, flight))
            self._judge_arrivals()

    def report(self, index: int) -> None:
        answered = [flight for flight in self.flights if flight.answer is not None]
        if answered:
            flight = answered[index % len(answered)]
            self.flights.remove(flight)
            self.reported.append(flight)
            self._report(flight)
            self._judge_what_is_left(flight)

    def call(self, _: int) -> None:
        """Make a whole call at one instant."""
        self.slow_call(0)

    def slow_call(self, milliseconds: int) -> None:
        """Make a whole call whose answer takes its time."""
        before = self.granted
        self.take(1)
        if self.granted > before:
            flight = self.flights.pop()
            flight.answer = self.upstream.call(self.now)
            self.arrived.append((self.now, flight))
            self.elapse(milliseconds)
            self.reported.append(flight)
            self._report(flight)
            self._judge_what_is_left(flight)

    def report_again(self, index: int) -> None:
        if self.reported:
            flight = self.reported[index % len(self.reported)]
            self._report(flight)

    def lose(self, index: int) -> None:
        if self.flights:
            del self.flights[index % len(self.flights)]

    def not_sent(self, index: int) -> None:
        waiting = [flight for flight in self.flights if flight.answer is None]
        if waiting:
            flight = waiting[index % len(waiting)]
            self.flights.remove(flight)
            self.apply(_usage(flight.permit, is_sent=False))

    def others(self, times: int) -> None:
        self.is_alone = False
        self.upstream.counted += [self.now] * times

    def allow(self, limit: int) -> None:
        self.upstream.limit = limit

    def mood(self, times: int) -> None:
        self.upstream.moods += times

    def elapse(self, milliseconds: int) -> None:
        until = self.now + milliseconds * MILLISECOND
        while (due_at := self.machine.next_deadline()) is not None and due_at <= until:
            self.now = max(self.now, due_at)
            self.tick()
        self.now = until
        self.tick()

    def tick(self) -> None:
        self.journal.append((self.now, None))
        self.machine.tick(self.now)

    def restart(self, _: int) -> None:
        """Go on with a machine that is recovered from the rows, and is as the old one was."""
        puts, deletes = self.machine.take_changes()
        for table, rows in puts.items():
            self.rows[table].update({row[: KEY_COLUMNS[table]]: row for row in rows})
        for table, keys in deletes.items():
            for key in keys:
                self.rows[table].pop(key, None)
        before = self.machine.snapshot()
        tables = {table: [rows[key] for key in sorted(rows)] for table, rows in self.rows.items()}
        last_id = self.machine.last_id
        self.machine = Machine(self.rules)
        self.machine.recover(tables, last_id, self.now)
        after = self.machine.snapshot()
        for table in (Table.GATES, Table.LEARNED_LIMITS, Table.PERMITS, Table.CELLS):
            assert after[table] == before[table]
        held = [row for row in before[Table.FOREIGN_USAGES] if int(row[3]) > self.now]
        assert after[Table.FOREIGN_USAGES] == held
        self.journal.clear()

    # -- the judge -------------------------------------------------------------------------------------------

    def limit(self) -> int:
        limit: int = self.machine.limit("e", self.now).windows[0].limit
        return limit

    def _report(self, flight: Flight) -> None:
        answer = flight.answer
        assert answer is not None
        self.apply(_usage(flight.permit, answer=answer))
        is_news = flight.number > self.struck
        if answer.status_code == 429:
            if is_news:
                self.is_closed, self.struck, self.pause_until = True, self.granted, 0
            retry_s = [int(value) for name, value in answer.headers if name == "Retry-After"]
            if is_news and retry_s:
                self.pause_until = self.now + retry_s[0] * SECOND
        elif is_news:
            self.is_closed = False

    def _judge_grant(self) -> None:
        if self.is_closed:
            probes = [f for f in self.flights if f.number > self.struck and f.permit.use_by > self.now]
            assert not probes, "two probes at once"
            assert self.now >= self.pause_until, "upstream said when"

    def _judge_arrivals(self) -> None:
        inside = [flight for at, flight in self.arrived if at > self.now - WINDOW]
        latest = max(inside, key=lambda flight: flight.number)
        assert len(inside) <= latest.limit, "more than was known to be allowed"

    def _judge_what_is_left(self, flight: Flight) -> None:
        answer = flight.answer
        assert answer is not None
        told = dict(answer.headers)
        if "X-RateLimit-Remaining" not in told or flight.permit.use_by <= self.now:
            return
        view = self.machine.limit("e", self.now).windows[0]
        assert view.limit == min(CONFIGURED, int(told["X-RateLimit-Limit"]))
        if flight.permit.granted_at == self.now:
            # Nothing can have left since: what is left is never more than upstream says.
            assert view.remaining <= int(told["X-RateLimit-Remaining"])
        if self.is_alone and not self.machine.counts().permits:
            assert not self.machine.snapshot()[Table.FOREIGN_USAGES], "nobody else was there"


def _usage(permit: Permit, *, is_sent: bool = True, answer: Answer | None = None) -> RecordUsage:
    status_code, headers = (answer.status_code, answer.headers) if answer is not None else (0, ())
    return RecordUsage(
        endpoint="e",
        worker="w",
        id=permit.id,
        is_sent=is_sent,
        is_success=status_code == 200,
        status_code=status_code,
        headers=headers,
    )


def rules() -> Rules:
    fields = {name: getattr(rules_of(), name) for name in Rules.__struct_fields__}
    return Rules(**(fields | {"limits": {"e": RULE}}))


def play(deeds: Sequence[Deed]) -> World:
    world = World(rules())
    for deed, number in deeds:
        world.do(deed, number)
    return world


@given(deeds)
def test_one_probe_at_a_time_and_never_more_than_is_known_to_be_allowed(deeds: list[Deed]) -> None:
    play(deeds)


@given(deeds)
def test_the_gate_opens_once_upstream_lets_calls_in(deeds: list[Deed]) -> None:
    world = play(deeds)
    world.flights.clear()
    world.upstream.moods = 0
    world.upstream.limit = CONFIGURED
    for _ in range(10):
        answer = world.apply(TakePermit(endpoint="e", worker="w"))
        if isinstance(answer, Refused):
            # Whatever the reason, it says when.
            world.elapse(-(-(answer.retry_at - world.now) // MILLISECOND))
            continue
        world.apply(_usage(answer.grant, answer=world.upstream.call(world.now)))
        if world.machine.limit("e", world.now).gate.opens_at == 0:
            return
    raise AssertionError("still closed")


@given(deeds)
def test_a_replay_gives_the_same(deeds: list[Deed]) -> None:
    world = play([deed for deed in deeds if deed[0] != "restart"])
    again = Machine(world.rules)
    again.recover({}, 0, T0)
    for at, command in world.journal:
        again.tick(at)
        if command is not None:
            again.apply(command, at)
    assert again.digest() == world.machine.digest()


charges = st.lists(st.tuples(st.integers(0, 9_000), st.integers(1, 3)), max_size=6)


@given(charges, charges, st.integers(0, 8), st.integers(1, 12_000), st.integers(1, 4), st.booleans())
def test_foreign_usage_counts_until_its_instant_and_not_a_moment_longer(  # noqa: PLR0917
    charged: list[tuple[int, int]],
    booked: list[tuple[int, int]],
    foreign: int,
    held_ms: int,
    count: int,
    is_shared: bool,  # noqa: FBT001
) -> None:
    """Against a list of every charge, by brute force over every instant at which anything changes."""
    window_type = SharedWindow if is_shared else Window
    windows = Windows("limit/e", {WINDOW: 20}, USE_WITHIN, {}, window_type)
    (window,) = windows.of
    width = window.width_ns
    steps: list[tuple[int, int]] = []
    for at_ms, number in charged:
        at = T0 + at_ms * MILLISECOND
        window.charge("w", number, at)
        steps += [(0, number), ((at // width + 501) * width, -number)]
    now = T0 + 9 * SECOND
    for place, (later_ms, number) in enumerate(booked):
        at = now + later_ms * MILLISECOND
        windows.book(Booking(place + 1, "e", "w", number, now, at, at, at + USE_WITHIN))
        steps += [(at // width * width, number), (((at + USE_WITHIN) // width + 501) * width, -number)]
    until = now + held_ms * MILLISECOND
    windows.roll(now)
    window.hold(3, until + 5, now)
    window.hold(foreign, until, now)
    steps += [(0, foreign), (until, -foreign)]

    def level(at: int) -> int:
        return sum(change for begins, change in steps if begins <= at)

    def is_room(at: int) -> bool:
        left_at = ((at + USE_WITHIN) // width + 501) * width
        return all(
            level(instant) + count <= 20
            for instant in [at, *(begins for begins, _ in steps if at < begins < left_at)]
        )

    instants = sorted({now, *(begins for begins, _ in steps if begins > now)})
    # Room begins only where something leaves; bookings that begin later push it on.
    expected = next(instant for instant in instants if is_room(instant))
    assert windows.earliest(count, now, USE_WITHIN, now).at == expected
    assert windows.is_room(count, now) == (expected == now)
    charges_now = sum(number for _, number in charged)
    assert window.used == charges_now + foreign
    ends = [begins for begins, change in steps if change < 0 and begins > now]
    assert window.resets_at(now) == max(ends, default=now)
    windows.roll(until)
    assert window.foreign == 0
    live = [number for at_ms, number in charged if window.is_live(T0 + at_ms * MILLISECOND, until)]
    assert window.used == sum(live)
