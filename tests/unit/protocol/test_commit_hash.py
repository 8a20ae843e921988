"""Encoding of what enters the commit hash, by hand-made bytes (`update_batch_bytes.go`)."""

import hashlib

import pytest

from network.protocol.commit_hash import commit_hash, encode_updates, version_bytes
from network.protocol.read_write_set import Version


@pytest.mark.parametrize(
    ("version", "encoded"),
    [
        (Version(0, 0), "0000"),
        (Version(1, 0), "010100"),
        (Version(255, 256), "01ff020100"),
        (Version(65536, 7), "030100000107"),
        (Version(2**63 - 1, 1), "087fffffffffffffff0101"),
    ],
)
def test_versions_keep_their_order_as_bytes(version: Version, encoded: str) -> None:
    assert version_bytes(version).hex() == encoded


def test_names_namespace_and_collection_once_and_sorts_by_bytes() -> None:
    version = Version(2, 0)
    updates = {
        ("b", "", b"k"): (b"v", version),
        ("a", "c1", b"h2"): (b"w", version),
        ("a", "c1", b"h1"): (None, version),
        ("a", "", b"z"): (b"x", version),
        ("", "", b"CHANNEL_CONFIG_ENV_BYTES"): (b"config", version),
    }

    encoded = encode_updates(updates)

    entries = [
        b"\x0a\x01a\x1a\x01z\x2a\x01x\x32\x03\x01\x02\x00",
        b"\x12\x02c1\x1a\x02h1\x20\x01\x32\x03\x01\x02\x00",
        b"\x1a\x02h2\x2a\x01w\x32\x03\x01\x02\x00",
        b"\x0a\x01b\x1a\x01k\x2a\x01v\x32\x03\x01\x02\x00",
    ]
    assert encoded == b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in entries)


def test_a_collection_that_comes_first_in_its_namespace_carries_both_names() -> None:
    encoded = encode_updates({("a", "c", b"h"): (b"v", Version(1, 0))})

    assert encoded == b"\x0a\x11\x0a\x01a\x12\x01c\x1a\x01h\x2a\x01v\x32\x03\x01\x01\x00"


def test_the_same_collection_name_in_another_namespace_is_named_again() -> None:
    version = Version(1, 0)

    encoded = encode_updates({("a", "c", b"h"): (b"v", version), ("b", "c", b"h"): (b"v", version)})

    assert encoded.count(b"\x12\x01c") == 2


def test_the_hash_covers_flags_updates_and_the_hash_before() -> None:
    flags = bytes([0]) * 300
    expected = hashlib.sha256(b"\xac\x02" + flags + b"before").digest()

    assert commit_hash(flags, {}, b"before") == expected
    assert commit_hash(flags, {}, None) == hashlib.sha256(b"\xac\x02" + flags).digest()
