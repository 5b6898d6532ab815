from coordd.core.claims import Blocked
from coordd.core.outcomes import Reason, Refused


def test_refusal_says_all_that_blocks() -> None:
    blocked = Blocked(
        reason=Reason.HELD, subject="a", key=("lock", "a"), retry_at=7, frees_at=8, holder="w1", window_ns=9
    )
    assert blocked.refused(2) == Refused(
        reason=Reason.HELD, subject="a", retry_at=7, holder="w1", window_ns=9, position=2
    )
