"""Replays that are killed again and again: run as a program by the fault tests.

Arguments: file of blocks, database URL, mapping, directory of an archive. Each line of its input is a round: how many
crash points are passed before the process is killed, how many microseconds later, and whether it opens the tables by
itself ("open"; "ready": they were opened before). The answer to each is the exit status of the process.

Processes are forked, so that a round waits for no imports and no statements to be compiled: the first replay, which
nothing kills, is answered with 0 before any round. A block is a database transaction of its own.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.engine import Engine, RunLimits
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.source.block_file import open_block_file
from kvr_sync.store.opening import open_store

CHANNEL = "consortium"


class Points:
    """Tells whoever is to kill of every crash point that is passed."""

    def __init__(self) -> None:
        self._reader = self._writer = -1

    def begin(self) -> None:
        """Begin a round."""
        self._reader, self._writer = os.pipe()

    def passed(self, _: str) -> None:
        """Tell of one, in the process that is killed."""
        if self._writer != -1:
            os.write(self._writer, b".")

    def wait(self, passes: int) -> None:
        """Wait for so many, or for the end of the process that passes them."""
        os.close(self._writer)
        while passes > 0:
            told = os.read(self._reader, passes)
            if not told:
                return
            passes -= len(told)

    def end(self) -> None:
        """End the round."""
        os.close(self._reader)


def main() -> None:
    """Take the rounds."""
    file, url, mapping_file, directory = sys.argv[1:]
    mapping = read_mapping_file(Path(mapping_file))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    points = Points()
    ready = open_store(url, CHANNEL, mapping=mapping, hook=points.passed)

    def replay(how: str) -> None:
        sink = ready if how == "ready" else open_store(url, CHANNEL, mapping=mapping, hook=points.passed)
        with BlockArchive(Path(directory), CHANNEL, hook=points.passed) as archive, closing(sink):
            source = open_block_file(Path(file))
            Engine(source, sink, mapping, channel=CHANNEL, archive=archive, limits=RunLimits(blocks=1)).run()

    replay("ready")
    _answer(0)
    for line in sys.stdin:
        passes, microseconds, how = line.split()
        _answer(_round(partial(replay, how), points, int(passes), int(microseconds) / 1_000_000))


def _answer(status: int) -> None:
    sys.stdout.write(f"{status}\n")
    sys.stdout.flush()


def _round(replay: Callable[[], None], points: Points, passes: int, seconds: float) -> int:
    points.begin()
    process = os.fork()
    if process == 0:
        try:
            replay()
        except BaseException:  # noqa: BLE001  the end of this process, whatever it was
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    points.wait(passes)
    signal.sigtimedwait({signal.SIGCHLD}, seconds)
    os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    points.end()
    signal.sigtimedwait({signal.SIGCHLD}, 0)  # its own end is not the next one's
    return status


if __name__ == "__main__":
    main()
