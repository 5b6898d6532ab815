"""Gates: when upstream has refused a call, nobody calls that endpoint for a while, and then one does.

Owns: each endpoint's gate, closed until when, its strikes, and the one permit that probes.
Rules: open -> closed -> probing -> open, or closed again with a strike more. What was in flight when a
refusal was told belongs to the same incident: it can't be helped, and says nothing new. A probe that ended
without a word of upstream's limiter (not sent, not reported, an error of upstream's) makes room for the next.
A pause without a time from upstream is `backoff` x 2**(strikes - 1), capped; jitter comes from the permit's
id, so that equal inputs pause equally long. A strike fades with each success, and with each `backoff_decay`
once the pause is over.
Must not know: header fields, or windows' arithmetic.
"""

from typing import Final

from msgspec.structs import replace

from coordd.core.claims import Blocked
from coordd.core.commands import RecordUsage
from coordd.core.ledger import Ledger
from coordd.core.lengths import spell_length
from coordd.core.limit import Limit
from coordd.core.outcomes import Alert, GateChanged, Reason
from coordd.core.records import Gate, Permit, Table
from coordd.core.rules import LimitRule
from coordd.core.views import GateState, GateView

_TOO_MANY_REQUESTS: Final = 429
# These refuse for want of capacity only where they say when to come back; 403 is what GitHub's do.
_REFUSALS_WITH_A_TIME: Final = frozenset([403, 503])
_SERVER_ERRORS_FROM: Final = 500
# 2**64 over the golden ratio: spreads consecutive ids evenly (Knuth, TAOCP 3, 6.4).
_SPREAD: Final = 0x9E3779B97F4A7C15
_STRIKES_MAX: Final = 62


class Gates:
    """What gates decide. Each gate is kept at its `Limit` from its first refusal on; None there: open.

    It is kept for good, so that a refusal that is reported again, however late, closes nothing.
    """

    __slots__ = ("_changed", "_ledger")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed = ledger.changes.of[Table.GATES]

    def shut_until(self, limit: Limit, gate: Gate, now: int) -> int:
        """Return until when nobody gets a permit, if nothing is reported; 0: somebody may."""
        probe = limit.open.get(gate.probe_id)
        until = gate.closed_until if probe is None else probe.use_by
        return until if until > now else 0

    def beside(self, limit: Limit, gate: Gate, blocked: Blocked | None, now: int) -> Blocked | None:
        """Return what blocks a permit that, were the gate open, `blocked` would, or None."""
        until = self.shut_until(limit, gate, now) if gate.closed_until else 0
        if not until:
            return blocked
        # A probe is answered sooner than its time is over, mostly: it is worth asking again.
        retry_at = until if gate.closed_until > now else min(until, now + limit.rule.backoff_ns)
        if blocked is not None:
            retry_at = max(retry_at, blocked.retry_at)
        return Blocked(
            reason=Reason.GATE, subject=limit.name, key=limit.key, retry_at=retry_at, frees_at=until
        )

    def let_through(self, gate: Gate, permit: Permit) -> None:
        """Note that a permit is given: it is the probe, if the gate is not open."""
        if gate.closed_until:
            gate.probe_id = permit.id
            self._change(gate)

    def give_up(self, limit: Limit, gate: Gate, permit: Permit) -> None:
        """Note that a permit ended without a report: if it was the probe, the next one may go."""
        if gate.probe_id == permit.id:
            self._end_probe(limit, gate)

    def report(self, limit: Limit, command: RecordUsage, pause_ns: int, now: int) -> None:
        """Take in what became of a call. Args: pause_ns: as upstream told, below 0 if it did not.

        Call it also for what is reported late or twice: ids tell what is new.
        """
        if not command.is_sent:
            is_refused = is_let_in = False
        else:
            is_refused = _is_refused(command.status_code, pause_ns)
            is_let_in = not is_refused and _is_let_in(command)
        if is_refused:
            self._refuse(limit, command.id, pause_ns, now)
        elif limit.gate is not None:
            self._answer(limit, limit.gate, command.id, is_let_in=is_let_in, now=now)

    def end_pause(self, gate: Gate, now: int) -> None:
        """Let the next call probe: an operator knows better than what upstream said."""
        if gate.closed_until > now:
            gate.closed_until = gate.struck_at = now
            self._change(gate)

    def load(self, limit: Limit, gate: Gate) -> None:
        """Take a gate in as it was stored, after the permits: a probe that is not among them is over."""
        if gate.probe_id and gate.probe_id not in limit.open:
            gate.probe_id = 0
            self._changed[gate.endpoint] = gate
        limit.gate = gate

    def forget(self, endpoint: str) -> None:
        """Drop the stored gate of an endpoint that is gone."""
        self._changed[endpoint] = None

    def view(self, limit: Limit, now: int) -> GateView:
        """Return how the gate stands."""
        gate = limit.gate
        if gate is None:
            return GateView(state=GateState.OPEN)
        view = gate_view(gate, now)
        opens_at = self.shut_until(limit, gate, now) if view.state == GateState.PROBING else view.opens_at
        return replace(view, opens_at=opens_at, strikes=_strikes(gate, limit.rule, now))

    # --------------------------------------------------------------------------------------------------------

    def _refuse(self, limit: Limit, id: int, pause_ns: int, now: int) -> None:
        gate = limit.gate
        if gate is not None and id <= gate.struck_id:
            self._extend(limit, gate, pause_ns, now)
            return
        if gate is None:
            gate = limit.gate = Gate(endpoint=limit.name)
        gate.strikes = min(_strikes(gate, limit.rule, now) + 1, _STRIKES_MAX)
        gate.closed_until = now + (pause_ns if pause_ns > 0 else _backoff_ns(limit.rule, gate.strikes, id))
        gate.struck_at = gate.closed_until
        gate.struck_id = self._ledger.last_id
        gate.probe_id = 0
        self._change(gate)
        if gate.strikes == limit.rule.alert_after:
            self._alert(limit, gate, now)

    def _extend(self, limit: Limit, gate: Gate, pause_ns: int, now: int) -> None:
        """Stay closed for longer, if a refusal of the same incident says so, and nothing newer is known."""
        if gate.closed_until > now and now + pause_ns > gate.closed_until:
            gate.closed_until = gate.struck_at = now + pause_ns
            self._change(gate)

    def _answer(self, limit: Limit, gate: Gate, id: int, *, is_let_in: bool, now: int) -> None:
        is_over = id == gate.probe_id
        if is_let_in and id > gate.struck_id:
            # Also an earlier probe's late word counts: its call was made after the refusal.
            is_over = is_over or gate.closed_until > 0
            gate.closed_until = 0
            if gate.strikes:
                _forgive(gate, limit.rule, now)
                self._changed[gate.endpoint] = gate
        if is_over:
            self._end_probe(limit, gate)

    def _end_probe(self, limit: Limit, gate: Gate) -> None:
        gate.probe_id = 0
        self._change(gate)
        self._ledger.freed.append(limit.key)

    def _change(self, gate: Gate) -> None:
        self._changed[gate.endpoint] = gate
        # A copy: it goes on changing, and this is told later.
        self._ledger.notices.append(GateChanged(gate=replace(gate)))

    def _alert(self, limit: Limit, gate: Gate, now: int) -> None:
        pause = spell_length(gate.closed_until - now)
        self._ledger.notices.append(
            Alert(
                subject=limit.windows.name,
                detail=f"Upstream has refused {gate.strikes} times in a row; the gate is closed for {pause}.",
            )
        )


