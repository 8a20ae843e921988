"""What an archive holds, and whether all of it is what was written: `kvr sync archive status` and `verify`."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from kvr_sync.archive.frame import ArchivedBlock
from kvr_sync.archive.layout import file_errors, holder_of, list_channels, list_segments
from kvr_sync.archive.segment import PlacedFrame, SegmentReader, open_segments
from kvr_sync.engine import Progress
from kvr_sync.errors import ConfigurationError
from network.protocol.block import Block, data_hash, header_hash
from network.protocol.decode import decode_block
from network.protocol.errors import DecodeError


class ArchiveStatus(NamedTuple):
    """The archive of one channel, by the names of its files and the headers of the last one; None: it is empty."""

    folder: Path
    segments: int
    size_bytes: int
    first_block: int | None
    last_block: int | None
    torn_bytes: int
    """At the end, of a frame that is being written or was when its engine ended."""
    holder: str | None
    """Who holds its lock; None: nobody."""


class VerifiedArchive(NamedTuple):
    """An archive of which every frame, number and hash is right. `first_hash`, `last_hash`: header hashes."""

    folder: Path
    channel: str
    segments: int
    frames: int
    blocks: int
    transactions: int
    first_block: int
    first_hash: bytes
    last_block: int
    last_hash: bytes
    size_bytes: int
    torn_bytes: int


def find_archives(path: Path) -> list[Path]:
    """Give the channels' folders that a path means: itself, or those in it. ConfigurationError where there is none."""
    found = [path] if list_segments(path) else list_channels(path)
    if not found:
        raise ConfigurationError(f"{path}: there is no archive of blocks")
    return found


def read_archive_status(folder: Path) -> ArchiveStatus:
    """Look at an archive without reading its blocks. Raises ArchiveDamagedError, as far as that shows it."""
    segments = list_segments(folder)
    holder = holder_of(folder)
    if not segments:
        return ArchiveStatus(folder, 0, 0, None, None, 0, holder)
    with file_errors(folder):
        size = sum(segment.path.stat().st_size for segment in segments)
    end = 0
    with closing(SegmentReader(segments[-1], is_last=True)) as reader:
        for frame in reader.frames():
            end = frame.end
        torn = reader.size - end
    is_empty = len(segments) == 1 and end == 0
    first, last = (None, None) if is_empty else (segments[0].first_number, reader.next_number - 1)
    return ArchiveStatus(folder, len(segments), size, first, last, torn, holder)


def verify_archive(folder: Path, on_progress: Callable[[Progress], None] = lambda _: None) -> VerifiedArchive:
    """Read all of an archive: checksums of frames, names of files, numbers, data hashes, and the chain of hashes.

    Signatures, verdicts and commit hashes are for a replay to verify. Raises ArchiveDamagedError for the first thing
    that is wrong; ConfigurationError where there is no block.
    """
    segments = list_segments(folder)
    with file_errors(folder):
        size = sum(segment.path.stat().st_size for segment in segments)
    walk = _Walk()
    read = torn = 0
    for reader in open_segments(segments):
        with closing(reader):
            for frame in reader.frames():
                content = reader.content(frame)
                if content is None:
                    break
                walk.frames += 1
                for block in reader.blocks(frame, content):
                    walk.take(reader, frame, block)
                read += frame.header.frame_bytes
                on_progress(Progress(walk.blocks, walk.transactions, read / size))
            if reader.torn_at is not None:
                torn = reader.size - reader.torn_at
    if walk.first is None or walk.last is None:
        raise ConfigurationError(f"{folder}: there is no whole block in the archive")
    (first, first_hash), (last, last_hash) = walk.first, walk.last
    return VerifiedArchive(
        folder,
        walk.channel,
        len(segments),
        walk.frames,
        walk.blocks,
        walk.transactions,
        first,
        first_hash,
        last,
        last_hash,
        size,
        torn,
    )


def archive_facts(status: ArchiveStatus) -> dict[str, object]:
    """Give a status for machines."""
    return status._asdict() | {"folder": str(status.folder)}


def describe_archive(status: ArchiveStatus) -> str:
    """Give a status in words."""
    if status.first_block is None:
        words = "no block"
    else:
        words = f"blocks {status.first_block:,} to {status.last_block:,}, {_files(status.segments, status.size_bytes)}"
    return f"{status.folder}: {words}{_torn(status.torn_bytes)}; {_held_by(status.holder)}"


def verified_facts(verified: VerifiedArchive) -> dict[str, object]:
    """Give what was verified for machines; hashes are hex digits."""
    hashes = {"first_hash": verified.first_hash.hex(), "last_hash": verified.last_hash.hex()}
    return verified._asdict() | {"folder": str(verified.folder)} | hashes


def describe_verified(verified: VerifiedArchive) -> list[str]:
    """Give what was verified in words."""
    size = f"{_files(verified.segments, verified.size_bytes)}{_torn(verified.torn_bytes)}"
    counts = f"{verified.blocks:,} blocks, {verified.transactions:,} transactions in {verified.frames:,} frames"
    return [
        f"{verified.folder}: channel {verified.channel}, {counts}, {size}",
        f"first block {verified.first_block}, header hash {verified.first_hash.hex()}",
        f"last block {verified.last_block}, header hash {verified.last_hash.hex()}",
        "checked: every frame, number, data hash and link; not checked: signatures and verdicts, as a replay does",
    ]


def _files(segments: int, size_bytes: int) -> str:
    return f"{segments:,} {'file' if segments == 1 else 'files'}, {size_bytes:,} bytes"


def _torn(torn_bytes: int) -> str:
    return f", the last {torn_bytes:,} of them of an unfinished frame" if torn_bytes else ""


def _held_by(holder: str | None) -> str:
    return "no engine writes to it" if holder is None else f"in use by {holder}"


class _Walk:
    """Follows the chain block by block."""

    def __init__(self) -> None:
        self.channel = ""
        self.frames = self.blocks = self.transactions = 0
        self.first: tuple[int, bytes] | None = None
        self.last: tuple[int, bytes] | None = None

    def take(self, reader: SegmentReader, frame: PlacedFrame, archived: ArchivedBlock) -> None:
        """Check the next block; ArchiveDamagedError where something is wrong with it."""
        try:
            block = decode_block(archived.content)
        except DecodeError as error:
            raise reader.damage(frame.offset, f"block {archived.number}: {error}") from error
        found = header_hash(block.header)
        words = self._fault(block, archived.number)
        is_named = archived.number == reader.segment.first_number
        if words is None and is_named and not found.hex().startswith(reader.segment.hash_prefix):
            words = "the name of the file has another header hash"
        if words is not None:
            raise reader.damage(frame.offset, f"block {archived.number}: {words}")
        self.last = (archived.number, found)
        self.first = self.first or self.last
        self.blocks += 1
        self.transactions += len(block.transactions)

    def _fault(self, block: Block, number: int) -> str | None:
        if block.header.number != number:
            return f"the block in its place has number {block.header.number}"
        if self.last is not None and block.header.previous_hash != self.last[1]:
            return "it does not extend the block before it"
        if data_hash(block.envelopes) != block.header.data_hash:
            return "header and envelopes disagree"
        named = {transaction.channel_id for transaction in block.transactions if transaction.channel_id}
        if not self.channel and named:
            self.channel = min(named)
        return None if named <= {self.channel} else "it is of another channel"
