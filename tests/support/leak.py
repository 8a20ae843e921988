"""Threads, descriptors and child processes that outlive the tests that made them."""

import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE_SECONDS = 3.0
"""How long threads and processes that were told to end may take."""


@dataclass(frozen=True)
class Held:
    """What this process holds at one moment."""

    descriptors: dict[int, str]
    threads: frozenset[int | None]
    children: frozenset[int]


def held() -> Held:
    """Look at this process."""
    gc.collect()  # what nobody refers to any more is closed, and not a leak
    children = psutil.Process().children(recursive=True)
    threads = frozenset(thread.ident for thread in threading.enumerate())
    return Held(descriptors(), threads, frozenset(child.pid for child in children))


def descriptors() -> dict[int, str]:
    """Give the open descriptors with what they lead to, as far as the system tells."""
    found = {}
    for entry in Path("/dev/fd").iterdir():
        number = int(entry.name)
        try:
            os.fstat(number)
        except OSError:
            continue  # that of the listing itself
        try:
            found[number] = str(entry.readlink())
        except OSError:
            found[number] = "?"
    return found


def leaks(before: Held) -> list[str]:
    """Say what has come since and stayed; waits a little for threads and processes that are about to end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        after = held()
        threads = [thread for thread in threading.enumerate() if thread.ident not in before.threads]
        found = [f"thread {thread.name}" for thread in threads]
        found += [f"process {pid}" for pid in sorted(after.children - before.children)]
        found += [
            f"descriptor {number} ({target})"
            for number, target in sorted(after.descriptors.items())
            if before.descriptors.get(number) != target
        ]
        if not found or time.monotonic() > deadline:
            return found
        for thread in threads:
            thread.join(timeout=0.1)
        psutil.wait_procs(psutil.Process().children(recursive=True), timeout=0.1)
