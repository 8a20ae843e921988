"""What every source of blocks promises: recorded blocks, plain and compressed, exported files, folders, archives."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from kvr_sync import errors
from kvr_sync.archive.limits import MAX_PLAIN_BYTES
from kvr_sync.jobs import SyncSettings, sync_once
from kvr_sync.source.block_file import open_block_file
from network.protocol.limits import MAX_BLOCK_BYTES
from network.protocol.wire import varint
from tests.support.archived import archived, entry, forged_frame, opened, segment_files, write_archive
from tests.support.recorded_chain import load_chain, write_records
from tests.support.tables import query

CHAIN = load_chain("fabric-3.1.5-raft")
BLOCKS = CHAIN.blocks[:12]

Writer = Callable[[Path, Sequence[bytes]], Path]


def record(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def plain(folder: Path, blocks: Sequence[bytes]) -> Path:
    return write_records(folder / "blocks", tuple(blocks))


def compressed(folder: Path, blocks: Sequence[bytes]) -> Path:
    path = folder / "blocks.zst"
    path.write_bytes(zstandard.compress(b"".join(map(record, blocks))))
    return path


def frame_per_block(folder: Path, blocks: Sequence[bytes]) -> Path:
    path = folder / "blocks.zst"
    path.write_bytes(b"".join(zstandard.compress(record(block)) for block in blocks))
    return path


def frames_that_cut_records(folder: Path, blocks: Sequence[bytes]) -> Path:
    content = b"".join(map(record, blocks))
    path = folder / "blocks.zst"
    pieces = [content[start : start + 10_007] for start in range(0, len(content), 10_007)]
    path.write_bytes(b"".join(map(zstandard.compress, pieces)))
    return path


def exported_files(folder: Path, blocks: Sequence[bytes]) -> Path:
    path = folder / "exported"
    path.mkdir()
    for position, block in enumerate(blocks):
        # Names that do not sort as numbers do: the order comes from the numbers inside.
        (path / f"consortium_{position + 7}.block").write_bytes(block)
    return path


def archive(folder: Path, blocks: Sequence[bytes]) -> Path:
    return write_archive(folder / "archive", blocks, per_frame=3, first=CHAIN.blocks.index(blocks[0]))


def archive_of_small_files(folder: Path, blocks: Sequence[bytes]) -> Path:
    first = CHAIN.blocks.index(blocks[0])
    return write_archive(folder / "archive", blocks, per_frame=1, segment_bytes=10_000, first=first)


WRITERS = (
    plain,
    compressed,
    frame_per_block,
    frames_that_cut_records,
    exported_files,
    archive,
    archive_of_small_files,
)


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__)
def writer(request: pytest.FixtureRequest) -> Writer:
    chosen: Writer = request.param
    return chosen


def contents(path: Path, start: int = 0, *, growing: bool = False) -> list[bytes]:
    return [raw.content for raw in open_block_file(path, growing=growing).blocks(start)]


# --- every kind of source


def test_yields_the_blocks_byte_for_byte_in_order(writer: Writer, tmp_path: Path) -> None:
    assert contents(writer(tmp_path, BLOCKS)) == list(BLOCKS)


@pytest.mark.parametrize("start", [1, 5, 11])
def test_starts_in_the_middle(writer: Writer, start: int, tmp_path: Path) -> None:
    assert contents(writer(tmp_path, BLOCKS), start) == list(BLOCKS[start:])


def test_start_beyond_its_end_gives_nothing(writer: Writer, tmp_path: Path) -> None:
    assert contents(writer(tmp_path, BLOCKS), 12) == []


def test_start_below_its_beginning_gives_what_it_has(writer: Writer, tmp_path: Path) -> None:
    assert contents(writer(tmp_path, BLOCKS[6:]), 2) == list(BLOCKS[6:])


def test_can_be_read_again_and_sees_what_came_since(writer: Writer, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    path, later = writer(first, BLOCKS[:4]), writer(second, BLOCKS)
    source = open_block_file(path)
    before = [raw.content for raw in source.blocks(0)]
    for file in later.iterdir() if later.is_dir() else [later]:
        file.replace(path / file.name if path.is_dir() else path)

    after = [raw.content for raw in source.blocks(0)]

    assert (before, after) == (list(BLOCKS[:4]), list(BLOCKS))


def test_tells_how_much_it_has_yielded(writer: Writer, tmp_path: Path) -> None:
    source = open_block_file(writer(tmp_path, BLOCKS))
    seen = [source.progress() or 0.0 for _ in source.blocks(0)]
    seen.append(source.progress() or 0.0)

    assert seen == sorted(seen)
    assert 0.0 <= seen[0] <= seen[-1] == 1.0


def test_says_where_each_block_came_from(writer: Writer, tmp_path: Path) -> None:
    path = writer(tmp_path, BLOCKS)

    origins = [raw.origin for raw in open_block_file(path).blocks(0)]

    assert len(set(origins)) == len(BLOCKS)
    assert all(origin.startswith(str(path)) for origin in origins)


def test_keeps_the_order_of_a_file_and_the_engine_refuses_it(database_url: str, tmp_path: Path) -> None:
    reordered = write_records(tmp_path / "blocks", (*BLOCKS[:5], BLOCKS[6], BLOCKS[5], *BLOCKS[7:]))

    assert contents(reordered)[5] == BLOCKS[6]
    with pytest.raises(errors.BlockNumberError, match="block 5 was expected, block 6 came"):
        sync_once(SyncSettings(reordered, database_url))


def test_sorts_a_folder_and_the_engine_finds_the_gap(sqlite_url: str, tmp_path: Path) -> None:
    folder = exported_files(tmp_path, (BLOCKS[3], *BLOCKS[:2]))

    assert contents(folder) == [*BLOCKS[:2], BLOCKS[3]]
    with pytest.raises(errors.BlockNumberError, match="block 2 was expected, block 3 came"):
        sync_once(SyncSettings(folder, sqlite_url))


def test_a_single_exported_file_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "consortium_7.block"
    path.write_bytes(BLOCKS[7])

    assert contents(path) == [BLOCKS[7]]


# --- growing files


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 200])
def test_a_torn_record_at_the_end_of_a_growing_file_is_not_there_yet(cut: int, tmp_path: Path) -> None:
    path = plain(tmp_path, BLOCKS[:3])
    torn = record(BLOCKS[3])
    with path.open("ab") as file:
        file.write(torn[:cut])
    source = open_block_file(path, growing=True)

    before = [raw.content for raw in source.blocks(0)]
    with path.open("ab") as file:
        file.write(torn[cut:])
    after = [raw.content for raw in source.blocks(0)]

    assert before == list(BLOCKS[:3])
    assert after == list(BLOCKS[:4])


def test_a_growing_compressed_file_grows_by_frames_and_a_torn_frame_is_not_there_yet(tmp_path: Path) -> None:
    path = frame_per_block(tmp_path, BLOCKS[:3])
    whole = path.read_bytes()
    frame = zstandard.compress(record(BLOCKS[3]))
    source = open_block_file(path, growing=True)
    seen = []

    for cut in (0, 1, 3, 5, len(frame) // 2, len(frame) - 1, len(frame)):
        path.write_bytes(whole + frame[:cut])
        seen.append([raw.content for raw in source.blocks(0)])

    # All of a record may be there before the checksum or the last empty part of its frame is.
    assert seen[0] == list(BLOCKS[:3])
    assert all(blocks in (list(BLOCKS[:3]), list(BLOCKS[:4])) for blocks in seen)
    assert seen[-1] == list(BLOCKS[:4])


def test_an_empty_growing_file_has_no_block_yet(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    path.touch()

    assert contents(path, growing=True) == []


def test_the_line_says_so_when_a_growing_file_has_no_block_yet(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    path.touch()

    with pytest.raises(errors.SourceUnavailableError, match="no block yet"):
        sync_once(SyncSettings(path, sqlite_url, growing=True))


def test_damage_inside_a_growing_file_is_an_error_all_the_same(tmp_path: Path) -> None:
    path = plain(tmp_path, BLOCKS[:3])
    with path.open("ab") as file:
        file.write(b"\xff\xff\xff\xff" + bytes(100))

    with pytest.raises(errors.DecodeError, match=r"record 3 at byte \d+ claims 4294967295 bytes"):
        contents(path, growing=True)


# --- archives


def test_an_archive_is_found_by_its_directory_too(tmp_path: Path) -> None:
    archive(tmp_path, BLOCKS)

    assert contents(tmp_path / "archive") == list(BLOCKS)


def test_a_directory_with_archives_of_several_channels_names_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_archive(tmp_path / name, BLOCKS[:1]).rename(tmp_path / f"channel-{name}")

    with pytest.raises(errors.ConfigurationError, match=r"several channels; name one .*: channel-one, channel-two"):
        open_block_file(tmp_path)


def test_an_archive_grows_under_its_reader(tmp_path: Path) -> None:
    source = open_block_file(archive(tmp_path, BLOCKS[:4]))
    before = [raw.content for raw in source.blocks(0)]
    with opened(tmp_path / "archive") as growing:
        growing.append(archived(BLOCKS[4:9], 4))
        torn = segment_files(growing.folder)[-1]
        with torn.open("ab") as file:
            file.write(b"KVRA")

        after = [raw.content for raw in source.blocks(2)]

    assert (before, after) == (list(BLOCKS[:4]), list(BLOCKS[2:9]))


def test_an_archive_that_goes_away_is_unavailable(tmp_path: Path) -> None:
    folder = archive(tmp_path, BLOCKS)
    source = open_block_file(folder)
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(errors.SourceUnavailableError, match="No such file"):
        list(source.blocks(0))


def test_the_line_commits_what_comes_before_a_damage_in_an_archive(sqlite_url: str, tmp_path: Path) -> None:
    folder = archive(tmp_path, BLOCKS)
    (file,) = segment_files(folder)
    spoilt = bytearray(file.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    file.write_bytes(spoilt)

    with pytest.raises(errors.ArchiveDamagedError, match=f"{file}, byte "):
        sync_once(SyncSettings(folder, sqlite_url))

    good = len(query(sqlite_url, "SELECT block_number FROM ledger_block"))
    assert 0 < good < len(BLOCKS)
    assert good % 3 == 0


# --- damaged files, and what is no source at all


def assert_yields_then_raises(path: Path, good: Sequence[bytes], kind: type[errors.KvrSyncError], words: str) -> None:
    """What was yielded before an error stays good."""
    found: list[bytes] = []

    with pytest.raises(kind, match=words) as refused:
        found.extend(raw.content for raw in open_block_file(path).blocks(0))

    assert found == list(good)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("missing", [1, 50, len(BLOCKS[11]) - 1, len(BLOCKS[11]) + 1, len(BLOCKS[11]) + 3])
def test_rejects_a_file_that_ends_inside_a_record_or_its_length(missing: int, tmp_path: Path) -> None:
    path = plain(tmp_path, BLOCKS)
    path.write_bytes(path.read_bytes()[:-missing])

    assert_yields_then_raises(path, BLOCKS[:11], errors.DecodeError, "ends inside record 11.*truncated")


@pytest.mark.parametrize("kept", [4, 5, 9])
def test_rejects_a_compressed_file_that_ends_in_its_first_frame(kept: int, tmp_path: Path) -> None:
    path = compressed(tmp_path, BLOCKS)
    path.write_bytes(path.read_bytes()[:kept])

    assert_yields_then_raises(path, [], errors.DecodeError, "truncated")


def test_rejects_a_compressed_file_that_ends_inside_a_later_frame(tmp_path: Path) -> None:
    path = frame_per_block(tmp_path, BLOCKS)
    path.write_bytes(path.read_bytes()[:-500])

    assert_yields_then_raises(path, BLOCKS[:11], errors.DecodeError, "truncated")


def test_rejects_a_compressed_file_whose_frames_end_inside_a_record(tmp_path: Path) -> None:
    path = tmp_path / "blocks.zst"
    path.write_bytes(zstandard.compress(record(BLOCKS[0]) + record(BLOCKS[1])[:-1]))

    assert_yields_then_raises(path, BLOCKS[:1], errors.DecodeError, "ends inside record 1.*truncated")


def test_rejects_damaged_compression(tmp_path: Path) -> None:
    path = tmp_path / "blocks.zst"
    first, second = zstandard.compress(record(BLOCKS[0])), bytearray(zstandard.compress(record(BLOCKS[1])))
    second[len(second) // 2 :] = b"\xff" * (len(second) - len(second) // 2)
    path.write_bytes(first + second)

    assert_yields_then_raises(path, BLOCKS[:1], errors.DecodeError, "damaged compressed data near byte")


def test_rejects_rubbish_after_the_last_frame(tmp_path: Path) -> None:
    path = compressed(tmp_path, BLOCKS)
    path.write_bytes(path.read_bytes() + b"rubbish")

    assert_yields_then_raises(path, BLOCKS, errors.DecodeError, "damaged compressed data near byte")


def test_rejects_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    path.touch()

    assert_yields_then_raises(path, [], errors.DecodeError, "the file is empty")


def test_rejects_an_empty_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "blocks.zst"
    path.write_bytes(zstandard.compress(b""))

    assert_yields_then_raises(path, [], errors.DecodeError, "the file is empty")


@pytest.mark.parametrize(
    "content",
    [
        b"SQLite format 3\0" + bytes(84),
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"{}\n" * 40,
        bytes(100),
        b"\x1f\x8b\x08" * 30,
    ],
    ids=["sqlite", "png", "json", "zeros", "gzip"],
)
def test_rejects_a_file_of_another_kind(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)

    assert_yields_then_raises(path, [], errors.DecodeError, "neither recorded blocks nor an exported block")


@pytest.mark.parametrize("length", [0, MAX_BLOCK_BYTES + 1])
def test_rejects_a_record_of_an_impossible_length(length: int, tmp_path: Path) -> None:
    path = plain(tmp_path, BLOCKS[:2])
    with path.open("ab") as file:
        file.write(struct.pack(">I", length) + bytes(64))

    assert_yields_then_raises(path, BLOCKS[:2], errors.DecodeError, f"record 2 at byte .* claims {length} bytes")


def test_a_record_may_be_as_long_as_the_limit_says_and_waits_for_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "blocks"
    path.write_bytes(struct.pack(">I", MAX_BLOCK_BYTES) + bytes(64))

    assert_yields_then_raises(path, [], errors.DecodeError, "ends inside record 0.*truncated")


def test_rejects_an_exported_file_larger_than_a_block_may_be(tmp_path: Path) -> None:
    path = tmp_path / "huge.block"
    with path.open("wb") as file:
        file.write(BLOCKS[0])
        file.truncate(MAX_BLOCK_BYTES + 1)  # no disk space is used

    assert_yields_then_raises(path, [], errors.DecodeError, f"more than {MAX_BLOCK_BYTES} bytes")


def test_rejects_a_path_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceUnavailableError, match="no such file or folder"):
        open_block_file(tmp_path / "missing")


def test_a_file_that_goes_away_is_unavailable(tmp_path: Path) -> None:
    source = open_block_file(plain(tmp_path, BLOCKS))
    (tmp_path / "blocks").unlink()

    with pytest.raises(errors.SourceUnavailableError, match="No such file"):
        list(source.blocks(0))


def test_rejects_a_path_that_no_system_can_have(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceUnavailableError):
        open_block_file(tmp_path / ("long" * 100))


def test_rejects_a_pipe_without_waiting_for_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(errors.SourceUnavailableError, match="neither a file nor a folder"):
        open_block_file(path)


def test_rejects_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")

        with pytest.raises(errors.SourceUnavailableError):
            contents(Path("socket"))


UNREADABLE = """
import os, sys
from pathlib import Path
from kvr_sync.errors import SourceUnavailableError
from kvr_sync.source.block_file import open_block_file

