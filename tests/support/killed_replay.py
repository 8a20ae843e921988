"""A replay that kills itself: run as a program by the fault tests.

Arguments: file, database URL, mapping, blocks per database transaction, crash point, how many times the point is passed
before the process sends itself SIGKILL, number of worker processes.
"""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

from kvr_sync.engine import Engine, RunLimits
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store


def main() -> None:
    """Replay until the named point is reached for the given time."""
    file, url, mapping_file, blocks, fatal_point, passes, workers = sys.argv[1:]
    remaining = int(passes)

    def hook(point: str) -> None:
        nonlocal remaining
        if point == fatal_point:
            remaining -= 1
            if remaining < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    mapping = read_mapping_file(Path(mapping_file))
    with closing(open_store(url, "consortium", mapping=mapping, hook=hook)) as sink:
        limits = RunLimits(blocks=int(blocks), alone_bytes=1, workers=int(workers))
        source = open_block_file(Path(file))
        Engine(source, sink, mapping, channel="consortium", limits=limits).run()


if __name__ == "__main__":
    main()