def gate_view(gate: Gate, now: int) -> GateView:
    """Return how a gate stands by its record alone, which does not tell when a probe's time is over."""
    if not gate.closed_until:
        return GateView(state=GateState.OPEN, strikes=gate.strikes)
    state = GateState.CLOSED if gate.closed_until > now else GateState.PROBING
    return GateView(state=state, opens_at=gate.closed_until, strikes=gate.strikes)


def _is_refused(status_code: int, pause_ns: int) -> bool:
    return status_code == _TOO_MANY_REQUESTS or (status_code in _REFUSALS_WITH_A_TIME and pause_ns >= 0)


def _is_let_in(command: RecordUsage) -> bool:
    """Whether upstream's limiter has let the call in, whatever became of it then.

    An error of upstream's own, or none of its answers at all, says nothing of its limiter.
    """
    return command.is_success or 0 < command.status_code < _SERVER_ERRORS_FROM


def _strikes(gate: Gate, rule: LimitRule, now: int) -> int:
    """Return the strikes that have not faded by now."""
    faded = max(0, now - gate.struck_at) // rule.backoff_decay_ns
    return max(0, gate.strikes - faded)


def _forgive(gate: Gate, rule: LimitRule, now: int) -> None:
    faded = max(0, now - gate.struck_at) // rule.backoff_decay_ns
    gate.struck_at += faded * rule.backoff_decay_ns
    gate.strikes = max(0, gate.strikes - faded - 1)


def _backoff_ns(rule: LimitRule, strikes: int, id: int) -> int:
    """Return a pause, half of it jitter: so that two fleets that were refused at once part ways.

    Source: "equal jitter", M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    whole_ns = min(rule.backoff_ns << (strikes - 1), rule.backoff_max_ns)
    half_ns = whole_ns // 2
    return whole_ns - half_ns + (half_ns * (id * _SPREAD & 0xFFFFFFFF) >> 32)
