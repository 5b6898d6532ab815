"""When to try again, and for how long: pure, so that the async and the blocking client share it.

Only UNAVAILABLE is retried (AIP-194), and so is a call that the daemon has cancelled, which it does where it
stops: every call that changes anything carries a request id, a fencing token or the id of what it settles, so
that sending it twice does it once. A wait's place is kept by its request id likewise.
"""

import random
from dataclasses import dataclass

from coordd_client.errors import CoorddError, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Times of a client, in seconds. How long to wait and how long to hold are said at each call.

    Attributes:
        call_timeout_s: a call with all its retries.
        release_timeout_s: giving back what was granted, with all its retries; longer, because what is not
            given back stays taken until it runs out.
        wait_grace_s: how much longer than `wait` a stream may stay open for the daemon's last word.
        backoff_s: the mean pause before the first retry; doubles with each.
        backoff_max_s: the longest pause.
        lease_margin_s: a block's work is stopped this long before its lease ends, or a tenth of the lease's
            length if that is less.
    """

    call_timeout_s: float = 10.0
    release_timeout_s: float = 15.0
    wait_grace_s: float = 5.0
    backoff_s: float = 0.1
    backoff_max_s: float = 2.0
    lease_margin_s: float = 5.0


class Backoff:
    """Pauses between tries of one call: exponential, with jitter, as the daemon asks where it does."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tries = 0

    def reset(self) -> None:
        """Starts again from the shortest pause: the last try got somewhere."""
        self._tries = 0

    def pause_s(self, error: CoorddError) -> float | None:
        """Returns how long to pause before the next try after `error`, in seconds; None: do not try again."""
        if not isinstance(error, Unavailable):
            return None
        if error.pushback_s is not None:
            self.reset()  # gRFC A6: the pauses start again after a pushback
            return error.pushback_s if error.pushback_s >= 0 else None
        return max(self._own_pause_s(), error.retry_after_s or 0.0)

    def _own_pause_s(self) -> float:
        # The exponent is bounded only so that 2**n stays a float; backoff_max_s is reached long before.
        longest_s = min(2 * self._config.backoff_s * 2.0 ** min(self._tries, 60), self._config.backoff_max_s)
        self._tries += 1
        return random.uniform(0.0, longest_s)
