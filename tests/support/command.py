"""The command `kvr` in a process of its own, as a person starts it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = (sys.executable, "-P", "-c", "from network.main import main; main()")
"""What the installed script does; it is not called by its path because an environment may keep scripts elsewhere."""


def environment(**variables: str) -> dict[str, str]:
    """Give this process's environment without what would change a command's behaviour or looks."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KVR_", "PG"))}
    return inherited | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | variables


def kvr(*arguments: str, seconds: float = 50, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, outside the checkout; `variables` are set in its environment."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd="/",
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@contextmanager
def kvr_running(log: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start the command with its stderr in a file; it is killed at the end of the block if it still runs."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*COMMAND, *arguments], cwd="/", env=environment(), stdout=subprocess.DEVNULL, stderr=stderr, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
