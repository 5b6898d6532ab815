"""Lets in who may call, and shows out who may no longer.

Owns: what of a call says who makes it, and the streams that are open. Rules: a token that is given decides,
also where there is a certificate; a stream ends once its call would be refused.
Must not know: what any call does.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from coordd.access import Denial, Directory, Identity, NotIdentified, Role, least_role
from coordd.rpc.namespaces import named
from coordd.v1 import session_pb2

_AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "bearer"
# What is not ours, health and reflection, is of no namespace.
_OURS: Final = "/coordd."
# As gRPC calls what a certificate says of its owner. The common name is for certificates without others.
_CERTIFICATE_NAMES: Final = ("x509_subject_alternative_name", "x509_common_name")

# grpc's stubs know contexts of the blocking API only; a test's context is its own.
Context = Any
Behaviour = Callable[[Any, Context], Awaitable[Any]]
Refused = Callable[[str, Context, str, Denial], None]


class Guard:
    """Stands before every call, where there are identities.

    Args: refused: told of each denial: method, context, who (empty: nobody knows), denial.
    """

    def __init__(self, directory: Directory, refused: Refused) -> None:
        self._directory = directory
        self._refused = refused
        self._open: set[_Stream] = set()

    def replace(self, directory: Directory) -> None:
        """From now on these are known. Streams of those who may no longer make them end."""
        self._directory = directory
        for stream in self._open:
            stream.check_again()

    def unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Return `behaviour` for those who may."""
        role = least_role(method)
        if role is Role.ANYBODY:
            return behaviour

        async def admitted(request: Any, context: Context) -> Any:
            self._admit(method, role, request, context)
            return await behaviour(request, context)

        return admitted

    def stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Return `behaviour`, which sends messages, for those who may, as long as they may."""
        role = least_role(method)

        async def admitted(request: Any, context: Context) -> None:
            def check() -> None:
                self._admit(method, role, request, context)

            check()
            async with self._while_passing(check):
                await behaviour(request, context)

        return admitted

    def both(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Return `behaviour`, which takes messages and sends some, as `stream` does."""
        role = least_role(method)

        async def admitted(requests: AsyncIterator[Any], context: Context) -> None:
            named: Any = None

            def check() -> None:
                self._admit(method, role, named, context)

            async def checked() -> AsyncGenerator[Any, None]:
                nonlocal named
                async for request in requests:
                    if role is Role.WORKER and _worker(request) is not None:
                        named = request
                        check()
                    yield request

            check()
            async with self._while_passing(check):
                await behaviour(checked(), context)

        return admitted

    def identify(self, context: Context) -> Identity:
        """Return who calls. Raises: NotIdentified."""
        token = _token(context.invocation_metadata() or ())
        if token is not None:
            return self._directory.of_token(token)
        names = _certificate_names(context.auth_context())
        if names:
            return self._directory.of_certificate(names)
        raise NotIdentified(
            "TOKEN_REQUIRED", "The call does not say who makes it: it takes a token, or a certificate."
        )

    def who(self, context: Context) -> str:
        """Return who calls, by name; empty if nobody knows."""
        try:
            return self.identify(context).name
        except NotIdentified:
            return ""

    def _admit(self, method: str, role: Role, request: Any, context: Context) -> None:
        who = ""
        try:
            identity = self.identify(context)
            who = identity.name
            identity.require(role, method)
            if method.startswith(_OURS):
                identity.require_namespace(named(context), method)
            if role is Role.WORKER and (worker := _worker(request)) is not None:
                identity.require_worker(worker, method)
        except Denial as denial:
            self._refused(method, context, who, denial)
            raise

    @asynccontextmanager
    async def _while_passing(self, check: Callable[[], None]) -> AsyncGenerator[None, None]:
        """End the block with the Denial that `check` raises, once it raises one."""
        scope = asyncio.timeout(None)
        stream = _Stream(check, scope)
        try:
            async with scope:
                self._open.add(stream)
                yield
        except TimeoutError:
            if stream.denial is None:
                raise
            raise stream.denial from None
        finally:
            self._open.discard(stream)


class _Stream:
    """One that is open. `check` raises a Denial once its caller may make it no longer; `scope` ends it."""

    def __init__(self, check: Callable[[], None], scope: asyncio.Timeout) -> None:
        self._check = check
        self._scope = scope
        self.denial: Denial | None = None

    def check_again(self) -> None:
        """End the stream if its call would be refused now."""
        if self.denial is not None:
            return
        try:
            self._check()
        except Denial as denial:
            self.denial = denial
            self._scope.reschedule(asyncio.get_running_loop().time())


def _worker(request: Any) -> str | None:
    """Return in whose name a request is made, None where it does not say."""
    if isinstance(request, session_pb2.ConnectRequest):
        return request.register.worker if request.HasField("register") else None
    return None if request is None else request.worker


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the token of a call's metadata, None if there is none; empty if what is there is no token."""
    for key, value in metadata:
        if key == _AUTHORIZATION:
            scheme, _, token = str(value).partition(" ")
            return token.strip() if scheme.lower() == _SCHEME else ""
    return None


def _certificate_names(auth: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the names of the caller's certificate: the alternative ones, or without those the common one."""
    for key in _CERTIFICATE_NAMES:
        if names := [name.decode(errors="replace") for name in auth.get(key, ())]:
            return names
    return []
