"""A rebuild that kills itself: run as a program by the fault tests. Arguments: database URL, point."""

import os
import signal
import sys

from kvr_sync.store.operation_log import Operation
from kvr_sync.table_operations import rebuild_tables

WHILE_READING = "while_reading"


def main() -> None:
    """Rebuild all tables until the named point is reached: one of the sink's, or WHILE_READING."""
    url, fatal_point = sys.argv[1:]

    def hook(point: str) -> None:
        if point == fatal_point:
            os.kill(os.getpid(), signal.SIGKILL)

    operation = Operation("rebuild", "a test")
    rebuild_tables(url, None, [], operation, report=lambda _done, _all: hook(WHILE_READING), hook=hook)


if __name__ == "__main__":
    main()
