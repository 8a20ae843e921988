"""The archive of a channel: what was appended is there, a torn tail is cut, damage is named, one engine holds it."""

import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.archive import block_archive, layout
from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.block_archive import (
    AFTER_APPEND,
    ARCHIVE_CRASH_POINTS,
    BEFORE_APPEND,
    BEFORE_FLUSH,
    INSIDE_APPEND,
    BlockArchive,
)
from network.protocol.block import header_hash
from network.protocol.decode import decode_block
from tests.support.archived import (
    CHANNEL,
    archived,
    archived_contents,
    entry,
    first_seen,
    forged_frame,
    opened,
    segment_files,
    tiny_chain,
    write_archive,
)
from tests.support.recorded_chain import change_block

BLOCKS = tiny_chain(6)
PER_FRAME = 2
FRAMES = 3
ONE_FRAME = 1
"""Bytes of a segment so that each frame has one of its own."""


def frame_ends(folder: Path) -> list[int]:
    """Give where the frames of the one segment end, found by writing them one after the other."""
    (file,) = segment_files(folder)
    ends = []
    position, content = 0, file.read_bytes()
    while position < len(content):
        position += 64 + int.from_bytes(content[position + 20 : position + 24], "big")
        ends.append(position)
    return ends


def good_before(folder: Path, start: int = 0) -> tuple[list[bytes], errors.KvrSyncError | None]:
    """Read what can be read, and the error that ends it."""
    found: list[bytes] = []
    try:
        found.extend(raw.content for raw in ArchiveSource(folder).blocks(start))
    except errors.KvrSyncError as error:
        return found, error
    return found, None


# --- what was appended is there


@pytest.mark.parametrize("segment_bytes", [ONE_FRAME, 400, 1 << 20])
def test_what_was_appended_is_there_when_it_is_opened_again(segment_bytes: int, tmp_path: Path) -> None:
    for start in range(0, 6, PER_FRAME):
        with opened(tmp_path, segment_bytes=segment_bytes) as archive:
            assert archive.next_number == start
            archive.append(archived(BLOCKS[start : start + PER_FRAME], start))

    found = list(ArchiveSource(tmp_path / CHANNEL).blocks(0))

    assert [raw.content for raw in found] == BLOCKS
    assert [raw.first_seen for raw in found] == [first_seen(number) for number in range(6)]


def test_files_are_named_by_number_and_header_hash(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME, segment_bytes=ONE_FRAME)

    hashes = [header_hash(decode_block(BLOCKS[number]).header).hex() for number in (0, 2, 4)]
    assert [path.name for path in segment_files(folder)] == [
        f"{number:020d}-{name[:16]}.segment" for number, name in zip((0, 2, 4), hashes, strict=True)
    ]


def test_a_segment_that_is_large_enough_is_not_appended_to(tmp_path: Path) -> None:
    size = frame_ends(write_archive(tmp_path / "one", BLOCKS, per_frame=1))[1]

    folder = write_archive(tmp_path / "more", BLOCKS, per_frame=1, segment_bytes=size)

    assert [path.name[:20].lstrip("0") for path in segment_files(folder)] == ["", "2", "4"]


@pytest.mark.parametrize("channel", ["a", "a.b-c.", "z" + 248 * ".", "con"])
def test_every_legal_channel_has_a_folder_of_its_name(channel: str, tmp_path: Path) -> None:
    with BlockArchive(tmp_path, channel) as archive:
        archive.append(archived(BLOCKS))

    assert [path.name for path in tmp_path.iterdir()] == [channel]
    assert archived_contents(tmp_path / channel) == BLOCKS


@pytest.mark.parametrize("channel", ["", ".", "..", "a/b", "A", "../a", "a\0", "z" * 250])
def test_no_other_name_leads_anywhere(channel: str, tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="not a channel id"):
        BlockArchive(tmp_path / "archive", channel)

    assert list(tmp_path.iterdir()) == []


