"""The archive of one channel, open for writing by one engine.

Blocks come here once they were verified, and before the database commits them: what the database holds, the archive
holds, whatever happens in between. It may be ahead: blocks that were flushed and then not committed. They stay, were
verified, and have to be the ones that the source gives again; two blocks of one number are a fork and stop the engine.
"""

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kvr_sync import errors
from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.frame import ArchivedBlock, encode_frame, split_run
from kvr_sync.archive.layout import channel_folder, file_errors, list_segments, lock, segment_path
from kvr_sync.archive.limits import SEGMENT_BYTES
from kvr_sync.archive.segment import SegmentReader
from kvr_sync.model import RawBlock
from kvr_sync.store.sink import Hook, no_hook
from network.protocol.block import Block, header_hash
from network.protocol.decode import decode_block
from network.protocol.errors import DecodeError

logger = logging.getLogger(__name__)

BEFORE_APPEND: Final = "before_append"
INSIDE_APPEND: Final = "inside_append"
BEFORE_FLUSH: Final = "before_flush"
AFTER_APPEND: Final = "after_append"
ARCHIVE_CRASH_POINTS: Final = (BEFORE_APPEND, INSIDE_APPEND, BEFORE_FLUSH, AFTER_APPEND)
"""Where `append` calls its hook for each frame, in order; the archive must be whole again wherever the process ends."""


