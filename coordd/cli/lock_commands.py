"""coordctl's commands on items: who holds what, what was done, and taking and releasing a lock by hand."""

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import click
from rich.text import Text

from coordd.cli.duration import DURATION, duration_of
from coordd.cli.failure import Away, ExitCode, Failure
from coordd.cli.invocation import Command, Invocation, pages, pass_invocation
from coordd.cli.number import Number, WholeNumber
from coordd.cli.printer import Column, Listing, cell
from coordd.cli.words import choices, enum_value, instant, length, refusal_sentence, word
from coordd.v1 import common_pb2, engagement_pb2

__all__ = ["lock", "locks", "release", "show", "stats"]

_LOCKS: tuple[Column[engagement_pb2.Lock], ...] = (
    Column("TOKEN", lambda lock: lock.fencing_token, right=True),
    Column("ITEM", lambda lock: lock.item),
    Column("KIND", lambda lock: lock.kind),
    Column("WORKER", lambda lock: lock.worker),
    Column("GRANTED", lambda lock: instant(lock.granted_at)),
    Column("EXPIRES IN", lambda lock: length(lock.expires_in), right=True),
)

_STATE_STYLES = {
    engagement_pb2.ITEM_STATE_FREE: "bold green",
    engagement_pb2.ITEM_STATE_IN_PROGRESS: "bold yellow",
    engagement_pb2.ITEM_STATE_DONE: "bold blue",
    engagement_pb2.ITEM_STATE_UNKNOWN: "bold magenta",
}


@click.command(cls=Command)
@click.option("--worker", default="", help="Only this worker's locks.")
@click.option("--limit", type=WholeNumber(1), help="At most so many.  [default: all]")
@pass_invocation
def locks(invocation: Invocation, worker: str, limit: int | None) -> None:
    """List the live locks, oldest token first."""

    def fetch(page_size: int, page_token: str) -> tuple[Iterable[engagement_pb2.Lock], str]:
        request = engagement_pb2.ListLocksRequest(page_size=page_size, page_token=page_token, worker=worker)
        response = invocation.daemon.ask(invocation.daemon.engagement.ListLocks, request)
        return response.locks, response.next_page_token

    invocation.printer.rows(pages(fetch, limit), _LOCKS, none="no locks")


def _history(engagement: engagement_pb2.Engagement) -> str:
    outcome = word(engagement_pb2.Outcome, engagement.outcome)
    return (
        f"{outcome} by {engagement.worker} ({engagement.kind}) at {instant(engagement.at)}, "
        f"token {engagement.fencing_token}"
    )


def _item_facts(answer: engagement_pb2.GetLockResponse) -> Iterator[tuple[str, str]]:
    """What is known of an item, as label and text."""
    if answer.HasField("lock"):
        held = answer.lock
        yield "held by", f"{held.worker} ({held.kind}), token {held.fencing_token}"
        yield "granted", instant(held.granted_at)
        yield "expires", f"{instant(held.expires_at)}, in {length(held.expires_in)}"
    if answer.HasField("last_engagement"):
        yield "last", _history(answer.last_engagement)
    if answer.HasField("delayed_until"):
        yield "rests until", instant(answer.delayed_until)
    if answer.waiters:
        yield "waiters", str(answer.waiters)


def _item_view(item: str, answer: engagement_pb2.GetLockResponse) -> Text:
    view = cell(item).append("  ")
    view.append(word(engagement_pb2.ItemState, answer.state), _STATE_STYLES.get(answer.state))
    for label, text in _item_facts(answer):
        view.append(f"\n  {label:<13}").append_text(cell(text))
    return view


@click.command(cls=Command, short_help="Say whether ITEM is free, held, done or unknown.")
@click.argument("item")
@click.option("--kind", default="", help="Needed where locks are exclusive per item and kind.")
@pass_invocation
def show(invocation: Invocation, item: str, kind: str) -> None:
    """Say whether ITEM is free, in progress, done or of unknown outcome."""
    request = engagement_pb2.GetLockRequest(item=item, kind=kind)
    answer = invocation.daemon.ask(invocation.daemon.engagement.GetLock, request)
    invocation.printer.message(answer, lambda: _item_view(item, answer))


