"""An archive and a database that are to go on together: the database decides, the archive is brought up to it."""

from collections.abc import Callable
from typing import Final

from kvr_sync import errors
from kvr_sync.archive.block_archive import BlockArchive
from kvr_sync.archive.frame import ArchivedBlock
from kvr_sync.model import Checkpoint, RawBlock
from kvr_sync.source.block_source import BlockSource
from network.protocol.block import Block, data_hash, header_hash
from network.protocol.decode import decode_block
from network.protocol.errors import DecodeError

PART_BYTES: Final = 4 * 1024 * 1024
"""Blocks that are fetched again go to the archive in frames of about this size."""


def complete_archive(
    archive: BlockArchive,
    source: BlockSource,
    checkpoint: Checkpoint | None,
    *,
    report: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """See to it that the archive holds the chain of the database up to its checkpoint; False when it was stopped.

    What is missing is fetched from the source. It is proved by the hashes that link it to the checkpoint; signatures
    and verdicts are verified again whenever the archive is replayed. Raises ArchiveMismatchError where the archive has
    another block at the checkpoint, ArchiveDamagedError where it does not begin with block 0; BlocksNotHeldError,
    SourceBehindError where the source does not have what is missing; the errors of verification where what it gives is
    no chain that leads to the checkpoint. Then the archive is as it was.
    """
    if archive.first_number:
        raise errors.ArchiveDamagedError(
            f"{archive.folder}: the archive begins with block {archive.first_number}; put the files of the blocks"
            " before it in their place, or begin a new archive in an empty directory"
        )
    if checkpoint is None:
        return True
    if archive.next_number > checkpoint.block_number:
        found = header_hash(archive.block(checkpoint.block_number).header)
        if found != checkpoint.header_hash:
            raise errors.ArchiveMismatchError(
                f"{archive.folder}: block {checkpoint.block_number} of the archive has header hash {found.hex()}, the"
                f" one that the database holds has {checkpoint.header_hash.hex()}"
            )
        return True
    begin = archive.next_number
    try:
        return _fetch(archive, source, checkpoint, report, should_stop)
    except (errors.VerificationError, errors.DecodeError):
        archive.cut(begin)
        raise


def _fetch(
    archive: BlockArchive,
    source: BlockSource,
    checkpoint: Checkpoint,
    report: Callable[[], None],
    should_stop: Callable[[], bool],
) -> bool:
    number, last = archive.next_number, checkpoint.block_number
    previous = header_hash(archive.block(number - 1).header) if number else b""
    part: list[ArchivedBlock] = []
    size = 0
    for raw in source.blocks(number):
        block = _linked(raw, number, previous, archive)
        previous = header_hash(block.header)
        if number == last and previous != checkpoint.header_hash:
            message = (
                f"{raw.origin}: this is another chain: its block {number} has header hash {previous.hex()}, the one"
                f" already applied has {checkpoint.header_hash.hex()}"
            )
            raise errors.PreviousHashError(message, block_number=number)
        part.append(ArchivedBlock(number, raw.content, raw.first_seen))
        size += len(raw.content)
        number += 1
        if size >= PART_BYTES or number > last:
            archive.append(part)
            part, size = [], 0
            report()
        if number > last:
            return True
        if should_stop():
            return False
    if should_stop():
        return False
    raise errors.SourceBehindError(
        f"{source.name} ends below block {number}, which the archive {archive.folder} lacks; the database stands at"
        f" block {last}. Name a source that has it, or go on without the archive"
    )


def _linked(raw: RawBlock, number: int, previous: bytes, archive: BlockArchive) -> Block:
    """Decode a block and check that it is the one that comes next."""
    try:
        block = decode_block(raw.content)
    except DecodeError as error:
        raise errors.DecodeError(f"{raw.origin}: {error}") from error
    found = block.header.number
    if found > number:
        raise errors.BlocksNotHeldError(
            f"{raw.origin}: block {number} is missing in the archive {archive.folder}, and the source begins with block"
            f" {found}. Name a source that has it, or go on without the archive"
        )
    if found != number:
        raise errors.BlockNumberError(
            f"{raw.origin}: block {number} was expected, block {found} came", block_number=found
        )
    if block.header.previous_hash != previous:
        raise errors.PreviousHashError(
            f"{raw.origin}: block {number} does not extend the archive {archive.folder}", block_number=number
        )
    if data_hash(block.envelopes) != block.header.data_hash:
        raise errors.DataHashError(f"{raw.origin}: block {number}: header and envelopes disagree", block_number=number)
    return block