def test_each_frame_passes_the_points_in_order(tmp_path: Path) -> None:
    seen: list[str] = []
    with opened(tmp_path, hook=seen.append) as archive:
        archive.append(archived(BLOCKS[:2]))
        archive.append(archived(BLOCKS[2:], 2))

    assert seen == [*ARCHIVE_CRASH_POINTS] * 2
    assert (BEFORE_APPEND, INSIDE_APPEND, BEFORE_FLUSH, AFTER_APPEND) == ARCHIVE_CRASH_POINTS


def test_files_and_new_entries_of_folders_are_flushed_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would need: watched at the system call, since no test can cut the power."""
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/dev/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(block_archive.os, "fsync", fsync)
    with opened(tmp_path / "archive", segment_bytes=ONE_FRAME) as archive:
        made = flushed[:]
        flushed.clear()
        archive.append(archived(BLOCKS[:1]))
        first = flushed[:]
        flushed.clear()
        archive.append(archived(BLOCKS[1:2], 1))

    names = [path.name for path in segment_files(tmp_path / "archive" / CHANNEL)]
    assert made == ["archive", tmp_path.name]
    assert first == [names[0], CHANNEL]
    assert flushed == [names[1], CHANNEL]


# --- a torn tail


def test_a_file_cut_anywhere_is_an_older_state(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    content, ends = file.read_bytes(), [0, *frame_ends(folder)]
    for length in range(len(content)):
        file.write_bytes(content[:length])
        whole = sum(end <= length for end in ends) - 1

        before = good_before(folder)
        with opened(tmp_path) as archive:
            archive.append(archived(BLOCKS[whole * PER_FRAME :], whole * PER_FRAME))

        assert before == (BLOCKS[: whole * PER_FRAME], None)
        assert archived_contents(folder) == BLOCKS
        file.unlink()


@pytest.mark.parametrize(
    ("begin", "end"),
    [(0, None), (0, 64), (10, None), (64, None), (-1, None)],
    ids=["all", "header", "from inside the header", "content", "last byte"],
)
def test_a_last_frame_of_which_a_crash_left_zeros_is_cut(
    begin: int, end: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    content, last = file.read_bytes(), frame_ends(folder)[-2]
    frame = bytearray(content[last:])
    frame[begin:end] = bytes(len(frame[begin:end]))
    file.write_bytes(content[:last] + frame)

    found = good_before(folder)
    with caplog.at_level(logging.WARNING), opened(tmp_path) as archive:
        assert archive.next_number == 4

    assert found == (BLOCKS[:4], None)
    assert file.read_bytes() == content[:last]
    (record,) = [record for record in caplog.records if record.msg == "archive_tail_cut"]
    facts = record.__dict__
    assert (facts["file"], facts["offset"], facts["bytes"]) == (str(file), last, len(frame))


def test_a_new_file_without_a_whole_frame_is_removed(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS[:4], per_frame=PER_FRAME, segment_bytes=ONE_FRAME)
    for content in (b"", b"KVRA", bytes(200)):
        torn = folder / f"{4:020d}-0123456789abcdef.segment"
        torn.write_bytes(content)

        with opened(tmp_path, segment_bytes=ONE_FRAME) as archive:
            assert archive.next_number == 4

        assert not torn.exists()
    assert archived_contents(folder) == BLOCKS[:4]


# --- damage


def test_a_byte_changed_anywhere_is_an_older_state_or_named(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    content, ends = file.read_bytes(), frame_ends(folder)
    for position in range(len(content)):
        spoilt = bytearray(content)
        spoilt[position] ^= 1 << position % 8
        file.write_bytes(spoilt)
        number = sum(end <= position for end in ends)
        good = BLOCKS[: number * PER_FRAME]

        found, error = good_before(folder)

        assert found == good
        if number == FRAMES - 1:
            assert error is None  # as torn as far as one can tell, and fetched again
            with opened(tmp_path) as archive:
                assert archive.next_number == len(good)
        else:
            assert isinstance(error, errors.ArchiveDamagedError)
            assert f"{file}, byte {[0, *ends][number]}: " in str(error)
            assert "put a good copy of the file in its place" in str(error)


def test_damage_of_a_header_is_found_when_it_is_opened_and_nothing_is_cut(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    spoilt = bytearray(file.read_bytes())
    spoilt[frame_ends(folder)[0] + 22] ^= 0x40  # the length: the frame would end behind the end of the file
    file.write_bytes(spoilt)

    with pytest.raises(errors.ArchiveDamagedError, match=f"byte {frame_ends_of(spoilt)}"):
        BlockArchive(tmp_path, CHANNEL)

    assert file.read_bytes() == spoilt


def frame_ends_of(content: bytes | bytearray) -> int:
    return 64 + int.from_bytes(content[20:24], "big")


@pytest.mark.parametrize("cut", [1, 30, 64, 70])
def test_only_the_last_file_may_be_torn(cut: int, tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME, segment_bytes=ONE_FRAME)
    second = segment_files(folder)[1]
    second.write_bytes(second.read_bytes()[:-cut])

    found, error = good_before(folder)

    assert found == BLOCKS[:2]
    assert isinstance(error, errors.ArchiveDamagedError)
    assert str(second) in str(error)


def test_a_header_that_is_gone_in_a_file_before_the_last_is_named(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME, segment_bytes=ONE_FRAME)
    second = segment_files(folder)[1]
    second.write_bytes(bytes(64) + second.read_bytes()[64:])

    found, error = good_before(folder)

    assert found == BLOCKS[:2]
    assert isinstance(error, errors.ArchiveDamagedError)
    assert f"{second}, byte 0: " in str(error)


def test_a_missing_file_is_named_by_what_follows_it(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME, segment_bytes=ONE_FRAME)
    _, second, third = segment_files(folder)
    second.unlink()

    found, error = good_before(folder)

    assert found == BLOCKS[:2]
    assert isinstance(error, errors.ArchiveDamagedError)
    assert str(error).startswith(f"{third}: block 2 was expected, the segment begins with 4")


def test_two_files_for_one_block_are_refused(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS)
    (file,) = segment_files(folder)
    (folder / f"{0:020d}-ffffffffffffffff.segment").write_bytes(file.read_bytes())

    with pytest.raises(errors.ArchiveDamagedError, match="begins with the same block"):
        BlockArchive(tmp_path, CHANNEL)


def test_a_frame_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    content, ends = file.read_bytes(), frame_ends(folder)
    file.write_bytes(content[: ends[0]] + content[ends[1] :])

    with pytest.raises(errors.ArchiveDamagedError, match="block 2 was expected, the frame begins with 4"):
        BlockArchive(tmp_path, CHANNEL)


@pytest.mark.parametrize("is_last", [True, False])
def test_a_newer_format_is_left_alone(is_last: bool, tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS[:2])
    (file,) = segment_files(folder)
    newer = forged_frame(entry(b"of the future"), first=2, form=2) + (b"" if is_last else file.read_bytes())
    content = file.read_bytes() + newer
    file.write_bytes(content)

    with pytest.raises(errors.ConfigurationError, match="format 2, this version reads 1; use the newer version"):
        BlockArchive(tmp_path, CHANNEL)

    assert file.read_bytes() == content


def test_a_forged_content_is_named_with_its_place(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS[:2])
    (file,) = segment_files(folder)
    place = file.stat().st_size
    with file.open("ab") as opened_file:
        opened_file.write(forged_frame(entry(b"x", length=50), first=2))

    found, error = good_before(folder)

    assert found == BLOCKS[:2]
    assert isinstance(error, errors.ArchiveDamagedError)
    assert f"{file}, byte {place}: block 2 claims 50 bytes" in str(error)


# --- what is there already is compared


def test_blocks_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS[:4], per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    content = file.read_bytes()
    with opened(tmp_path) as archive:
        archive.append(archived(BLOCKS[1:3], 1))
        archive.append(archived(BLOCKS[3:4], 3))
        archive.append(archived(BLOCKS[:4]))
        assert file.read_bytes() == content

        archive.append(archived(BLOCKS[2:], 2))

    assert file.read_bytes().startswith(content)
    assert archived_contents(folder) == BLOCKS


def with_metadata(content: bytes, slot: int, value: bytes) -> bytes:
    def change(block: Any) -> None:
        block.metadata.metadata[slot] = value

    return change_block(content, change)


def test_another_block_of_a_number_is_a_fork_and_both_are_named(tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS)
    other = tiny_chain(6, salt=b"fork")[3]
    linked = relinked(other, BLOCKS[3])
    with opened(tmp_path) as archive, pytest.raises(errors.ForkError) as fork:
        archive.append(archived([BLOCKS[2], linked], 2))

    assert fork.value.block_number == 3
    hashes = [header_hash(decode_block(content).header).hex() for content in (BLOCKS[3], linked)]
    assert all(found in str(fork.value) for found in hashes)
    assert archived_contents(tmp_path / CHANNEL) == BLOCKS


def relinked(content: bytes, model: bytes) -> bytes:
    def change(block: Any) -> None:
        block.header.previous_hash = decode_block(model).header.previous_hash

    return change_block(content, change)


@pytest.mark.parametrize("number", [0, 3])
def test_another_chain_is_told_from_a_fork(number: int, tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS)
    other = tiny_chain(6, salt=b"other")
    with opened(tmp_path) as archive, pytest.raises(errors.ArchiveMismatchError, match="another chain"):
        archive.append(archived(other[number:], number))


def test_the_signatures_of_another_orderer_are_no_fork(tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS)
    with opened(tmp_path) as archive:
        archive.append(archived([with_metadata(BLOCKS[2], 0, b"signed otherwise")], 2))

    assert archived_contents(tmp_path / CHANNEL) == BLOCKS


def test_other_verdicts_on_the_same_block_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS)
    with opened(tmp_path) as archive, pytest.raises(errors.CommitHashError, match="verdicts"):
        archive.append(archived([with_metadata(BLOCKS[2], 2, b"\0")], 2))


@pytest.mark.parametrize("numbers", [[7], [6, 8], [6, 6], [5, 7]])
def test_blocks_that_do_not_follow_are_refused(numbers: Sequence[int], tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS)
    more = [archived([BLOCKS[number % 6]], number)[0] for number in numbers]
    with opened(tmp_path) as archive, pytest.raises(errors.ArchiveMismatchError, match="block 6 was expected"):
        archive.append(more)

    assert archived_contents(tmp_path / CHANNEL) == BLOCKS


# --- reading one block, cutting


def test_gives_one_block(tmp_path: Path) -> None:
    write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    with opened(tmp_path) as archive:
        assert [archive.block(number).header.number for number in (0, 3, 5)] == [0, 3, 5]
        with pytest.raises(errors.ArchiveDamagedError, match="block 6 is not where it should be"):
            archive.block(6)


@pytest.mark.parametrize("segment_bytes", [ONE_FRAME, 1 << 20])
@pytest.mark.parametrize("number", [0, 2, 4, 6])
def test_what_is_cut_off_is_gone_and_the_rest_goes_on(number: int, segment_bytes: int, tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME, segment_bytes=segment_bytes)
    with opened(tmp_path, segment_bytes=segment_bytes) as archive:
        archive.cut(number)
        assert archived_contents(folder) == BLOCKS[:number]
        assert archive.next_number == number

        archive.append(archived(BLOCKS[number:], number))

    assert archived_contents(folder) == BLOCKS


# --- one engine


HOLDING = """
import sys
from pathlib import Path
from kvr_sync.archive.block_archive import BlockArchive

