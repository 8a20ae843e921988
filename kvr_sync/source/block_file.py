"""Blocks in files: a file of recorded blocks, an exported `.block` file, a folder of such `.block` files, an archive.

A file of recorded blocks is a sequence of records, each a 4-byte big-endian length and a serialised `common.Block`,
as it stands or compressed with zstandard. An exported file is one serialised block, as `peer channel fetch` writes
it. Which one it is shows in the first byte: a length within the limit never begins with the byte a block begins with.
"""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from kvr_sync import errors
from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.layout import find_archive
from kvr_sync.model import RawBlock
from kvr_sync.source.block_source import peek_block_number
from network.protocol.limits import MAX_BLOCK_BYTES

_ZSTANDARD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_FIRST_BYTE: Final = b"\x0a"
_LENGTH_BYTES: Final = 4
_READ_BYTES: Final = 1024 * 1024
_COMPRESSED_READ_BYTES: Final = 2 * 1024
"""Small, because each byte of zstandard input can unfold to 32 KiB: memory stays bounded on any file."""
_MAX_WINDOW_BYTES: Final = 128 * 1024 * 1024


def open_block_file(path: Path, *, growing: bool = False) -> "RecordedFile | BlockFolder | ArchiveSource":
    """Choose the source for a path: a folder of `.block` files, an archive, a file of blocks, or one exported block.

    `growing`: the file is still being written; an unfinished record at its end is not there yet instead of an error.
    Raises SourceUnavailableError when there is nothing to read at that path.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        message = f"{path}: no such file or folder"
        raise errors.SourceUnavailableError(message) from None
    except OSError as error:
        message = f"{path}: {error.strerror or 'cannot be read'}"
        raise errors.SourceUnavailableError(message) from error
    if stat.S_ISDIR(mode):
        archive = find_archive(path)
        return BlockFolder(path) if archive is None else ArchiveSource(archive)
    if not stat.S_ISREG(mode):  # A pipe can be read once only, and opening it waits for whoever writes.
        message = f"{path}: neither a file nor a folder"
        raise errors.SourceUnavailableError(message)
    return RecordedFile(path, growing=growing)


class RecordedFile:
    """A file of recorded blocks, plain or compressed, or one exported block."""

    def __init__(self, path: Path, *, growing: bool = False) -> None:
        self._path = path
        self._growing = growing
        self._size = 0
        self._position = 0

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def progress(self) -> float | None:
        """Fraction of the file's bytes read."""
        return min(1.0, self._position / self._size) if self._size else None

    def blocks(self, start: int) -> Iterator[RawBlock]:
        """Yield the blocks from `start` on; see `BlockSource`."""
        reached = False
        for raw in self.records():
            if not reached:
                number = peek_block_number(raw.content)
                if number is not None and number < start:
                    continue
                reached = True
            yield raw

    def records(self) -> Iterator[RawBlock]:
        """Yield every record as it stands in the file."""
        try:
            with self._path.open("rb") as file:
                self._size = self._path.stat().st_size
                self._position = 0
                yield from self._split(self._chunks(file))
        except OSError as error:
            message = f"{self._path}: {error.strerror or 'cannot be read'}"
            raise errors.SourceUnavailableError(message) from error

    def _chunks(self, file: BinaryIO) -> Iterator[bytes]:
        first = file.read(_LENGTH_BYTES)
        file.seek(0)
        if first != _ZSTANDARD_MAGIC:
            while chunk := file.read(_READ_BYTES):
                self._position += len(chunk)
                yield chunk
            return
        frame = None
        pending = b""
        try:
            while chunk := pending or file.read(_COMPRESSED_READ_BYTES):
                if not pending:
                    self._position += len(chunk)
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
                yield frame.decompress(chunk)
                pending = b""
                if frame.eof:
                    pending, frame = frame.unused_data, None
        except zstandard.ZstdError as error:
            message = f"{self._path}: damaged compressed data near byte {self._position}"
            raise errors.DecodeError(message) from error
        if frame is not None and not self._growing:
            message = (
                f"{self._path}: compressed data ends too early, after {self._position} bytes: the file is truncated"
            )
            raise errors.DecodeError(message)

    def _split(self, chunks: Iterator[bytes]) -> Iterator[RawBlock]:
        """Cut the stream into records, holding at most one record and one chunk."""
        buffer = bytearray()
        offset = 0
        record = 0
        for chunk in chunks:
            buffer += chunk
            if record == 0 and buffer[:1] == _BLOCK_FIRST_BYTE:
                yield self._exported_block(buffer, chunks)
                return
            start = 0
            while len(buffer) - start >= _LENGTH_BYTES:
                length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
                self._check_length(length, record, offset)
                end = start + _LENGTH_BYTES + length
                if len(buffer) < end:
                    break
                yield RawBlock(bytes(buffer[start + _LENGTH_BYTES : end]), f"{self._path}, record {record}")
                record += 1
                offset += end - start
                start = end
            del buffer[:start]
        if record == 0 and not buffer and not self._growing:
            message = f"{self._path}: the file is empty"
            raise errors.DecodeError(message)
        if buffer and not self._growing:
            message = f"{self._path}: ends inside record {record}, which starts at byte {offset}: the file is truncated"
            raise errors.DecodeError(message)

    def _check_length(self, length: int, record: int, offset: int) -> None:
        if 0 < length <= MAX_BLOCK_BYTES:
            return
        if record == 0:
            message = f"{self._path}: neither recorded blocks nor an exported block"
        else:
            message = f"{self._path}: record {record} at byte {offset} claims {length} bytes: not a record"
        raise errors.DecodeError(message)

    def _exported_block(self, buffer: bytearray, chunks: Iterator[bytes]) -> RawBlock:
        for chunk in chunks:
            buffer += chunk
            if len(buffer) > MAX_BLOCK_BYTES:
                message = f"{self._path}: an exported block of more than {MAX_BLOCK_BYTES} bytes"
                raise errors.DecodeError(message)
        return RawBlock(bytes(buffer), str(self._path))


class BlockFolder:
    """A folder of exported blocks: every `*.block` file in it, in the order of the block numbers inside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def progress(self) -> float | None:
        """Fraction of the files yielded."""
        done, total = self._done
        return done / total if total else None

    def blocks(self, start: int) -> Iterator[RawBlock]:
        """Yield the blocks from `start` on; see `BlockSource`."""
        numbered = []
        for path in self._path.glob("*.block"):
            first = next(RecordedFile(path).records(), None)
            number = peek_block_number(first.content) if first else None
            if number is None:
                message = f"{path}: not an exported block"
                raise errors.DecodeError(message)
            numbered.append((number, path))
        if not numbered:
            message = f"{self._path}: the folder holds no .block file"
            raise errors.SourceUnavailableError(message)
        wanted = sorted(entry for entry in numbered if entry[0] >= start)
        for done, (_, path) in enumerate(wanted, start=1):
            yield from RecordedFile(path).records()
            self._done = (done, len(wanted))
