"""When Python's cyclic garbage collector runs in processes that make rows by the hundred thousand.

Rows, and what blocks are decoded to, are parts of no cycle. Left to its defaults the collector looks at them again and
again while they are made: a quarter of the time of a line in one process.
"""

import gc
from typing import Final

OBJECTS: Final = 50_000
"""Made since the last collection, before the next one: some megabytes. Python's own is 700."""


def collect_seldom() -> None:
    """Let the collector of this process run seldom; for the process of a command."""
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])


def keep_what_is_there() -> None:
    """Collect garbage now, and never again look at what is left; for a process that has opened what it works with.

    A full collection takes a tenth of a second and more, in which no block is applied. Called again, it frees what the
    last call kept and nobody needs any more.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def collect_when_told() -> None:
    """Let it run only when `gc.collect` is called, and never over what is there now; for a worker."""
    gc.freeze()
    gc.disable()
