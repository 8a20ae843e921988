"""Tables of a new version of the API that kill who fills them: run as a program by tests.

Arguments: database URL, mapping file, point of the sink, at which time that it is passed.
"""

import os
import signal
import sys
from pathlib import Path

from kvr_sync import mapping_build
from kvr_sync.mapping.mapping_file import read_mapping_file
from kvr_sync.mapping_change import apply_mapping
from kvr_sync.store.operation_log import Operation


def main() -> None:
    """Apply the mapping until the point is passed for the given time."""
    url, path, fatal_point, count = sys.argv[1:]
    mapping_build.PART_KEYS = 3
    left = int(count)

    def hook(point: str) -> None:
        nonlocal left
        if point == fatal_point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    apply_mapping(url, None, read_mapping_file(Path(path)), Operation("apply", "a test"), hook=hook)


if __name__ == "__main__":
    main()