@click.command(cls=Command)
@click.argument("item")
@click.option("--kind", required=True, help="The kind of engagement, as quote, reply, like or analysis.")
@click.option("--worker", required=True, help="Who takes it; the same name releases it.")
@click.option("--ttl", type=DURATION, help="How long to hold it.  [default: the kind's]")
@click.option(
    "--wait", "wait_ns", type=DURATION, help="Queue for it, so long at most.  [default: do not wait]"
)
@click.option("--priority", type=click.Choice(choices(common_pb2.Priority)), help="[default: medium]")
@click.option("--quality", type=Number(0, 1), help="Quality of what will be done, 0 to 1.")
@click.option("--request-id", default="", help="Asking again with the same one gives the same grant.")
@pass_invocation
def lock(
    invocation: Invocation,
    *,
    item: str,
    kind: str,
    worker: str,
    ttl: int | None,
    wait_ns: int | None,
    priority: str | None,
    quality: float | None,
    request_id: str,
) -> None:
    """Take the lock on ITEM by hand.

    Nothing renews it: it ends after --ttl unless you release it. While waiting, the place in the queue goes
    to stderr (with --json every step is a line on stdout); a wait outlasts a restart of the daemon. Exit
    code 1 if it is refused.
    """
    fields: dict[str, Any] = {
        "item": item,
        "kind": kind,
        "worker": worker,
        "ttl": duration_of(ttl),
        "priority": enum_value(common_pb2.Priority, priority or "unspecified"),
        "quality": quality,
        "request_id": request_id,
    }
    answer = _take(invocation, fields) if wait_ns is None else _wait(invocation, fields, wait_ns)
    if answer.HasField("refused"):
        advice = "" if wait_ns is not None or not answer.refused.queue_position else _advice(answer.refused)
        raise invocation.failure(f"refused: {refusal_sentence(answer.refused)}{advice}", ExitCode.REFUSED)


def _advice(refusal: common_pb2.Refusal) -> str:
    return f"; --wait DURATION queues for it, at place {refusal.queue_position}"


def _lock_view(granted: engagement_pb2.Lock) -> Text:
    return cell(
        f"locked {granted.item} for {granted.worker} ({granted.kind}): token {granted.fencing_token}, "
        f"until {instant(granted.expires_at)} ({length(granted.expires_in)})"
    )


def _take(invocation: Invocation, fields: dict[str, Any]) -> engagement_pb2.RequestLockResponse:
    """Take the lock now or not at all; prints it if granted."""
    request = engagement_pb2.RequestLockRequest(**fields)
    answer = invocation.daemon.change(invocation.daemon.engagement.RequestLock, request)
    if invocation.as_json or answer.HasField("granted"):
        invocation.printer.message(answer, lambda: _lock_view(answer.granted))
    return answer


_AWAY_NOTE = "the daemon is away; waiting for it to come back"
_DRAINING_NOTE = "the daemon is draining; waiting for it to grant again"
_PAUSE_NS = 500 * 10**6  # between two tries of a wait
_WAIT_NS_MIN = 10**6  # that the daemon takes


def _queued_line(queued: common_pb2.Queued) -> str:
    line = f"waiting at place {queued.position}"
    if queued.HasField("estimated_wait"):
        line += f", about {length(queued.estimated_wait)} to go"
    if queued.HasField("times_out_in"):
        line += f", gives up in {length(queued.times_out_in)}"
    if queued.HasField("blocked_by"):
        line += f": {refusal_sentence(queued.blocked_by)}"
    return line


def _wait(invocation: Invocation, fields: dict[str, Any], wait_ns: int) -> engagement_pb2.AwaitLockResponse:
    """Wait for the lock, over restarts of the daemon too.

    Returns: granted or refused.  Raises: Failure.
    """
    # By its request id the daemon knows a wait that comes back, and gives it its place again.
    fields = {**fields, "request_id": fields["request_id"] or uuid.uuid4().hex}
    end_ns = time.monotonic_ns() + wait_ns
    left_ns, is_told = wait_ns, False
    while True:
        try:
            return _follow(invocation, fields, left_ns)
        except Away as away:
            left_ns = end_ns - time.monotonic_ns()
            if left_ns <= 0:
                raise
            if not is_told:
                invocation.note(_DRAINING_NOTE if away.is_draining else _AWAY_NOTE)
                is_told = True
        time.sleep(min(left_ns, _PAUSE_NS) / 1e9)
        left_ns = max(end_ns - time.monotonic_ns(), _WAIT_NS_MIN)


def _follow(invocation: Invocation, fields: dict[str, Any], wait_ns: int) -> engagement_pb2.AwaitLockResponse:
    """Wait on one stream and tell how it goes. Raises: Failure, and Away if the daemon goes."""
    daemon = invocation.daemon
    request = engagement_pb2.AwaitLockRequest(**fields, wait_timeout=duration_of(wait_ns))
    for event in daemon.stream(daemon.engagement.AwaitLock, request, wait_ns=wait_ns):
        if invocation.as_json or event.HasField("granted"):
            invocation.printer.message(event, partial(_lock_view, event.granted))
        elif event.HasField("queued"):
            invocation.note(_queued_line(event.queued))
        if not event.HasField("queued"):
            return event
    raise invocation.failure("the daemon ended the wait without an answer; ask again", ExitCode.UNAVAILABLE)