if os.getuid() == 0:  # root may read anything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    list(open_block_file(Path(sys.argv[1])).blocks(0))
except SourceUnavailableError as error:
    print(error)
"""


def test_rejects_a_file_that_may_not_be_read() -> None:
    # Another user than root must get to it, and gets into no folder of pytest's.
    with tempfile.TemporaryDirectory(prefix="kvr-") as name:
        Path(name).chmod(0o755)
        path = plain(Path(name), BLOCKS)
        path.chmod(0)

        found = subprocess.run(
            [sys.executable, "-c", UNREADABLE, str(path)], capture_output=True, text=True, timeout=30, check=False
        )

        assert (found.returncode, found.stdout) == (0, f"{path}: Permission denied\n"), found.stderr


def test_a_folder_without_blocks_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no blocks here")

    with pytest.raises(errors.SourceUnavailableError, match=r"the folder holds no \.block file"):
        contents(tmp_path)


def test_rejects_a_folder_with_a_file_that_is_no_block(tmp_path: Path) -> None:
    folder = exported_files(tmp_path, BLOCKS[:2])
    (folder / "notes.block").write_bytes(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")

    with pytest.raises(errors.DecodeError, match=r"notes\.block: not an exported block"):
        contents(folder)


# --- bounded memory

MEASURE = """
import resource, sys
from pathlib import Path
from kvr_sync.errors import DecodeError
from kvr_sync.source.block_file import open_block_file

