"""A replay that kills itself: run as a program by the fault tests.

Arguments: file, database URL, mapping, blocks per database transaction, crash point of sink or archive, how many times
the point is passed before the process sends itself SIGKILL, number of worker processes; directory of an archive.
"""

import os
import signal
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store


def main() -> None:
    """Replay until the named point is reached for the given time."""
    file, url, mapping_file, blocks, fatal_point, passes, workers, *directories = sys.argv[1:]
    remaining = int(passes)

    def hook(point: str) -> None:
        nonlocal remaining
        if point == fatal_point:
            remaining -= 1
            if remaining < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    mapping = read_mapping_file(Path(mapping_file))
    with ExitStack() as stack:
        archive = None
        for directory in directories:
            archive = stack.enter_context(BlockArchive(Path(directory), "consortium", hook=hook))
        sink = stack.enter_context(closing(open_store(url, "consortium", mapping=mapping, hook=hook)))
        limits = RunLimits(blocks=int(blocks), alone_bytes=1, workers=int(workers))
        source = open_block_file(Path(file))
        Engine(source, sink, sink.mapping, channel="consortium", archive=archive, limits=limits).run()


if __name__ == "__main__":
    main()