class BlockArchive:
    """The archive of a channel. Close it, or use it as a context manager; it is locked until then.

    `append` and reading are for one thread.
    """

    def __init__(
        self, directory: Path, channel: str, *, hook: Hook = no_hook, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Make the directory where it is not there, lock it, and cut a torn tail.

        Raises ArchiveInUseError, ArchiveDamagedError, ArchiveUnavailableError, ArchiveFullError; ConfigurationError for
        a directory that cannot be used.
        """
        self.folder = channel_folder(directory, channel)
        self.first_number: int | None = None
        """Number of its first block; None: it is empty."""
        self.next_number = 0
        """Number of the block that it wants next."""
        self._hook = hook
        self._segment_bytes = segment_bytes
        self._segment: int | None = None
        """Descriptor of the segment that is written; None: the next frame begins one."""
        self._segment_path = self.folder
        self._size = 0
        """Bytes of the segment that are whole frames."""
        self._is_spoilt = False
        self._held: Iterator[RawBlock] = iter(())
        self._held_number = -1
        """Number of the block that `_held` gives next."""
        _make_folder(self.folder)
        self._lock = lock(self.folder)
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def append(self, blocks: Sequence[ArchivedBlock]) -> None:
        """Write consecutive blocks and flush them; those that it holds already are compared instead.

        Raises ForkError or ArchiveMismatchError where it holds another block of a number; ArchiveFullError or
        ArchiveUnavailableError where they cannot be written, and then holds none of a frame.
        """
        for position, block in enumerate(blocks):
            if block.number >= self.next_number:
                for part in split_run(blocks[position:]):
                    self._append_frame(part)
                return
            self._compare(block)

    def block(self, number: int) -> Block:
        """Read one block that it holds. Raises ArchiveDamagedError."""
        raw = next(ArchiveSource(self.folder).blocks(number), None)
        block = None if raw is None else _decode(raw.content, raw.origin)
        if raw is None or block is None or block.header.number != number:
            raise errors.ArchiveDamagedError(f"{self.folder}: block {number} is not where it should be")
        return block

    def cut(self, number: int) -> None:
        """Remove the block of a number, which begins a frame, and all after it."""
        self._close_segment()
        for segment in reversed(list_segments(self.folder)):
            with closing(SegmentReader(segment, is_last=True)) as reader:
                kept = max((frame.end for frame in reader.frames() if frame.header.last_number < number), default=0)
            with file_errors(segment.path):
                _shorten(segment.path, kept)
            if kept:
                break
        self._recover()

    def close(self) -> None:
        """Give the lock back."""
        self._close_segment()
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _recover(self) -> None:
        """Find the end, and cut what is torn there."""
        self.first_number, self.next_number, self._size = None, 0, 0
        segments = list_segments(self.folder)
        while segments:
            last = segments[-1]
            with closing(SegmentReader(last, is_last=True)) as reader:
                frame, before = None, None
                for placed in reader.frames():
                    frame, before = placed, frame
                if frame is not None and reader.content(frame) is None:
                    frame = before
                size = reader.size
            whole = 0 if frame is None else frame.end
            if whole < size:
                facts = {"file": str(last.path), "offset": whole, "bytes": size - whole}
                logger.warning("archive_tail_cut", extra=facts)
            if whole < size or not size:
                with file_errors(last.path):
                    _shorten(last.path, whole)
            if frame is not None:
                self.first_number = segments[0].first_number
                self.next_number = frame.header.last_number + 1
                self._segment_path, self._size = last.path, whole
                return
            segments.pop()

    def _append_frame(self, blocks: Sequence[ArchivedBlock]) -> None:
        first = blocks[0].number
        numbers = [block.number for block in blocks]
        if (self.first_number is not None and first != self.next_number) or numbers != list(
            range(first, first + len(numbers))
        ):
            raise errors.ArchiveMismatchError(
                f"{self.folder}: block {self.next_number} was expected, blocks {first} to {numbers[-1]} came"
            )
        if self._is_spoilt:
            raise errors.ArchiveUnavailableError(f"{self._segment_path}: an earlier write failed half way")
        frame = encode_frame(blocks)
        self._hook(BEFORE_APPEND)
        with file_errors(self.folder):
            try:
                descriptor = self._segment_for(blocks[0])
                _write(descriptor, frame[: len(frame) // 2])
                self._hook(INSIDE_APPEND)
                _write(descriptor, frame[len(frame) // 2 :])
                self._hook(BEFORE_FLUSH)
                os.fsync(descriptor)
                if self._size == 0:
                    _flush_folder(self.folder)
            except BaseException:
                self._take_back()
                raise
        self._size += len(frame)
        self.next_number = numbers[-1] + 1
        if self.first_number is None:
            self.first_number = first
        self._hook(AFTER_APPEND)

    def _segment_for(self, block: ArchivedBlock) -> int:
        """Give the segment to write to; a new one where the last is full."""
        if self.first_number is None or self._size >= self._segment_bytes:
            self._close_segment()
            begin = header_hash(_decode(block.content, f"block {block.number}").header)
            self._segment_path, self._size = segment_path(self.folder, block.number, begin), 0
        if self._segment is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (0 if self._size else os.O_CREAT | os.O_EXCL)
            self._segment = os.open(self._segment_path, flags, 0o644)
        return self._segment

    def _take_back(self) -> None:
        """Remove what was written of a frame that failed. Where even that fails, opening it again does."""
        self._is_spoilt = True
        path, whole = self._segment_path, self._size
        self._close_segment()
        with suppress(OSError, errors.KvrSyncError):
            _shorten(path, whole)
            self._recover()
            self._is_spoilt = False

    def _close_segment(self) -> None:
        descriptor, self._segment = self._segment, None
        if descriptor is not None:
            os.close(descriptor)

    def _compare(self, block: ArchivedBlock) -> None:
        """Hold a block against the one that is there already."""
        if self._held_number != block.number:
            self._held = ArchiveSource(self.folder).blocks(block.number)
        held = next(self._held, None)
        self._held_number = block.number + 1
        if held is None:
            raise errors.ArchiveDamagedError(f"{self.folder}: block {block.number} is not where it should be")
        if held.content == block.content:
            return
        old, new = _decode(held.content, held.origin), _decode(block.content, f"block {block.number}")
        if header_hash(old.header) != header_hash(new.header):
            words = (
                f"{held.origin}: the archive has header hash {header_hash(old.header).hex()},"
                f" the source {header_hash(new.header).hex()}"
            )
            if block.number == 0 or old.header.previous_hash != new.header.previous_hash:
                raise errors.ArchiveMismatchError(f"{words}: this is the archive of another chain")
            raise errors.ForkError(f"{words}: both were verified", block_number=block.number)
        if old.flags != new.flags:  # signatures may differ: every orderer signs its own copy
            message = f"{held.origin}: the verdicts in the archive are not those of the source; both were verified"
            raise errors.CommitHashError(message, block_number=block.number)


def _make_folder(folder: Path) -> None:
    with file_errors(folder):
        made = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
        folder.mkdir(parents=True, exist_ok=True)
        for path in made:
            _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shorten(path: Path, size: int) -> None:
    """Cut a segment to the frames that are whole; one without any is removed."""
    if size == 0:
        path.unlink(missing_ok=True)
        _flush_folder(path.parent)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _decode(content: bytes, origin: str) -> Block:
    try:
        return decode_block(content)
    except DecodeError as error:
        raise errors.ArchiveDamagedError(f"{origin}: {error}") from error
