"""Who may do what, decided without a wire: the table, names, tokens, certificates."""

import base64
import hashlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coordd.access import (
    ANYTHING,
    LEAST_ROLES,
    TOKEN_BYTES,
    Directory,
    Identity,
    Names,
    NotIdentified,
    NotPermitted,
    Role,
    fingerprint,
    spell_token,
)
from coordd.v1 import admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2

OURS = (admin_pb2, bundle_pb2, engagement_pb2, rate_limit_pb2, reservation_pb2, session_pb2)
SERVED = (*OURS, health_pb2, reflection_pb2)


def methods() -> Iterator[tuple[str, Any]]:
    for file in SERVED:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method


def worker(name: str = "bots", *workers: str) -> Identity:
    return Identity(name=name, role=Role.WORKER, workers=Names.of(*workers))


# ---------------------------------------------------------------------- the table


def test_every_method_of_every_service_has_its_least_role() -> None:
    assert dict(methods()).keys() == LEAST_ROLES.keys()


def test_what_a_worker_may_call_always_says_in_whose_name() -> None:
    for method, descriptor in methods():
        if LEAST_ROLES[method] is Role.WORKER:
            asked: Descriptor = descriptor.input_type
            if method == "/coordd.v1.SessionService/Connect":
                asked = asked.fields_by_name["register"].message_type
            assert asked.fields_by_name["worker"].type == asked.fields_by_name["worker"].TYPE_STRING, method


def test_what_changes_something_is_nothing_for_observers() -> None:
    looking = ("Get", "List", "Has", "Check", "Watch")
    for method, role in LEAST_ROLES.items():
        name = method.rpartition("/")[2]
        is_looking = name.startswith(looking) or name == "ServerReflectionInfo"
        assert is_looking == (role <= Role.OBSERVER), method


def test_only_a_probe_of_health_needs_nobody_known() -> None:
    assert [name for name, role in LEAST_ROLES.items() if role is Role.ANYBODY] == [
        "/grpc.health.v1.Health/Check"
    ]


# ---------------------------------------------------------------------- roles and names


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("least", Role)
def test_each_role_may_do_what_those_before_it_may(role: Role, least: Role) -> None:
    identity = Identity(name="x", role=role)
    if role >= least:
        identity.require(least, "/s/M")
        return
    with pytest.raises(NotPermitted) as denied:
        identity.require(least, "/s/M")
    assert denied.value.reason == "ROLE_REQUIRED"
    assert denied.value.metadata == {"identity": "x", "method": "/s/M", "role": least.name.lower()}


@pytest.mark.parametrize(
    ("patterns", "inside", "outside"),
    [
        (["w1"], ["w1"], ["", "w", "w11", "W1", "w1 "]),
        (["bot-*"], ["bot-", "bot-1", "bot-*"], ["bot", "xbot-1", ""]),
        (["a", "b*"], ["a", "b", "bb"], ["aa", "c"]),
        (["*"], ["", "anything"], []),
        ([], [], ["", "*", "w"]),
    ],
)
def test_names(patterns: list[str], inside: list[str], outside: list[str]) -> None:
    names = Names.of(*patterns)
    assert [name for name in inside + outside if name in names] == inside


def test_a_worker_acts_in_its_own_names_only_and_the_denial_does_not_repeat_the_name() -> None:
    worker("bots", "bot-*").require_worker("bot-7", "/s/M")
    with pytest.raises(NotPermitted) as denied:
        worker("bots", "bot-*").require_worker("somebody\nelse", "/s/M")
    assert denied.value.reason == "WORKER_REQUIRED"
    assert "somebody" not in str(denied.value) + repr(denied.value.metadata)


def test_an_operator_acts_in_any_name() -> None:
    Identity(name="op", role=Role.OPERATOR).require_worker("anybody", "/s/M")


def test_an_identity_is_of_every_namespace_unless_it_says() -> None:
    assert "blue" in worker().namespaces
    assert worker().namespaces == ANYTHING


# ---------------------------------------------------------------------- tokens and certificates


def test_a_token_has_256_bits_and_only_its_hash_is_kept() -> None:
    bits = bytes(range(TOKEN_BYTES))
    token = spell_token(bits)
    assert TOKEN_BYTES * 8 == 256
    assert base64.urlsafe_b64decode(token.removeprefix("coordd_") + "=") == bits
    assert fingerprint(token) == hashlib.sha256(token.encode()).hexdigest()


def test_a_token_is_known_by_its_hash_and_by_all_of_it() -> None:
    token, identity = spell_token(bytes(32)), worker()
    known = fingerprint(token)
    # The same beginning, which is what finds those to compare with, is not enough.
    twin = known[:-1] + ("0" if known[-1] != "0" else "1")
    directory = Directory({twin: worker("twin"), known: identity})
    assert directory.of_token(token) is identity
    with pytest.raises(NotIdentified):
        Directory({twin: worker("twin")}).of_token(token)


@pytest.mark.parametrize("token", ["", "coordd_", "ü", "\udcff", spell_token(bytes(32)), "x" * 10_000])
def test_a_token_of_nobody(token: str) -> None:
    with pytest.raises(NotIdentified) as denied:
        Directory({fingerprint("another"): worker()}).of_token(token)
    assert (denied.value.reason, denied.value.metadata) == ("UNKNOWN_TOKEN", {})


def test_the_hashes_are_compared_in_constant_time() -> None:
    assert "hmac.compare_digest" in inspect.getsource(Directory.of_token)


def test_a_certificate_is_known_by_any_one_of_its_names() -> None:
    directory = Directory(
        certificates={"a.example": worker("a"), "also-a": worker("a"), "b.example": worker("b")}
    )
    assert directory.of_certificate(["x", "a.example"]).name == "a"
    assert directory.of_certificate(["also-a", "a.example"]).name == "a"


@pytest.mark.parametrize("names", [[], ["x"], ["a.example", "b.example"]])
def test_a_certificate_of_nobody_or_of_several(names: list[str]) -> None:
    directory = Directory(certificates={"a.example": worker("a"), "b.example": worker("b")})
    with pytest.raises(NotIdentified) as denied:
        directory.of_certificate(names)
    assert denied.value.reason == "UNKNOWN_CERTIFICATE"
