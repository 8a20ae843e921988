"""The protocol that every source of blocks follows."""

from collections.abc import Iterator
from typing import Protocol

from kvr_sync.model import RawBlock
from network.protocol.errors import DecodeError
from network.protocol.wire import read_varint


class BlockSource(Protocol):
    """Gives serialised blocks in the order in which it holds them; it checks nothing that `verify` checks."""

    @property
    def name(self) -> str:
        """What to call the source in messages."""

    def blocks(self, start: int) -> Iterator[RawBlock]:
        """Yield the blocks from number `start` on, up to the present end of the source.

        A source that begins above `start` yields what it has; the engine tells the two apart. Raises
        SourceUnavailableError when it cannot be read, and DecodeError when its content is no sequence of blocks. What
        was yielded before stays good.
        """

    def progress(self) -> float | None:
        """How much of the source has been yielded, 0 to 1; None when that cannot be known."""


def peek_block_number(content: bytes) -> int | None:
    """Read the number of a serialised block without decoding it; None where that needs (or fails) a full decode."""
    try:
        if content[:1] != b"\x0a":
            return None
        length, position = read_varint(content, 1)
        header = content[position : position + length]
        if header[:1] != b"\x08":
            return 0 if header[:1] in (b"\x12", b"\x1a") else None
        return read_varint(header, 1)[0]
    except DecodeError:
        return None
