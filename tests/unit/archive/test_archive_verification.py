"""`kvr sync archive verify` finds whatever is wrong with an archive; `status` says what it holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvr_sync import errors
from kvr_sync.archive.archive_source import ArchiveSource
from kvr_sync.archive.verification import (
    describe_archive,
    describe_verified,
    find_archives,
    read_archive_status,
    verify_archive,
)
from kvr_sync.engine import Progress
from network.protocol.block import header_hash
from network.protocol.decode import decode_block
from tests.support.archived import CHANNEL, archived, entry, forged_frame, opened, segment_files, write_archive
from tests.support.chain_factory import ChainFactory, TransactionSpec, put
from tests.support.recorded_chain import change_block, load_chain

BLOCKS = load_chain("fabric-3.1.5-raft").blocks[:9]


def hash_of(content: bytes) -> bytes:
    return header_hash(decode_block(content).header)


@pytest.mark.parametrize("segment_bytes", [1, 1 << 20])
def test_a_whole_archive_is_described(segment_bytes: int, tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=4, segment_bytes=segment_bytes)
    reports: list[Progress] = []

    verified = verify_archive(folder, reports.append)

    assert (verified.folder, verified.channel) == (folder, "consortium")
    assert (verified.blocks, verified.frames, verified.segments) == (9, 3, 3 if segment_bytes == 1 else 1)
    assert verified.transactions == sum(len(decode_block(content).transactions) for content in BLOCKS)
    assert (verified.first_block, verified.first_hash) == (0, hash_of(BLOCKS[0]))
    assert (verified.last_block, verified.last_hash) == (8, hash_of(BLOCKS[8]))
    assert verified.size_bytes == sum(path.stat().st_size for path in segment_files(folder))
    assert verified.torn_bytes == 0
    assert [report.blocks for report in reports] == [4, 8, 9]
    assert reports[-1].fraction == 1.0


def test_what_is_described_says_what_was_not_checked(tmp_path: Path) -> None:
    lines = describe_verified(verify_archive(write_archive(tmp_path, BLOCKS)))

    assert lines[0].startswith(
        f"{tmp_path / CHANNEL}: channel consortium, 9 blocks, 9 transactions in 2 frames, 1 file, "
    )
    assert lines[1] == f"first block 0, header hash {hash_of(BLOCKS[0]).hex()}"
    assert lines[2] == f"last block 8, header hash {hash_of(BLOCKS[8]).hex()}"
    assert "not checked: signatures and verdicts" in lines[3]


def test_a_torn_tail_is_counted(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=4)
    (file,) = segment_files(folder)
    file.write_bytes(file.read_bytes()[:-1])

    verified, status = verify_archive(folder), read_archive_status(folder)

    assert verified.last_block == status.last_block == 7
    assert verified.torn_bytes == status.torn_bytes > 0
    assert f"the last {status.torn_bytes:,} of them of an unfinished frame" in describe_archive(status)


def refusal(tmp_path: Path, *frames: bytes, name: str = "") -> str:
    """Give what is said of an archive of a first good frame, and these."""
    folder = write_archive(tmp_path, BLOCKS[:3])
    (file,) = segment_files(folder)
    place = file.stat().st_size
    with file.open("ab") as appended:
        appended.write(b"".join(frames))
    if name:
        file.rename(folder / name)
    with pytest.raises(errors.ArchiveDamagedError) as refused:
        verify_archive(folder)
    assert f"byte {0 if name else place}: " in str(refused.value)
    return str(refused.value)


def other_data(content: bytes) -> bytes:
    def change(block: Any) -> None:
        block.data.data[0] += b"\0"

    return change_block(content, change)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([BLOCKS[4]], "block 3: the block in its place has number 4"),
        ([load_chain("fabric-3.1.5-bft").blocks[3]], "block 3: it does not extend the block before it"),
        ([other_data(BLOCKS[3])], "block 3: header and envelopes disagree"),
        ([BLOCKS[3], b"no block"], "block 4: "),
    ],
    ids=["number", "link", "data hash", "no block"],
)
def test_every_forgery_of_a_block_is_found(contents: Sequence[bytes], words: str, tmp_path: Path) -> None:
    plain = b"".join(map(entry, contents))

    assert words in refusal(tmp_path, forged_frame(plain, first=3, blocks=len(contents)))


def test_a_block_of_another_channel_is_found(tmp_path: Path) -> None:
    factory = ChainFactory()
    factory.block([TransactionSpec([put("a", b"1")])])
    factory.channel = "elsewhere"
    factory.block([TransactionSpec([put("a", b"2")])])
    folder = write_archive(tmp_path, factory.blocks)

    with pytest.raises(errors.ArchiveDamagedError, match="block 2: it is of another channel"):
        verify_archive(folder)


def test_a_file_under_the_name_of_another_is_found(tmp_path: Path) -> None:
    assert "the name of the file has another header hash" in refusal(tmp_path, name=f"{0:020d}-{'0' * 16}.segment")


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS, per_frame=4)
    (file,) = segment_files(folder)
    spoilt = bytearray(file.read_bytes())
    spoilt[500] ^= 1
    file.write_bytes(spoilt)

    with pytest.raises(errors.ArchiveDamagedError, match="byte 0: the content of the frame is not what was written"):
        verify_archive(folder)


# --- status


def test_status_of_an_archive_that_an_engine_holds(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        assert read_archive_status(archive.folder).first_block is None
        archive.append(archived(BLOCKS))

        status = read_archive_status(archive.folder)

    assert (status.first_block, status.last_block, status.segments, status.torn_bytes) == (0, 8, 1, 0)
    assert status.holder is not None
    assert status.holder.startswith("process ")
    assert describe_archive(status).startswith(f"{archive.folder}: blocks 0 to 8, 1 file, ")
    assert describe_archive(status).endswith(f"; in use by {status.holder}")
    assert describe_archive(read_archive_status(archive.folder)).endswith("; no engine writes to it")


def test_an_archive_of_which_nothing_is_whole_yet_is_told_so(tmp_path: Path) -> None:
    folder = tmp_path / CHANNEL
    folder.mkdir()
    (folder / f"{0:020d}-{'0' * 16}.segment").write_bytes(b"KVRA")

    status = read_archive_status(folder)

    assert (status.first_block, status.last_block, status.torn_bytes) == (None, None, 4)
    assert "no block" in describe_archive(status)
    with pytest.raises(errors.ConfigurationError, match="no whole block"):
        verify_archive(folder)


# --- which archive a path means


def test_a_path_means_the_archive_or_those_in_it(tmp_path: Path) -> None:
    folder = write_archive(tmp_path, BLOCKS)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / segment_files(folder)[0].name).write_bytes(segment_files(folder)[0].read_bytes())
    (tmp_path / "lost+found").mkdir(mode=0)

    assert find_archives(folder) == [folder]
    assert find_archives(tmp_path) == [folder, other]


def test_a_path_without_an_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(errors.ConfigurationError, match="there is no archive of blocks"):
        find_archives(tmp_path)
    with pytest.raises(errors.ArchiveUnavailableError, match="No such file"):
        find_archives(tmp_path / "missing")


def test_a_source_is_named_by_its_folder(tmp_path: Path) -> None:
    assert ArchiveSource(tmp_path / CHANNEL).name == str(tmp_path / CHANNEL)
