"""A process that others are forked from: the Python processes of a network share the time and memory of their imports.

    python -m network.running.fork_server MODULE ...

It imports the modules, then reads requests from its input, one a line, forks for each, and answers with the child's
pid. It ends with its input. It does nothing else, opens nothing and starts no thread, so a child is as good as a fresh
process: with a session, a log, arguments and an environment of its own.
"""

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

IS_POSSIBLE: Final = sys.platform == "linux"
"""Elsewhere libraries of the system itself may have started threads, which a fork leaves behind."""
MODULE: Final = "network.running.fork_server"
ROOM: Final = "KVR_NETWORK_PROCESS_ROOM"
"""Environment variable of the server, to follow the one that names the process: room for a longer name."""


class ForkRequest(NamedTuple):
    """What a child becomes: it calls `entry` (module:function) with `arguments` as the command line's.

    `variable` is the environment variable that names the process, `value` its content, longer than the server's own by
    less than it was given ROOM. Both outputs are appended to `log`. `asked_by` is the pid of who asks: nothing is
    started for one that was killed meanwhile.
    """

    entry: str
    arguments: Sequence[str]
    variable: str
    value: str
    log: str
    folder: str
    asked_by: int

    def encode(self) -> bytes:
        """Give the line to send."""
        return json.dumps(self._asdict()).encode() + b"\n"


def main() -> None:
    """Serve, and in each child run what was asked for."""
    gc.disable()  # nothing that imports leave behind is garbage
    for module in sys.argv[1:]:
        _import(module)
    for line in sys.stdin.buffer:
        content: Mapping[str, Any] = json.loads(line)
        request = ForkRequest(**content)
        module, _, function = request.entry.partition(":")
        _import(module)
        if os.getppid() != request.asked_by:
            return
        gc.freeze()  # what is there now stays shared: collections of the child do not write to it
        look, show = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(request)
            os.close(look)
            os.close(show)
            gc.enable()
            entry: Callable[[], object] = getattr(import_module(module), function)
            entry()
            return
        os.close(show)
        os.read(look, 1)  # ends when the child has its own name, or could not get it
        os.close(look)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _import(module: str) -> None:
    with suppress(Exception):  # the child that needs it fails, and says so in its own log
        import_module(module)


def _become(request: ForkRequest) -> None:
    os.setsid()
    _show(request.variable, request.value)
    sys.argv = [request.entry, *request.arguments]
    os.chdir(request.folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, descriptor in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(log)


def _show(variable: str, value: str) -> None:
    """Change a variable where others see it too: the kernel shows the memory that the process was started with.

    There `ROOM` stands behind the variable and gives of its own what the value is longer. What this process starts
    itself inherits `os.environ`.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype, getenv.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    start, room = getenv(variable.encode()), getenv(ROOM.encode())
    behind = b"\0" + ROOM.encode() + b"="
    before = len(os.environ[variable].encode())
    if room != start + before + len(behind):
        raise RuntimeError(f"{ROOM} does not stand behind {variable} in the memory of this process")
    size = before + len(behind) + len(os.environ[ROOM])
    ctypes.memmove(start, (value.encode() + behind).ljust(size), size)
    os.environ[variable] = value
    del os.environ[ROOM]


if __name__ == "__main__":
    main()