@click.command(cls=Command, short_help="Release the lock on ITEM with an outcome.")
@click.argument("item")
@click.option("--worker", required=True, help="The holder.")
@click.option(
    "--outcome", required=True, type=click.Choice(choices(engagement_pb2.Outcome)),
    help="success: acted. failure: did not act, the item is free again. unknown: may have acted.",
)  # fmt: skip
@click.option(
    "--token", type=WholeNumber(1, 2**64 - 1), help="The fencing token.  [default: the live lock's]"
)
@click.option("--kind", default="", help="Without --token, where locks are exclusive per item and kind.")
@pass_invocation
def release(
    invocation: Invocation, *, item: str, worker: str, outcome: str, token: int | None, kind: str
) -> None:
    """Release the lock on ITEM and write the outcome to the history."""
    request = engagement_pb2.ReleaseLockRequest(
        item=item,
        worker=worker,
        fencing_token=token if token is not None else _live_token(invocation, item, kind, worker),
        outcome=enum_value(engagement_pb2.Outcome, outcome),
    )
    try:
        answer = invocation.daemon.change(invocation.daemon.engagement.ReleaseLock, request)
    except Failure as failure:
        if token is not None and failure.reason in _WRONG_TOKEN:
            _check_token(invocation, request, kind, failure.reason)
        raise
    did = "was released before" if answer.already_released else "released"
    invocation.printer.message(answer, lambda: cell(f"{did} {item}: {_history(answer.engagement)}"))


# What the daemon may say to a token that is not the live lock's: of an ended lock, another lock, of none.
_WRONG_TOKEN = ("LEASE_LOST", "NOT_HOLDER", "UNKNOWN_ID")


def _check_token(
    invocation: Invocation, request: engagement_pb2.ReleaseLockRequest, kind: str, reason: str
) -> None:
    """Raise Failure if the worker does hold the item, but under another token than it says."""
    held = engagement_pb2.Lock()
    with suppress(Failure):  # the refusal that led here is the better line
        asked = engagement_pb2.GetLockRequest(item=request.item, kind=kind)
        held = invocation.daemon.ask(invocation.daemon.engagement.GetLock, asked).lock
    if held.worker == request.worker and held.fencing_token != request.fencing_token:
        line = f"{held.item} is held under token {held.fencing_token}, not {request.fencing_token} ({reason})"
        raise invocation.failure(line, ExitCode.ERROR)


def _live_token(invocation: Invocation, item: str, kind: str, worker: str) -> int:
    """The token of the lock that `worker` holds on the item. Raises: Failure if it holds none."""
    request = engagement_pb2.GetLockRequest(item=item, kind=kind)
    answer = invocation.daemon.ask(invocation.daemon.engagement.GetLock, request)
    if not answer.HasField("lock"):
        state = word(engagement_pb2.ItemState, answer.state)
        raise invocation.failure(
            f"nobody holds {item} (it is {state}); see 'coordctl show {item}'", ExitCode.ERROR
        )
    held = answer.lock
    if held.worker != worker:
        advice = f"'coordctl force-release {held.fencing_token} --reason TEXT' takes it away"
        raise invocation.failure(
            f"{item} is held by {held.worker}, not {worker} (NOT_HOLDER); {advice}", ExitCode.ERROR
        )
    return held.fencing_token


_Count = tuple[str, engagement_pb2.KindStats]
_STATS: tuple[Column[_Count], ...] = (
    Column("KIND", lambda count: count[0]),
    Column("TOTAL", lambda count: count[1].total, right=True),
    Column("SUCCESSFUL", lambda count: count[1].successful, right=True),
    Column("FAILED", lambda count: count[1].failed, right=True),
    Column("UNKNOWN", lambda count: count[1].unknown, right=True),
    Column("SUCCESS RATE", lambda count: _rate(count[1]), right=True),
)


def _rate(count: engagement_pb2.KindStats) -> str:
    return f"{count.successful / count.total:.1%}" if count.total else "-"


@click.command(cls=Command)
@click.option(
    "--hours", type=Number(0, 87_660, is_open=True), default=24, show_default=True,
    help="How far to look back.",
)  # fmt: skip
@click.option("--worker", default="", help="Only this worker's.")
@pass_invocation
def stats(invocation: Invocation, hours: float, worker: str) -> None:
    """Count what was done, by kind and outcome."""
    within = duration_of(int(hours * 3_600 * 10**9))
    request = engagement_pb2.GetEngagementStatsRequest(within=within, worker=worker)
    answer = invocation.daemon.ask(invocation.daemon.engagement.GetEngagementStats, request)
    total = engagement_pb2.KindStats(
        total=answer.total, successful=answer.successful, failed=answer.failed, unknown=answer.unknown
    )
    rows = [*sorted(answer.by_kind.items()), ("all", total)]
    invocation.printer.message(answer, lambda: Listing(rows, _STATS))
