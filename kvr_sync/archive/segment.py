"""A segment file: frames one after the other. Nothing here writes.

Only the last frame of the last segment may be torn, since every frame is flushed before the next one is begun. It is
torn when it is short, or when a crash of the machine left other bytes than those written. Anything else is damage: a
frame that is not whole and has a whole header after it, or stands in a segment that is not the last.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from kvr_sync.archive.frame import (
    HEADER_BYTES,
    MAGIC,
    ArchivedBlock,
    FrameError,
    FrameHeader,
    NewerFormatError,
    check_content,
    decode_content,
    decode_header,
)
from kvr_sync.archive.layout import SegmentFile, file_errors
from kvr_sync.errors import ArchiveDamagedError, ConfigurationError

_SEARCH_BYTES: Final = 1024 * 1024


class PlacedFrame(NamedTuple):
    """A frame in a file."""

    offset: int
    header: FrameHeader

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + self.header.frame_bytes


class SegmentReader:
    """A segment open for reading; close it.

    `is_last`: no segment follows it, so its end may be torn, or still being written. `torn_at`: where a torn frame
    begins, once reading has met it; None: it has met none.
    """

    def __init__(self, segment: SegmentFile, *, is_last: bool) -> None:
        self.segment = segment
        self.torn_at: int | None = None
        self.next_number = segment.first_number
        """Number after the last block of the frames seen."""
        self._is_last = is_last
        with file_errors(segment.path):
            self._descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def frames(self) -> Iterator[PlacedFrame]:
        """Yield the frames that are there in full, by what their headers say; contents are not looked at.

        Raises ArchiveDamagedError, and ConfigurationError for a newer format.
        """
        offset, self.next_number = 0, self.segment.first_number
        while offset < self.size:
            frame = self._frame(offset)
            if frame is None:
                return
            first = frame.header.first_number
            if first != self.next_number:
                raise self.damage(offset, f"block {self.next_number} was expected, the frame begins with {first}")
            self.next_number = frame.header.last_number + 1
            yield frame
            offset = frame.end

    def content(self, frame: PlacedFrame) -> bytes | None:
        """Read and check the content of a frame; None where it is torn. Raises ArchiveDamagedError."""
        content = self._read(frame.offset + HEADER_BYTES, frame.header.content_bytes)
        try:
            check_content(frame.header, content)
        except FrameError as error:
            if self._is_last and frame.end >= self.size:
                self.torn_at = frame.offset
                return None
            raise self.damage(frame.offset, str(error)) from None
        return content

    def blocks(self, frame: PlacedFrame, content: bytes) -> Iterator[ArchivedBlock]:
        """Yield the blocks of a content. Raises ArchiveDamagedError where a forger wrote it."""
        try:
            yield from decode_content(frame.header, content)
        except FrameError as error:
            raise self.damage(frame.offset, str(error)) from error

    def damage(self, offset: int, words: str) -> ArchiveDamagedError:
        """Make the error for a place of this file."""
        return ArchiveDamagedError(
            f"{self.segment.path}, byte {offset}: {words}; put a good copy of the file in its place, or begin a new"
            " archive in an empty directory"
        )

    def _frame(self, offset: int) -> PlacedFrame | None:
        """Give the frame at an offset; None where it is torn."""
        try:
            frame = PlacedFrame(offset, decode_header(self._read(offset, HEADER_BYTES)))
        except NewerFormatError as error:
            raise ConfigurationError(f"{self.segment.path}, byte {offset}: {error}; use the newer version") from None
        except FrameError as error:
            if not self._is_last or self._header_after(offset):
                raise self.damage(offset, str(error)) from None
            self.torn_at = offset
            return None
        if frame.end > self.size:
            if not self._is_last:
                raise self.damage(offset, "the file ends inside this frame")
            self.torn_at = offset
            return None
        return frame

    def _header_after(self, offset: int) -> bool:
        """Tell whether a whole header stands anywhere after an offset, so that what is there is not the last frame."""
        position = offset + 1
        while position < self.size:
            piece = self._read(position, _SEARCH_BYTES)
            if not piece:  # cut meanwhile
                return False
            found = piece.find(MAGIC)  # in compressed bytes it is there once in 4 GiB by chance
            while found >= 0:
                try:
                    decode_header(self._read(position + found, HEADER_BYTES))
                except NewerFormatError:
                    return True
                except FrameError:
                    found = piece.find(MAGIC, found + 1)
                else:
                    return True
            position += max(1, len(piece) - len(MAGIC) + 1)  # one may stand across two pieces
        return False

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        with file_errors(self.segment.path):
            while length > 0 and (part := os.pread(self._descriptor, length, offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        return b"".join(parts)


def open_segments(segments: Sequence[SegmentFile]) -> Iterator[SegmentReader]:
    """Yield a reader of each segment in order, once all frames of the one before it were seen; the caller closes it.

    Raises ArchiveDamagedError where a segment does not begin with the block after those of the one before it.
    """
    number: int | None = None
    for segment in segments:
        if number is not None and segment.first_number != number:
            raise ArchiveDamagedError(
                f"{segment.path}: block {number} was expected, the segment begins with {segment.first_number}; files"
                " are missing, or do not belong here: put good copies in their place, or begin a new archive in an"
                " empty directory"
            )
        reader = SegmentReader(segment, is_last=segment is segments[-1])
        yield reader
        number = reader.next_number
