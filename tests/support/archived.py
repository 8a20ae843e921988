"""Archives made and looked at by tests."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import zstandard
from fabric_protos.common import common_pb2

from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.archive.frame import ArchivedBlock
from kvr_sync.archive.limits import SEGMENT_BYTES
from kvr_sync.store.sink import Hook, no_hook
from network.protocol.block import BlockHeader, header_hash

CHANNEL = "consortium"


def archived(blocks: Sequence[bytes], first: int = 0) -> list[ArchivedBlock]:
    """Number blocks from the first on; each was first seen at its own moment."""
    return [ArchivedBlock(number, content, first_seen(number)) for number, content in enumerate(blocks, first)]


def first_seen(number: int) -> int:
    """Give the moment that `archived` invents, nanoseconds since 1970."""
    return 1_793_000_000_000_000_007 + number


def write_archive(
    directory: Path, blocks: Sequence[bytes], *, per_frame: int = 5, segment_bytes: int = SEGMENT_BYTES, first: int = 0
) -> Path:
    """Write blocks into an archive, and give the channel's folder."""
    with BlockArchive(directory, CHANNEL, segment_bytes=segment_bytes) as archive:
        entries = archived(blocks, first)
        for start in range(0, len(entries), per_frame):
            archive.append(entries[start : start + per_frame])
        return archive.folder


def archived_contents(folder: Path, start: int = 0) -> list[bytes]:
    """Read blocks back."""
    return [raw.content for raw in ArchiveSource(folder).blocks(start)]


def segment_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


@contextmanager
def opened(directory: Path, *, hook: Hook = no_hook, segment_bytes: int = SEGMENT_BYTES) -> Iterator[BlockArchive]:
    with BlockArchive(directory, CHANNEL, hook=hook, segment_bytes=segment_bytes) as archive:
        yield archive


def tiny_chain(count: int, *, salt: bytes = b"", channel: bytes = b"") -> list[bytes]:
    """Make blocks of some hundred bytes that are linked as Fabric links them, and hold nothing that can be read."""
    blocks = []
    previous = b""
    for number in range(count):
        data = [sha256(b"%d" % number + salt).digest() + channel]
        digest = sha256(b"".join(data)).digest()
        header = common_pb2.BlockHeader(number=number, previous_hash=previous, data_hash=digest)
        block = common_pb2.Block(header=header, data=common_pb2.BlockData(data=data))
        block.metadata.metadata.extend([b"", b"", b"\xff"])
        blocks.append(bytes(block.SerializeToString()))
        previous = header_hash(BlockHeader(number, previous, digest))
    return blocks


def forged_frame(
    plain: bytes,
    *,
    first: int = 0,
    blocks: int = 1,
    form: int = 1,
    plain_bytes: int | None = None,
    content: bytes | None = None,
    content_bytes: int | None = None,
) -> bytes:
    """Make a frame of which the checksums are right and the rest is what the test says; written from the README."""
    content = zstandard.compress(plain) if content is None else content
    header = b"KVRA"
    for value, size in (
        (form, 4),
        (first, 8),
        (blocks, 4),
        (len(content) if content_bytes is None else content_bytes, 4),
        (len(plain) if plain_bytes is None else plain_bytes, 4),
    ):
        header += value.to_bytes(size, "big")
    header += sha256(content).digest()
    return header + zlib.crc32(header).to_bytes(4, "big") + content


def entry(content: bytes, *, seen: int = 0, length: int | None = None) -> bytes:
    """Make what a frame holds for one block before it is compressed."""
    return seen.to_bytes(8, "big") + (len(content) if length is None else length).to_bytes(8, "big") + content
