"""Admission where a handler runs: for calls that the door has let in, and for those that did not come by it.

Rules: a call holds its place until it is answered; a wait only until it is told its place in the queue, for
then it costs next to nothing until its turn comes. Whoever comes by the lane for CRITICAL must be it.
Must not know: services.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from coordd.rpc.admission import Admission, Place
from coordd.rpc.admission_door import arrival
from coordd.rpc.admission_refusals import Overloaded, refusals
from coordd.rpc.namespaces import named
from coordd.v1 import common_pb2


def admitted_unary(behaviour: Any, admission: Admission) -> Any:
    """Return `behaviour`, a handler of single calls, as one that is refused when there is too much to do."""

    async def admitted(request: Any, context: Any) -> Any:
        place = _enter(request, context, admission)
        try:
            return await behaviour(request, context)
        finally:
            place.leave()

    return admitted


def admitted_stream(behaviour: Any, admission: Admission) -> Any:
    """Return `behaviour`, a generator of messages, as one that is refused when there is too much to do."""

    async def admitted(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        place = _enter(request, context, admission)
        try:
            async with aclosing(behaviour(request, context)) as messages:
                async for message in messages:
                    place.leave()
                    yield message
        finally:
            place.leave()

    return admitted


def _enter(request: Any, context: Any, admission: Admission) -> Place:
    now = time.monotonic_ns()
    place, arrived = None, arrival.get()
    if arrived is not None:
        admission.delayed(now - arrived.at, now)
        arrived.has_begun = True
        place = arrived.place
    if place is None or place.is_left:
        namespace = admission.shares.known(named(context))
        place = admission.admit(is_critical=_is_critical(request), namespace=namespace)
    elif place.is_reserved and not _is_critical(request):
        place.leave()
        place = None
    if place is None:
        admission.refuse(now)
        raise Overloaded(next(refusals(admission.level, admission.calls_max)))
    return place


def _is_critical(request: Any) -> bool:
    return getattr(request, "priority", 0) == common_pb2.PRIORITY_CRITICAL
