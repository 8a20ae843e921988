"""An archive as a source of blocks, like a file or a peer."""

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kvr_sync import errors
from kvr_sync.archive.layout import file_errors, list_segments
from kvr_sync.archive.segment import SegmentReader, open_segments
from kvr_sync.model import RawBlock

logger = logging.getLogger(__name__)


class ArchiveSource:
    """A `BlockSource` on the archive of one channel; an engine may be writing to it.

    A torn frame at its end is not there (yet). Blocks come with the time when they were first seen.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._size = 0
        self._position = 0

    @property
    def name(self) -> str:
        """The channel's folder."""
        return str(self.folder)

    def progress(self) -> float | None:
        """Fraction of the bytes read."""
        return min(1.0, self._position / self._size) if self._size else None

    def blocks(self, start: int) -> Iterator[RawBlock]:
        """Yield the blocks from `start` on; see `BlockSource`. Damage is an ArchiveDamagedError."""
        try:
            yield from self._blocks(start)
        except errors.ArchiveUnavailableError as error:
            raise errors.SourceUnavailableError(str(error)) from error

    def _blocks(self, start: int) -> Iterator[RawBlock]:
        segments = list_segments(self.folder)
        while len(segments) > 1 and segments[1].first_number <= start:
            del segments[0]
        self._position = self._size = 0
        for segment in segments:
            with file_errors(segment.path):
                self._size += segment.path.stat().st_size
        for reader in open_segments(segments):
            with closing(reader):
                yield from self._blocks_of(reader, start)
                if reader.torn_at is not None:
                    facts = {"file": str(reader.segment.path), "offset": reader.torn_at}
                    logger.warning("archive_tail_torn", extra=facts)

    def _blocks_of(self, reader: SegmentReader, start: int) -> Iterator[RawBlock]:
        for frame in reader.frames():
            if frame.header.last_number >= start:
                content = reader.content(frame)
                if content is None:
                    return
                for block in reader.blocks(frame, content):
                    if block.number >= start:
                        origin = f"{reader.segment.path}, block {block.number}"
                        yield RawBlock(block.content, origin, first_seen=block.first_seen)
            self._position += frame.header.frame_bytes
