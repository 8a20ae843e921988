"""Waiting for something to become true, with a deadline, instead of sleeping and hoping."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

PAUSE_SECONDS = 0.02

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], what: str, *, seconds: float = 30.0) -> Found:
    """Look again and again until there is something true to see, and give it; fails after the deadline."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            message = f"after {seconds:g} s this has not come about: {what}"
            raise AssertionError(message)
        pause.wait(PAUSE_SECONDS)
