"""The strict upstream: the demo's, with a limit that may change and a layer before it that refuses at random.

That layer is a WSGI middleware: what it refuses, the limiter never sees, and does not count; its 429s have no
header. What it refuses it notes in the same log, as status 429 of the worker `RANDOM`.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, Final

from waitress.server import create_server  # type: ignore[import-untyped]

from examples.demo.settings import POST_PATH
from examples.demo.upstream import Ledger, create_app

_THREADS: Final = 16
_TOO_MANY_REQUESTS: Final = 429
# Whose refusals were the dice's, in the log.
RANDOM: Final = "random layer"

_Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class RandomRefusals:
    """Refuses calls at random, before they reach the application."""

    def __init__(self, application: _Wsgi, ledger: Ledger, *, share: float, seed: int) -> None:
        self._application = application
        self._ledger = ledger
        self._share = share
        self._random = random.Random(seed)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"] != POST_PATH or self._random.random() >= self._share:
            return self._application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = BytesIO(body)
        self._ledger.record(str(json.loads(body)["in_reply_to"]), RANDOM, _TOO_MANY_REQUESTS)
        start_response("429 TOO MANY REQUESTS", [("Content-Length", "0")])
        return [b""]


def main() -> None:
    """Serve on a free port of the loopback, say which on stdout, and go on until killed."""
    parser = argparse.ArgumentParser(prog="python -m examples.strict_upstream.upstream", description=__doc__)
    parser.add_argument("--limits", required=True, help="in Flask-Limiter's notation")
    parser.add_argument("--then", default="", help="what they change to ...")
    parser.add_argument("--then-at", type=float, default=0.0, help="... at this unix time")
    parser.add_argument("--random", type=float, default=0.0, help="share of calls refused at random")
    parser.add_argument("--seed", type=int, default=1, help="of the dice")
    given = parser.parse_args()

    def limits() -> str:
        return str(given.then if given.then and time.time() >= given.then_at else given.limits)

    ledger = Ledger()
    app = create_app(limits, ledger)
    application = RandomRefusals(app.wsgi_app, ledger, share=given.random, seed=given.seed)
    server = create_server(application, host="127.0.0.1", port=0, threads=_THREADS)
    print(f"upstream serving on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()


if __name__ == "__main__":
    main()
