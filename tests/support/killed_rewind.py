"""A rewind that kills itself: run as a program by the fault tests. Arguments: database URL, block, point."""

import os
import signal
import sys

from kvr_sync.rewinding import rewind_tables
from kvr_sync.store.operation_log import Operation

LEDGER_LAYER_TAKEN_OUT = "ledger_layer_taken_out"
MAPPED_LAYER_MADE = "mapped_layer_made"


def main() -> None:
    """Rewind until the named point is reached: one of the sink's, or one of those above."""
    url, block_number, fatal_point = sys.argv[1:]

    def hook(point: str) -> None:
        if point == fatal_point:
            os.kill(os.getpid(), signal.SIGKILL)

    def report(_: str, fraction: float) -> None:
        if fraction == 1.0:
            hook(MAPPED_LAYER_MADE)
        elif fraction > 0.4:
            hook(LEDGER_LAYER_TAKEN_OUT)

    rewind_tables(url, None, int(block_number), Operation("rewind", "a test"), report=report, hook=hook)


if __name__ == "__main__":
    main()
