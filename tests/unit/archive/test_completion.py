"""An archive is brought up to the database: compared at the checkpoint, filled from the source, or refused by name."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.archive import completion
from kvr_sync.archive.completion import complete_archive
from kvr_sync.model import Checkpoint, RawBlock
from network.protocol.block import header_hash
from network.protocol.decode import decode_block
from tests.support.archived import CHANNEL, archived_contents, opened, segment_files, tiny_chain, write_archive
from tests.support.recorded_chain import change_block

BLOCKS = tiny_chain(8)
OTHER = tiny_chain(8, salt=b"other")


class ListSource:
    """A source that holds these blocks, whatever their numbers."""

    name = "a list"

    def __init__(self, blocks: Sequence[bytes], first: int = 0) -> None:
        self.given: list[int] = []
        self._numbered = list(enumerate(blocks, first))

    def blocks(self, start: int) -> Iterator[RawBlock]:
        for number, content in self._numbered:
            if number >= start:
                self.given.append(number)
                yield RawBlock(content, f"a list, block {number}", first_seen=1_000 + number)

    def progress(self) -> None:
        return None


def at(number: int, blocks: Sequence[bytes] = BLOCKS) -> Checkpoint:
    return Checkpoint(number, header_hash(decode_block(blocks[number]).header), None)


def complete(folder: Path, source: ListSource, checkpoint: Checkpoint | None, **options: Any) -> bool:
    with opened(folder) as archive:
        return complete_archive(archive, source, checkpoint, **options)


@pytest.mark.parametrize("held", [0, 1, 3, 5])
@pytest.mark.parametrize("part_bytes", [1, 250, 1 << 20])
def test_what_is_missing_is_fetched_up_to_the_checkpoint_and_no_further(
    held: int, part_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "PART_BYTES", part_bytes)
    folder = write_archive(tmp_path, BLOCKS[:held])
    source = ListSource(BLOCKS)
    reports: list[None] = []

    assert complete(tmp_path, source, at(5), report=lambda: reports.append(None))

    assert archived_contents(folder) == BLOCKS[:6]
    assert source.given == list(range(held, 6))
    assert reports


@pytest.mark.parametrize("held", [6, 7, 8])
def test_an_archive_that_is_ahead_stays_as_it_is_and_nothing_is_fetched(held: int, tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS[:held])
    source = ListSource(BLOCKS)

    assert complete(tmp_path, source, at(5))

    assert archived_contents(folder) == BLOCKS[:held]
    assert source.given == []


@pytest.mark.parametrize("held", [0, 4])
def test_without_a_checkpoint_there_is_nothing_to_complete(held: int, tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS[:held])
    source = ListSource(BLOCKS)

    assert complete(tmp_path, source, None)
    assert source.given == []


@pytest.mark.parametrize("checkpoint", [None, at(3), at(7)])
def test_an_archive_without_its_beginning_is_refused(checkpoint: Checkpoint | None, tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS[2:6], first=2)

    with pytest.raises(errors.ArchiveDamagedError, match="begins with block 2"):
        complete(tmp_path, ListSource(BLOCKS), checkpoint)


@pytest.mark.parametrize("number", [0, 3, 5])
def test_an_archive_of_another_chain_is_refused_at_the_checkpoint(number: int, tmp_path: Path) -> None:
    folder = write_archive(tmp_path, OTHER[:6])

    with pytest.raises(errors.ArchiveMismatchError, match=f"block {number} of the archive has header hash"):
        complete(tmp_path, ListSource(BLOCKS), at(number))

    assert archived_contents(folder) == OTHER[:6]


def test_a_source_without_the_missing_blocks_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS[:2])

    with pytest.raises(errors.BlocksNotHeldError, match=r"block 2 is missing .* begins with block 4\. Name a source"):
        complete(tmp_path, ListSource(BLOCKS[4:], 4), at(6))
    with pytest.raises(errors.SourceBehindError, match=r"ends below block 4, .* stands at block 6\. Name a source"):
        complete(tmp_path, ListSource(BLOCKS[:4]), at(6))


def data_of(model: bytes) -> Callable[[Any], None]:
    def change(block: Any) -> None:
        block.data.data[:] = decode_block(model).envelopes

    return change


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        (OTHER, errors.PreviousHashError),
        ([*BLOCKS[:5], OTHER[5]], errors.PreviousHashError),
        ([*BLOCKS[:3], OTHER[3], *BLOCKS[4:]], errors.PreviousHashError),
        ([*BLOCKS[:4], change_block(BLOCKS[4], data_of(OTHER[4])), *BLOCKS[5:]], errors.DataHashError),
        ([*BLOCKS[:3], BLOCKS[3][:-1], *BLOCKS[4:]], errors.DecodeError),
        ([*BLOCKS[:3], BLOCKS[2], *BLOCKS[4:]], errors.BlockNumberError),
    ],
    ids=["another chain", "another end", "one of another chain", "other envelopes", "no block", "a block twice"],
)
@pytest.mark.parametrize("held", [0, 2])
def test_blocks_that_do_not_lead_to_the_checkpoint_leave_the_archive_as_it_was(
    blocks: list[bytes],
    error: type[errors.KvrSyncError],
    held: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(completion, "PART_BYTES", 1)
    folder = write_archive(tmp_path, BLOCKS[:held])

    with pytest.raises(error, match="a list, block"):
        complete(tmp_path, ListSource(blocks), at(5))

    assert archived_contents(folder) == BLOCKS[:held]


def test_a_chain_that_is_right_but_for_its_end_is_not_the_one_of_the_database(tmp_path: Path) -> None:
    with pytest.raises(errors.PreviousHashError, match="this is another chain"):
        complete(tmp_path, ListSource(OTHER), at(5))

    assert segment_files(tmp_path / CHANNEL) == []


def test_it_stops_between_two_parts_when_asked_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "PART_BYTES", 1)
    asked = iter([False, False, True])
    folder = write_archive(tmp_path, [])

    assert not complete(tmp_path, ListSource(BLOCKS), at(5), should_stop=lambda: next(asked))
    assert archived_contents(folder) == BLOCKS[:3]
    assert complete(tmp_path, ListSource(BLOCKS), at(5))

    assert archived_contents(folder) == BLOCKS[:6]


def test_a_source_that_ends_because_it_was_stopped_is_not_behind(tmp_path: Path) -> None:
    assert not complete(tmp_path, ListSource(BLOCKS[:0]), at(5), should_stop=lambda: True)
