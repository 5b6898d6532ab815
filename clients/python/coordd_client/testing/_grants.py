"""What every kind of grant has in common: ids from one sequence, request ids, and pages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coordd.v1 import common_pb2
from coordd_client.errors import NotFound, NotHolder, RequestEnded
from coordd_client.messages import Method, duration
from coordd_client.testing._timeline import Timeline
from coordd_client.testing._waits import Claim, Waits

Handler = Callable[[Any], Any]
_PAGE_SIZE_DEFAULT = 100


@dataclass
class Shared:
    """What the books of locks, reservations and permits share."""

    timeline: Timeline
    waits: Waits
    last_id: int = 0

    def refusal(
        self,
        reason: common_pb2.RefusalReason.ValueType,
        subject: str,
        ends_s: float | None,
        holder: str = "",
        window_s: float | None = None,
    ) -> common_pb2.Refusal:
        """Returns a refusal for what ends at `ends_s` (None: nobody knows)."""
        refusal = common_pb2.Refusal(reason=reason, subject=subject, holder=holder)
        if ends_s is not None:
            refusal.retry_after.CopyFrom(duration(max(0.0, ends_s - self.timeline.now())))
            refusal.retry_at.CopyFrom(self.timeline.instant(ends_s))
        if window_s is not None:
            refusal.window.CopyFrom(duration(window_s))
        return refusal


class Book:
    """Keeps the live grants of one kind, by id, and gives the same grant again to the same request id.

    Attributes:
        calls: what answers each method.
        claims: what each waitable method asks for.
    """

    calls: Mapping[str, Handler]
    claims: Mapping[str, Callable[[Any], Claim]]

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.live: dict[int, Any] = {}
        self._ids_by_request: dict[tuple[str, str], int] = {}

    @property
    def now_s(self) -> float:
        """The daemon's time."""
        return self.shared.timeline.now()

    def view(self, grant_id: int) -> Any:
        """Returns a live grant as a message, with its time left counted from now."""
        raise NotImplementedError

    def expire(self) -> None:
        """Ends what is over by now."""

    def granted(self, request: Any) -> Any | None:
        """Returns what this request id was granted before. Raises: RequestEnded."""
        grant_id = self._ids_by_request.get((request.worker, request.request_id))
        if grant_id is not None and grant_id not in self.live:
            raise RequestEnded("the request's grant is over", reason="REQUEST_ENDED")
        return None if grant_id is None else self.view(grant_id)

    def ask(self, method: Method[Any, Any], claim: Claim, request: Any) -> Any:
        """Answers a request that does not wait."""
        if (before := self.granted(request)) is not None:
            return method.reply(granted=before)
        if (refusal := self.shared.waits.refusal(claim, request)) is None:
            return method.reply(granted=claim.grant())
        return method.reply(refused=refusal)

    def begin(self, request: Any, grant: Any) -> Any:
        """Makes `grant` live and returns it as a message."""
        self.shared.last_id += 1
        grant_id = self.shared.last_id
        self.live[grant_id] = grant
        if request.request_id:
            self._ids_by_request[request.worker, request.request_id] = grant_id
        return self.view(grant_id)

    def held_by(self, grant_id: int, worker: str) -> Any | None:
        """Returns the live grant, None if it has ended. Raises: NotFound, NotHolder."""
        if not 0 < grant_id <= self.shared.last_id:
            raise NotFound("this id was never given", reason="UNKNOWN_ID", metadata={"id": str(grant_id)})
        grant = self.live.get(grant_id)
        if grant is not None and grant.worker != worker:
            raise NotHolder("somebody else holds it", reason="NOT_HOLDER", metadata={"worker": worker})
        return grant


def page(entries: list[Any], request: Any) -> tuple[list[Any], str]:
    """Returns one page of `entries` and the token of the next."""
    start = int(request.page_token or 0)
    end = start + (request.page_size or _PAGE_SIZE_DEFAULT)
    return entries[start:end], str(end) if end < len(entries) else ""