with BlockArchive(Path(sys.argv[1]), "consortium"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_engine_is_told_who_holds_it_and_gets_it_when_that_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        with pytest.raises(errors.ArchiveInUseError, match=f"in use by process {holder.pid} on ") as refused:
            BlockArchive(tmp_path, CHANNEL)
        BlockArchive(tmp_path, "another-channel").close()

        assert refused.value.retryable
        holder.kill()
    BlockArchive(tmp_path, CHANNEL).close()


@pytest.mark.parametrize("told", [b"", b"{}", b"[1]", b'{"process": "x", "host": 1}', b"\xff" * 5000])
def test_whatever_stands_in_the_lock_the_second_engine_is_refused(told: bytes, tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        (archive.folder / layout.LOCK_FILE).write_bytes(told)

        with pytest.raises(errors.ArchiveInUseError, match="in use by another process"):
            BlockArchive(tmp_path, CHANNEL)


def test_an_archive_that_could_not_be_opened_holds_no_lock(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=PER_FRAME)
    (file,) = segment_files(folder)
    content = file.read_bytes()
    file.write_bytes(b"spoilt" + content[6:])
    with pytest.raises(errors.ArchiveDamagedError):
        BlockArchive(tmp_path, CHANNEL)

    file.write_bytes(content)

    BlockArchive(tmp_path, CHANNEL).close()


# --- what the file system refuses


def test_a_full_disk_leaves_what_was_there_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = write_archive(tmp_path, BLOCKS[:2])
    (file,) = segment_files(folder)
    content = file.read_bytes()
    with opened(tmp_path) as archive:
        for room in (0, 1, 63, 64, 65, 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + room, unlimited[1]))
            try:
                with pytest.raises(errors.ArchiveFullError) as full:
                    archive.append(archived(BLOCKS[2:], 2))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            assert str(folder) in str(full.value)
            assert full.value.retryable
            assert file.read_bytes() == content

        archive.append(archived(BLOCKS[2:], 2))

    assert archived_contents(folder) == BLOCKS


@pytest.mark.parametrize("point", [INSIDE_APPEND, BEFORE_FLUSH])
@pytest.mark.parametrize("segment_bytes", [ONE_FRAME, 1 << 20])
def test_a_write_that_fails_half_way_is_taken_back(point: str, segment_bytes: int, tmp_path: Path) -> None:
    failing = True

    def hook(passed: str) -> None:
        if failing and passed == point:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = write_archive(tmp_path, BLOCKS[:2], segment_bytes=segment_bytes)
    files = {path: path.read_bytes() for path in segment_files(folder)}
    with opened(tmp_path, hook=hook, segment_bytes=segment_bytes) as archive:
        for _ in range(2):
            with pytest.raises(errors.ArchiveUnavailableError, match="Input/output error") as failed:
                archive.append(archived(BLOCKS[2:], 2))
            assert failed.value.retryable
            assert {path: path.read_bytes() for path in segment_files(folder)} == files
        failing = False
        archive.append(archived(BLOCKS[2:], 2))

    assert archived_contents(folder) == BLOCKS


def test_an_archive_that_cannot_be_mended_takes_no_more_blocks(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        archive.append(archived(BLOCKS[:2]))

        def lose_the_folder(passed: str) -> None:
            if passed == INSIDE_APPEND:
                archive.folder.rename(tmp_path / "lost")
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        archive._hook = lose_the_folder  # noqa: SLF001  a disk that goes away between two writes
        for words in ("Input/output error", "an earlier write failed half way"):
            with pytest.raises(errors.ArchiveUnavailableError, match=words):
                archive.append(archived(BLOCKS[2:], 2))


@pytest.mark.parametrize("place", ["file", "file/below", "long" * 100])
def test_a_directory_that_cannot_be_made_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(errors.ConfigurationError) as refused:
        BlockArchive(tmp_path / place, CHANNEL)

    assert str(tmp_path / place) in str(refused.value)
