"""The third-party API: a real HTTP server with a limiter that nobody here wrote.

Flask-Limiter counts with its moving-window strategy, in memory, at arrival, one credential for the whole
fleet; it answers 429 and sends its X-RateLimit headers. Served by waitress. It knows nothing of coordd. What
it saw (arrivals, 429s, second replies to the same tweet) it keeps itself and tells.

    POST /2/tweets            {"in_reply_to": ID, "worker": NAME} -> 201, or 429
    GET  /counts              accepted, duplicates, refused_429
    GET  /log                 every arrival: [unix time in s, tweet, worker, status]
    POST /withhold/<worker>   returns when the worker's next reply is accepted, its answer withheld
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from waitress.server import create_server  # type: ignore[import-untyped]

from examples.demo.settings import POST_PATH, upstream_limits

_THREADS: Final = 16
# The demo kills the worker in this time; if it doesn't, the worker gets its answer and the run goes on.
_WITHHELD_S: Final = 2.0
_CREATED: Final = 201
_TOO_MANY_REQUESTS: Final = 429


@dataclass
class Ledger:
    """What came in. Shared by the server's threads."""

    arrivals: list[tuple[float, str, str, int]] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)
    refused_429: int = 0
    withheld: dict[str, threading.Event] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, tweet_id: str, worker: str, status: int) -> None:
        """Note one arrival and what it was answered."""
        with self.lock:
            self.arrivals.append((time.time(), tweet_id, worker, status))
            self.refused_429 += status == _TOO_MANY_REQUESTS
            if status == _CREATED:
                self.replies[tweet_id] += 1

    def counts(self) -> dict[str, int]:
        """Return how many replies were accepted, how many of these were second ones, how many refused."""
        with self.lock:
            accepted = self.replies.total()
            duplicates = accepted - len(self.replies)
            return {"accepted": accepted, "duplicates": duplicates, "refused_429": self.refused_429}

    def log(self) -> list[tuple[float, str, str, int]]:
        """Return every arrival so far."""
        with self.lock:
            return list(self.arrivals)


def create_app(limits: str | Callable[[], str], ledger: Ledger | None = None) -> Flask:
    """Return the API.

    Args: limits: in Flask-Limiter's notation, separated by semicolons; or what gives them at each call.
    ledger: where it notes what came in; its own, if None.
    """
    app = Flask(__name__)
    ledger = ledger or Ledger()
    limiter = Limiter(
        # Flask-Limiter does not limit an empty key.
        lambda: request.headers.get("Authorization") or "anonymous",
        app=app,
        strategy="moving-window",
        storage_uri="memory://",
        headers_enabled=True,
    )
    limited = limiter.limit(limits)
    app.post(POST_PATH, endpoint="post_reply")(limited(lambda: _post_reply(ledger)))
    app.get("/counts", endpoint="counts")(lambda: jsonify(ledger.counts()))
    app.get("/log", endpoint="log")(lambda: jsonify(ledger.log()))
    app.post("/withhold/<worker>", endpoint="withhold")(lambda worker: _withhold(ledger, worker))
    app.after_request(lambda response: _record_refusal(ledger, response))
    return app


def _post_reply(ledger: Ledger) -> ResponseReturnValue:
    tweet_id, worker = _said()
    ledger.record(tweet_id, worker, _CREATED)
    caught = ledger.withheld.pop(worker, None)
    if caught is not None:
        caught.set()
        time.sleep(_WITHHELD_S)
    return {"data": {"in_reply_to": tweet_id}}, _CREATED


def _record_refusal(ledger: Ledger, response: Response) -> Response:
    # The limiter answers before the view is reached, so its refusals are seen here only.
    if response.status_code == _TOO_MANY_REQUESTS:
        ledger.record(*_said(), _TOO_MANY_REQUESTS)
    return response


def _said() -> tuple[str, str]:
    body = request.get_json()
    return str(body["in_reply_to"]), str(body["worker"])


def _withhold(ledger: Ledger, worker: str) -> ResponseReturnValue:
    caught = ledger.withheld.setdefault(worker, threading.Event())
    return {"caught": caught.wait(timeout=30)}


def main() -> None:
    """Serve on a free port of the loopback, say which on stdout, and go on until killed."""
    server = create_server(create_app(upstream_limits()), host="127.0.0.1", port=0, threads=_THREADS)
    print(f"upstream serving on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()


if __name__ == "__main__":
    main()
