"""How live records and the garbage collector stay out of each other's way.

Why: with a million records each full collection would stop the daemon for a good part of a second, and they
are no garbage. So they are left out of it, until all of them are.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A young collection after 50,000 new objects, not 700: a batch makes thousands, and nearly all die with it.
_THRESHOLDS: Final = (50_000, 20, 100)


@contextmanager
def records_left_to_themselves() -> Iterator[None]:
    """Keep the collector away from what is loaded meanwhile, for as long as it lives."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
        gc.enable()


@contextmanager
def records_replaced() -> Iterator[None]:
    """As `records_left_to_themselves`; but what was kept from it before is freed if it is garbage now.

    Why: what a machine was made of refers to itself, and nobody else would ever free it.
    """
    with records_left_to_themselves():
        try:
            yield
        finally:
            gc.unfreeze()
            gc.collect()
