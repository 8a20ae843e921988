"""Frames of the archive: what was written comes back, and whatever else is there is refused by name."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kvr_sync.archive import frame as frames
from kvr_sync.archive.frame import (
    HEADER_BYTES,
    ArchivedBlock,
    FrameError,
    NewerFormatError,
    check_content,
    decode_content,
    decode_header,
    encode_frame,
    split_run,
)
from kvr_sync.archive.limits import MAX_CONTENT_BYTES, MAX_FRAME_BLOCKS, MAX_PLAIN_BYTES
from network.protocol.limits import MAX_BLOCK_BYTES, MAX_BLOCK_NUMBER
from tests.support.archived import entry, forged_frame

BLOCK = entry(b"a block")


def decode(frame: bytes) -> list[ArchivedBlock]:
    header = decode_header(frame[:HEADER_BYTES])
    content = frame[HEADER_BYTES:]
    check_content(header, content)
    return list(decode_content(header, content))


@given(
    st.integers(0, MAX_BLOCK_NUMBER - 20),
    st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, 2**64 - 1)), min_size=1, max_size=8),
)
def test_what_is_encoded_comes_back(first: int, contents: list[tuple[bytes, int]]) -> None:
    blocks = [ArchivedBlock(number, *content) for number, content in enumerate(contents, first)]

    assert decode(encode_frame(blocks)) == blocks


def test_the_format_is_the_documented_one() -> None:
    blocks = [ArchivedBlock(7, b"one block", 1), ArchivedBlock(8, b"another", 0)]
    plain = entry(b"one block", seen=1) + entry(b"another")
    content = zstandard.compress(plain, 1)

    assert encode_frame(blocks) == forged_frame(plain, first=7, blocks=2, content=content)


def test_a_run_is_one_frame_unless_it_is_very_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES", 100)
    sizes = [40, 60, 1, 500, 99, 1, 1]
    blocks = [ArchivedBlock(number, bytes(size), 0) for number, size in enumerate(sizes)]

    parts = [[len(block.content) for block in part] for part in split_run(blocks)]

    assert parts == [[40, 60], [1], [500], [99, 1], [1]]
    assert list(split_run([])) == []


@pytest.mark.parametrize("length", range(HEADER_BYTES))
def test_a_header_that_is_short_is_no_header(length: int) -> None:
    with pytest.raises(FrameError):
        decode_header(forged_frame(BLOCK)[:length])


def test_every_bit_of_a_header_counts() -> None:
    header = forged_frame(BLOCK)[:HEADER_BYTES]
    for position in range(HEADER_BYTES * 8):
        spoilt = bytearray(header)
        spoilt[position // 8] ^= 1 << position % 8

        with pytest.raises(FrameError):
            decode_header(bytes(spoilt))


def test_every_byte_of_a_content_counts() -> None:
    frame = forged_frame(BLOCK)
    header = decode_header(frame[:HEADER_BYTES])
    for position in range(HEADER_BYTES, len(frame)):
        spoilt = bytearray(frame)
        spoilt[position] ^= 1

        with pytest.raises(FrameError, match="not what was written"):
            check_content(header, bytes(spoilt[HEADER_BYTES:]))


def test_a_newer_format_is_told_from_damage() -> None:
    with pytest.raises(NewerFormatError, match="format 2, this version reads 1"):
        decode_header(forged_frame(BLOCK, form=2)[:HEADER_BYTES])


@pytest.mark.parametrize(
    "claims",
    [
        {"blocks": 0},
        {"blocks": MAX_FRAME_BLOCKS + 1},
        {"first": MAX_BLOCK_NUMBER + 1},
        {"first": MAX_BLOCK_NUMBER, "blocks": 2},
        {"content_bytes": 0},
        {"content_bytes": MAX_CONTENT_BYTES + 1},
        {"plain_bytes": 0},
        {"plain_bytes": MAX_PLAIN_BYTES + 1},
    ],
    ids=repr,
)
def test_a_header_beyond_the_limits_is_refused(claims: dict[str, int]) -> None:
    with pytest.raises(FrameError, match="beyond the limits"):
        decode_header(forged_frame(BLOCK, **claims)[:HEADER_BYTES])  # type: ignore[arg-type]  # bytes are not among these claims


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (forged_frame(BLOCK, blocks=2, plain_bytes=100), "block 1 is missing"),
        (forged_frame(BLOCK[:-1], plain_bytes=len(BLOCK)), "block 0 ends too early"),
        (forged_frame(BLOCK + b"x", plain_bytes=len(BLOCK)), "more in the frame"),
        (forged_frame(BLOCK, plain_bytes=len(BLOCK) + 1), "more in the frame"),
        (forged_frame(BLOCK, plain_bytes=len(BLOCK) - 1), "claims 7 bytes"),
        (forged_frame(entry(b"")), "claims 0 bytes"),
        (forged_frame(entry(b"", length=2**64 - 1)), f"claims {2**64 - 1} bytes"),
        (forged_frame(entry(b"", length=MAX_BLOCK_BYTES + 1), plain_bytes=MAX_PLAIN_BYTES), "beyond the frame"),
        (forged_frame(BLOCK, content=b"no compressed data"), "cannot be decompressed"),
        (forged_frame(BLOCK, content=zstandard.compress(BLOCK)[:-3]), "block 0"),
        # A window of 2 GiB: the decompressor would have to keep as much.
        (forged_frame(BLOCK, content=b"\x28\xb5\x2f\xfd\x00" + bytes(((31 - 10) << 3,)) + b"\x01\0\0"), "decompressed"),
    ],
)
def test_a_forged_content_is_refused(frame: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        decode(frame)
