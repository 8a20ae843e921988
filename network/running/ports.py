"""Ports of a network: chosen once from the kernel's free ones, and looked at before nodes start."""

import errno
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress

from network.errors import PortTakenError

LOOPBACK = "127.0.0.1"
FREE_PORTS = range(20_000, 32_000)
"""Below what kernels give to outgoing connections: a port chosen now is still free when its node restarts."""


def choose_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """Give a port for each use; one asked for by number is kept, 0 means any free one. All are different.

    The free ones come one after the other from a place of chance: networks that are made at the same time, none of
    which listens yet, then hardly ever choose the same. Raises PortTakenError when a named port is in use.
    """
    free = _free_ports()
    with ExitStack() as held:
        chosen = {}
        for use, port in sorted(wanted.items(), key=lambda item: item[1] == 0):
            bound = _bound(use, port) if port else next(free, None)
            if bound is None:
                places = f"between {FREE_PORTS.start} and {FREE_PORTS.stop - 1} on {LOOPBACK}"
                raise PortTakenError(f"no free port for {use} {places}")
            chosen[use] = held.enter_context(bound).getsockname()[1]
        return {use: chosen[use] for use in wanted}


def check_free(ports: Mapping[str, int], uses: Iterable[str] | None = None) -> None:
    """Raise PortTakenError, naming port and use, when a port that is about to be opened is in use."""
    for use in ports if uses is None else uses:
        _bound(use, ports[use]).close()


def _free_ports() -> Iterator[socket.socket]:
    """Bind one free port after the other, each looked at once."""
    start = secrets.randbelow(len(FREE_PORTS))
    for place in range(len(FREE_PORTS)):
        with suppress(PortTakenError):
            yield _bound("a network", FREE_PORTS[(start + place) % len(FREE_PORTS)])


def _bound(use: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As servers do: a port whose old connections still fade out counts as free.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, port))
        bound.listen(1)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(f"port {port} of {use} is in use by another process on {LOOPBACK}") from error
        if error.errno == errno.EACCES:
            raise PortTakenError(f"port {port} of {use} is not allowed to this user") from error
        raise
    return bound
