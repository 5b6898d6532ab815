"""What makes a daemon start sooner: nobody is served until it has.

Must not know: the daemon.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_imports"]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import in it what a daemon is made of: a third less time (0.6 s of CPU to 0.4).

    structlog loads rich, where it is installed, to colour tracebacks as nobody does here. And what modules
    make as they load is no garbage, but is looked through for some again and again.
    """
    was_loaded = "rich" in sys.modules
    if not was_loaded:
        sys.modules["rich"] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if not was_loaded:
            del sys.modules["rich"]
