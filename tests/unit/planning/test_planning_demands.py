"""The short form of what is demanded, and what can never be granted."""

import pytest
from planning_desk import RULES, demand

from coordd.planning.demands import LockClaim, PermitClaim, UnitsClaim, impossibility, read_steps


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("lock:reply:tweet:1", LockClaim("reply", "tweet:1")),
        ("lock:reply:a%2Bb%3E%25", LockClaim("reply", "a+b>%")),
        ("permit:post", PermitClaim("post", 1)),
        ("permit:post:3", PermitClaim("post", 3)),
        ("permit:a%3Ab:3", PermitClaim("a:b", 3)),
        ("units:cpu", UnitsClaim("cpu", "", 0)),
        ("units:cpu:left", UnitsClaim("cpu", "left", 0)),
        ("units:cpu::4", UnitsClaim("cpu", "", 4)),
        ("units:cpu:left:4", UnitsClaim("cpu", "left", 4)),
    ],
)
def test_a_claim(text: str, claim: object) -> None:
    assert read_steps(text) == ((claim,),)


def test_at_once_and_one_after_the_other() -> None:
    lock, post, cpu = LockClaim("reply", "t"), PermitClaim("post"), UnitsClaim("cpu", "", 2)
    assert read_steps(" lock:reply:t > permit:post + units:cpu::2 ") == ((lock,), (post, cpu))


def test_counts_of_claims_that_do_not_say() -> None:
    assert read_steps("permit:a + permit:b:2 + units:cpu", count=5, units=7) == (
        (PermitClaim("a", 5), PermitClaim("b", 2), UnitsClaim("cpu", "", 7)),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no claim"),
        ("lock", "1..64 bytes"),
        ("lock:reply", "an item"),
        ("lock:reply:\x07", "printable"),
        ("lock:reply:" + "x" * 513, "1..512 bytes"),
        ("permit:", "an endpoint"),
        ("permit:post:0", "not a number"),
        ("permit:post:x", "not a number"),
        ("permit:post:1:2", "too many parts"),
        ("units:cpu:id:2:3", "too many parts"),
        ("units::id", "a type"),
        ("lock:reply:t+", "is no claim"),
        ("> permit:post", "is no claim"),
    ],
)
def test_what_is_no_claim(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_steps(text)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("lock:wave:t", "the kind 'wave' is not configured; there are: reply, analysis"),
        ("permit:past", "the endpoint 'past' is not configured; there are: post"),
        ("permit:post:4", "4 permits are more than post ever allows at once: 3"),
        ("units:gpu", "the type 'gpu' is not configured"),
        ("units:content::4", "4 units are more than pipeline has: 3"),
        ("units:quota:tweet:3", "3 units are more than tweets has: 2"),
        ("units:quota:like", "'like' is none of quota's ids: tweet"),
        ("units:file:a:1", "the type file has no pool, hence no units"),
        ("units:file", "needs an id"),
        ("lock:reply:t > permit:past", "the endpoint 'past'"),
        ("permit:post + permit:post:2", "two claims at once are on endpoint post; make them one"),
        ("lock:reply:t + lock:analysis:t", "two claims at once are on lock t"),
        ("units:content:a + units:content:b", "two claims at once are on pool pipeline"),
        ("units:file:a + units:file:a", "two claims at once are on resource file a"),
        (" + ".join(f"lock:reply:{n}" for n in range(17)), "17 claims at once are more than 16"),
    ],
)
def test_what_can_never_be_granted(what: str, reason: str) -> None:
    assert reason in str(impossibility(demand(what), RULES))


@pytest.mark.parametrize(
    "what",
    [
        "lock:reply:t",
        "permit:post:3",
        "units:content::3",
        "units:quota:tweet:2",
        "units:file:a",
        "lock:reply:t + permit:post + units:content:a + units:file:a + units:file:b",
        "permit:post > permit:post",
    ],
)
def test_what_can_be_granted(what: str) -> None:
    assert impossibility(demand(what), RULES) is None
