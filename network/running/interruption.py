"""Being told to end: SIGTERM counts as Ctrl-C does, and what must not be broken off is not."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does, for a command that ends what it started.

    That raises KeyboardInterrupt, or has a running event loop cancel its main task, which ends in order: raised in the
    midst of a task it could break the loop's own end off too.

    A shell that starts this in the background has Ctrl-C ignored. Then it is blocked instead, for it and its children:
    a loop takes it in hand, and so SIGTERM, only where it does what it does by default.

    When the block ends well both are ignored from then on: what is left to do is to exit, and a signal in that moment
    must not make a command that has succeeded look as if it had not.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore both inside: ending processes, once begun, is not left half done by a second Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
