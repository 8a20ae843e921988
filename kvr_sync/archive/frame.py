"""A frame: consecutive blocks, compressed together, that can be read without any other frame. Pure.

Header, 64 bytes, integers big-endian: magic `KVRA`; format (4 bytes); number of the first block (8); count of blocks
(4); bytes of the content (4) and of the content once decompressed (4); SHA-256 of the content (32); CRC-32 of the 60
bytes before (4). Then the content: one zstandard frame, which holds for each block the time when it was first seen
(8: nanoseconds since 1970, 0 unknown), its length (8), and its bytes.

The header has a checksum of its own so that a length is believed only where it is what was written: the end of a file
that is missing is told from a frame whose length is damaged.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import zstandard

from kvr_sync.archive.limits import (
    FRAME_BYTES,
    MAX_CONTENT_BYTES,
    MAX_FRAME_BLOCKS,
    MAX_PLAIN_BYTES,
    MAX_WINDOW_BYTES,
)
from network.protocol.limits import MAX_BLOCK_BYTES, MAX_BLOCK_NUMBER

MAGIC: Final = b"KVRA"
FORMAT: Final = 1
LEVEL: Final = 1
"""Of compression: blocks shrink to an eighth; level 3 gains 8 % for 11 % more time (chain of `make bench-sync`)."""

_FIELDS: Final = struct.Struct(">4sIQIII32s")
_CHECKSUM: Final = struct.Struct(">I")
_ENTRY: Final = struct.Struct(">QQ")
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size


class FrameError(Exception):
    """Bytes are not a frame as it was written; the reader adds file and offset."""


class NewerFormatError(FrameError):
    """The frame is whole, and of a format that this version does not read."""


class ArchivedBlock(NamedTuple):
    """A public block for the archive. `first_seen`: when an engine first had it; nanoseconds since 1970, 0 unknown."""

    number: int
    content: bytes
    first_seen: int


class FrameHeader(NamedTuple):
    """What a frame says of itself."""

    first_number: int
    blocks: int
    content_bytes: int
    plain_bytes: int
    digest: bytes

    @property
    def last_number(self) -> int:
        """Number of its last block."""
        return self.first_number + self.blocks - 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of header and content."""
        return HEADER_BYTES + self.content_bytes


def split_run(blocks: Sequence[ArchivedBlock]) -> Iterator[Sequence[ArchivedBlock]]:
    """Cut consecutive blocks into parts of at most FRAME_BYTES, for a frame each; nearly always it is one part."""
    start = size = 0
    for position, block in enumerate(blocks):
        if position > start and size + len(block.content) > FRAME_BYTES:
            yield blocks[start:position]
            start, size = position, 0
        size += len(block.content)
    if blocks:
        yield blocks[start:]


def encode_frame(blocks: Sequence[ArchivedBlock]) -> bytes:
    """Encode consecutive blocks, at least one, within the limits (`split_run`)."""
    parts: list[bytes] = []
    for block in blocks:
        parts += (_ENTRY.pack(block.first_seen, len(block.content)), block.content)
    plain = b"".join(parts)
    content = zstandard.ZstdCompressor(level=LEVEL).compress(plain)
    fields = _FIELDS.pack(
        MAGIC, FORMAT, blocks[0].number, len(blocks), len(content), len(plain), sha256(content).digest()
    )
    return b"".join((fields, _CHECKSUM.pack(zlib.crc32(fields)), content))


def decode_header(header: bytes) -> FrameHeader:
    """Decode the HEADER_BYTES that a frame begins with.

    Raises FrameError unless they are as they were written and within the limits, NewerFormatError for another format.
    """
    fields, checksum = header[: _FIELDS.size], header[_FIELDS.size :]
    if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
        raise FrameError("no frame begins here")
    if _CHECKSUM.unpack(checksum) != (zlib.crc32(fields),):
        raise FrameError("the header of the frame is not what was written")
    _, form, first, count, content_bytes, plain_bytes, digest = _FIELDS.unpack(fields)
    if form != FORMAT:
        raise NewerFormatError(f"the frame has format {form}, this version reads {FORMAT}")
    if (
        not 0 < count <= MAX_FRAME_BLOCKS
        or first + count - 1 > MAX_BLOCK_NUMBER
        or not 0 < content_bytes <= MAX_CONTENT_BYTES
        or not 0 < plain_bytes <= MAX_PLAIN_BYTES
    ):
        raise FrameError(f"the frame claims {count} blocks in {content_bytes} bytes, beyond the limits")
    return FrameHeader(first, count, content_bytes, plain_bytes, digest)


def check_content(header: FrameHeader, content: bytes) -> None:
    """Raise FrameError unless the content is the one that was written."""
    if len(content) != header.content_bytes or sha256(content).digest() != header.digest:
        raise FrameError("the content of the frame is not what was written")


def decode_content(header: FrameHeader, content: bytes) -> Iterator[ArchivedBlock]:
    """Yield the blocks of a content that was checked, holding one of them at a time.

    Raises FrameError where it is not what the header says: nobody but a forger writes that.
    """
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(content)
    remaining = header.plain_bytes
    try:
        for number in range(header.first_number, header.first_number + header.blocks):
            entry = reader.read(_ENTRY.size)
            if len(entry) != _ENTRY.size:
                raise FrameError(f"block {number} is missing in the frame")
            first_seen, length = _ENTRY.unpack(entry)
            remaining -= _ENTRY.size + length
            if not 0 < length <= MAX_BLOCK_BYTES or remaining < 0:
                raise FrameError(f"block {number} claims {length} bytes, beyond the frame or the limits")
            block = reader.read(length)
            if len(block) != length:
                raise FrameError(f"block {number} ends too early")
            yield ArchivedBlock(number, block, first_seen)
        if remaining or reader.read(1):
            raise FrameError("there is more in the frame than its blocks")
    except zstandard.ZstdError as error:
        raise FrameError("the content of the frame cannot be decompressed") from error