limit = int(sys.argv[2])
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + limit, resource.RLIM_INFINITY))
yielded = 0
try:
    for raw in open_block_file(Path(sys.argv[1])).blocks(0):
        yielded += len(raw.content)
except DecodeError as error:
    print("refused", yielded, error)
else:
    print("read", yielded)
"""


def read_within(path: Path, mebibytes: int) -> str:
    """Read a source in a process of its own that gets no more memory than this."""
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(mebibytes << 20)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def zstandard_bomb(path: Path, beginning: bytes, byte: bytes, mebibytes: int) -> Path:
    """Write the densest file there is: after a beginning, each 4 bytes are 128 KiB of one byte (RFC 8878, 3.1.1)."""

    def block(kind: int, size: int, content: bytes) -> bytes:
        return (kind << 1 | size << 3).to_bytes(3, "little") + content

    header = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes(((20 - 10) << 3,))  # no content size, a window of 1 MiB
    raw = block(0, len(beginning), beginning) if beginning else b""
    path.write_bytes(header + raw + block(1, 1 << 17, byte) * (mebibytes * 8))
    return path


def test_reading_a_long_file_holds_one_block_at_a_time(tmp_path: Path) -> None:
    content = b"\x0a" + bytes(8 << 20)
    path = tmp_path / "blocks.zst"
    with zstandard.open(path, "wb") as file:
        for _ in range(40):
            file.write(record(content))

    assert read_within(path, 200) == f"read {40 * len(content)}\n"


@pytest.mark.parametrize(
    ("beginning", "byte", "words"),
    [
        (b"", b"\x00", "neither recorded blocks nor an exported block"),
        (b"", b"\x0a", "an exported block of more than"),
        (record(b"\x0a\x00"), b"\x00", "claims 0 bytes"),
        (record(b"\x0a\x00"), b"\xff", "claims 4294967295 bytes"),
        (record(b"\x0a\x00"), b"\x05", "truncated"),  # records of 84 MiB of nothing
    ],
)
def test_a_compression_bomb_is_refused_within_bounded_memory(
    beginning: bytes, byte: bytes, words: str, tmp_path: Path
) -> None:
    path = zstandard_bomb(tmp_path / "bomb", beginning, byte, 700)

    answer = read_within(path, 640)

    assert answer.startswith("refused")
    assert words in answer


def test_reading_a_long_archive_holds_one_frame_at_a_time(tmp_path: Path) -> None:
    block = BLOCKS[0] + field_of(8 << 20)
    folder = write_archive(tmp_path, [block] * 40, per_frame=8)

    assert read_within(folder, 200) == f"read {40 * len(block)}\n"


def field_of(size: int) -> bytes:
    """Give an unknown field, which every decoder passes over: it makes a block as large as one likes."""
    return b"\xfa\x01" + varint(size) + os.urandom(1 << 10) * (size >> 10)


@pytest.mark.parametrize("claimed", [MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1, 2**63])
def test_a_bomb_in_an_archive_is_refused_within_bounded_memory(claimed: int, tmp_path: Path) -> None:
    folder = tmp_path / "consortium"
    folder.mkdir()
    bomb = zstandard_bomb(tmp_path / "bomb", entry(b"", length=claimed), b"\x05", 700).read_bytes()
    frame = forged_frame(b"", content=bomb, plain_bytes=MAX_PLAIN_BYTES)
    (folder / f"{0:020d}-{'0' * 16}.segment").write_bytes(frame)

    answer = read_within(folder, 640)

    assert answer.startswith("refused")
    assert "byte 0: " in answer
