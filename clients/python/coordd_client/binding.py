"""Makes methods of a client out of functions that describe calls, so that neither client writes them out.

Type checkers see their signatures through ParamSpec; this is for those who read them at run time, as help()
does.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def named_after(build: Callable[..., Any], *, has_worker: bool = False) -> Callable[[MethodT], MethodT]:
    """Gives a method the name, docstring and signature of the function whose call it makes.

    Args:   build: describes the call.  has_worker: its first argument is the worker, which the client knows.
    """

    def decorate(method: MethodT) -> MethodT:
        signature = inspect.signature(build)
        own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
        theirs = list(signature.parameters.values())[1 if has_worker else 0 :]
        (result,) = get_args(signature.return_annotation)
        method.__name__, method.__doc__ = build.__name__, build.__doc__
        method.__qualname__ = f"Client.{build.__name__}"  # as a coroutine that nobody awaits is called
        vars(method)["__signature__"] = signature.replace(parameters=own + theirs, return_annotation=result)
        return method

    return decorate
