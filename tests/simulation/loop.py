"""Virtual time: an event loop on which time passes when nobody has anything to do.

Owns: the clock, the order of all that runs, and processes, which can be killed or frozen at any point.
Rules: first come, first served; time jumps to the next timer once nothing is ready; there is no thread, no
selector, no real time. Whatever runs belongs to the process in whose context it was scheduled: a dead one's
never runs again, a frozen one's runs once it is thawed.
Must not know: what is simulated.
"""

import asyncio
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

SECOND: Final = 1_000_000_000
# So many callbacks at one instant are no work but a loop without an end.
_HANDLES_PER_INSTANT_MAX: Final = 300_000

_process: ContextVar["Process"] = ContextVar("process")


class Stuck(Exception):
    """Nothing is ready, no timer is set, and what was waited for has not come; or one instant has no end."""


class Process:
    """What lives and dies as one: all that runs in its context."""

    __slots__ = (
        "_backlog",
        "_random",
        "cost_ns",
        "fuel",
        "is_dead",
        "is_frozen",
        "lateness_ns_max",
        "name",
        "on_exhausted",
    )

    def __init__(self, name: str, random: Random | None = None) -> None:
        self.name = name
        self.is_dead = self.is_frozen = False
        # Callbacks it may still run, and what is called instead of the next one; None: without end.
        self.fuel: int | None = None
        self.on_exhausted: Callable[[], None] = lambda: None
        # How long each callback takes, and how late its timers may be, as those of a busy machine are.
        self.cost_ns = 0
        self.lateness_ns_max = 0
        self._random = random or Random(name)
        self._backlog: deque[Handle] = deque()

    def context(self) -> Context:
        """Return a new context in which all that is scheduled is the process's."""
        context = Context()
        context.run(_process.set, self)
        return context

    def may_run(self, handle: "Handle") -> bool:
        """Return whether a callback is to be run now; keep it if it is to be run later."""
        if self.is_dead:
            # Not let go: a coroutine that nobody refers to is closed, and runs its `finally`, as no dead
            # process does.
            self._backlog.append(handle)
            return False
        if self.is_frozen:
            self._backlog.append(handle)
            return False
        if self.fuel is not None:
            self.fuel -= 1
            if self.fuel < 0:
                self.fuel = None
                self.on_exhausted()
                return self.may_run(handle)
        return True

    def take_backlog(self) -> deque["Handle"]:
        """Return what has been held back, which is then no more."""
        backlog, self._backlog = self._backlog, deque()
        return backlog

    def late_ns(self) -> int:
        """Return how late its next timer is."""
        return self._random.randrange(self.lateness_ns_max) if self.lateness_ns_max else 0


class Handle:
    """A callback that is to be run."""

    __slots__ = ("_when_ns", "args", "callback", "context")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, when_ns: int = 0
    ) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self._when_ns = when_ns

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when_ns / SECOND


class Loop(asyncio.AbstractEventLoop):
    """The event loop. `now_ns`: virtual time since it began. `errors`: what nobody caught."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.handles = 0
        self.errors: list[dict[str, Any]] = []
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[int, int, Handle]] = []
        self._sequence = 0
        self._is_closed = False

    # -- what asyncio asks of a loop -------------------------------------------------------------------------

    def time(self) -> float:
        return self.now_ns / SECOND

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, copy_context() if context is None else context)
        # Once closed it is only the remains that speak: coroutines that are cleared away.
        if not self._is_closed:
            self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        context = copy_context() if context is None else context
        when_ns = self.now_ns + round(delay * SECOND) + _late_ns(context)
        return self.call_at_ns(when_ns, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        context = copy_context() if context is None else context
        return self.call_at_ns(round(when * SECOND) + _late_ns(context), callback, *args, context=context)

    def call_at_ns(self, when_ns: int, callback: Any, *args: Any, context: Context | None = None) -> Any:
        """Call at an instant of virtual time."""
        handle = Handle(callback, args, copy_context() if context is None else context, when_ns)
        if not self._is_closed:
            self._sequence += 1
            heappush(self._timers, (max(when_ns, self.now_ns), self._sequence, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        task = asyncio.Task(coro, loop=self, name=name or "", context=context)
        # A killed process's tasks are never ended, as a killed process never ends.
        task._log_destroy_pending = False
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._is_closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._is_closed:
            self.errors.append(context)

    # -- processes -------------------------------------------------------------------------------------------

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of a process."""
        task: asyncio.Task[Any] = self.create_task(coroutine, context=process.context())
        return task

    def freeze(self, process: Process) -> None:
        """Stop a process as SIGSTOP does: its time passes, and it does nothing."""
        process.is_frozen = True

    def thaw(self, process: Process) -> None:
        """Let a process do what it has missed, in the order in which it would have."""
        process.is_frozen = False
        if not process.is_dead:
            self._ready.extend(process.take_backlog())

    # -- running ---------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Run until a coroutine is done; return its result. Raises: as it does, Stuck."""
        main = self.create_task(future)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        events._set_running_loop(self)
        try:
            instant_ns, handles_then = self.now_ns, self.handles
            while not main.done():
                self._run_one(self._next())
                if self.now_ns != instant_ns:
                    instant_ns, handles_then = self.now_ns, self.handles
                elif self.handles - handles_then > _HANDLES_PER_INSTANT_MAX:
                    raise Stuck(f"more than {_HANDLES_PER_INSTANT_MAX} callbacks at one instant")
        finally:
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        return main.result()

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._is_closed:
            self.call_soon(self.create_task, generator.aclose())

    def close(self) -> None:
        """Forget all that was still to be run; nothing is, from now on."""
        self._is_closed = True
        self._ready.clear()
        self._timers.clear()

    def _next(self) -> Handle:
        timers, ready = self._timers, self._ready
        if not ready:
            if not timers:
                raise Stuck("nothing is left to happen")
            self.now_ns = max(self.now_ns, timers[0][0])
        while timers and timers[0][0] <= self.now_ns:
            ready.append(heappop(timers)[2])
        return ready.popleft()

    def _run_one(self, handle: Handle) -> None:
        callback = handle.callback
        if callback is None:
            return
        self.handles += 1
        process = handle.context.get(_process)
        if process is not None:
            if not process.may_run(handle):
                return
            self.now_ns += process.cost_ns
        try:
            handle.context.run(callback, *handle.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  -- as asyncio does: the loop goes on
            self.call_exception_handler({"message": f"callback {callback!r} failed", "exception": error})


def _late_ns(context: Context) -> int:
    """Return how late the next timer is that is set in a context."""
    process = context.get(_process)
    return 0 if process is None else process.late_ns()
