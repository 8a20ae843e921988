"""Blocks in files, in the form of Fabric's own block store, so that its tools read them.

Rules: `common/ledger/blkstorage/{block_serialization,blockfile_mgr}.go`. A record is its length and the block: number,
data hash, previous hash (in this order), envelopes, metadata. A file holds at most 64 MiB, a block is in one file.
Where each block begins is found by reading the lengths when the files are opened; there is no index to lose.
"""

import os
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from fabric_protos.common import common_pb2

from network.errors import LedgerError
from network.protocol.errors import DecodeError
from network.protocol.wire import append_varint, read_varint

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_VARINT_BYTES: Final = 10


class BlockReader(Protocol):
    """Gives blocks by number, below a height that the reader knows; raises BlockNotHeldError."""

    def block(self, number: int) -> common_pb2.Block:
        """Give a block."""

    def content(self, number: int) -> bytes:
        """Give a serialised `common.Block`."""


class _Place(NamedTuple):
    file: int
    offset: int
    length: int


class BlockFiles:
    """The blocks of one node and channel. Raises LedgerError for files that are none; a torn last record is cut off."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._places: list[_Place] = []
        self._readers: dict[int, BinaryIO] = {}
        last = 0
        while self._path(last + 1).exists():
            last += 1
        size = 0
        for number in range(last + 1):
            size = self._find_records(number, is_last=number == last)
        self._file, self._size = last, size
        self._writer = self._path(last).open("ab")

    @property
    def height(self) -> int:
        """Number of the next block."""
        return len(self._places)

    def append(self, block: common_pb2.Block) -> None:
        """Write the next block; it is the operating system's when this returns, so a killed process loses nothing."""
        if block.header.number != self.height:
            raise LedgerError(f"block {block.header.number} cannot follow {self.height - 1} in {self._folder}")
        content = _encode(block)
        length = bytearray()
        append_varint(length, len(content))
        if self._size and self._size + len(length) + len(content) > MAX_FILE_BYTES:
            self._writer.close()
            self._file, self._size = self._file + 1, 0
            self._writer = self._path(self._file).open("ab")
        self._writer.write(bytes(length) + content)
        self._writer.flush()
        self._places.append(_Place(self._file, self._size + len(length), len(content)))
        self._size += len(length) + len(content)

    def block(self, number: int) -> common_pb2.Block:
        """Read a block below the height; raises LedgerError for a damaged one."""
        place = self._places[number]
        reader = self._readers.get(place.file)
        if reader is None:
            reader = self._readers[place.file] = self._path(place.file).open("rb")
        reader.seek(place.offset)
        try:
            block = _decode(reader.read(place.length))
        except DecodeError as error:
            raise LedgerError(f"block {number} in {self._path(place.file)} is damaged") from error
        if block.header.number != number:
            raise LedgerError(f"block {number} in {self._path(place.file)} is another one")
        return block

    def content(self, number: int) -> bytes:
        """Read a block as the bytes of a Block message."""
        return bytes(self.block(number).SerializeToString())

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _path(self, number: int) -> Path:
        return self._folder / f"blockfile_{number:06d}"

    def _find_records(self, number: int, *, is_last: bool) -> int:
        """Note where the records of a file are; give the size of its whole records."""
        path = self._path(number)
        if not path.exists():
            return 0
        size, offset = path.stat().st_size, 0
        with path.open("rb") as file:
            while offset < size:
                file.seek(offset)
                head = file.read(MAX_VARINT_BYTES)
                try:
                    length, start = read_varint(head, 0)
                except DecodeError:
                    break
                if offset + start + length > size:
                    break
                self._places.append(_Place(number, offset + start, length))
                offset += start + length
        if offset < size:
            if not is_last:
                raise LedgerError(f"{path} ends in the middle of a block, but more files follow")
            os.truncate(path, offset)
        return offset


def _encode(block: common_pb2.Block) -> bytes:
    out = bytearray()
    append_varint(out, block.header.number)
    _append_bytes(out, block.header.data_hash)
    _append_bytes(out, block.header.previous_hash)
    for items in (block.data.data, block.metadata.metadata):
        append_varint(out, len(items))
        for item in items:
            _append_bytes(out, item)
    return bytes(out)


def _append_bytes(out: bytearray, content: bytes) -> None:
    append_varint(out, len(content))
    out += content


def _decode(content: bytes) -> common_pb2.Block:
    number, position = read_varint(content, 0)
    data_hash, position = _read_bytes(content, position)
    previous_hash, position = _read_bytes(content, position)
    block = common_pb2.Block(
        header=common_pb2.BlockHeader(number=number, data_hash=data_hash, previous_hash=previous_hash)
    )
    for items in (block.data.data, block.metadata.metadata):
        count, position = read_varint(content, position)
        for _ in range(count):
            item, position = _read_bytes(content, position)
            items.append(item)
    if position != len(content):
        raise DecodeError("block record: more than a block")
    return block


def _read_bytes(content: bytes, position: int) -> tuple[bytes, int]:
    length, position = read_varint(content, position)
    if position + length > len(content):
        raise DecodeError("block record: shorter than it says")
    return content[position : position + length], position + length
