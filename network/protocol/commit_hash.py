"""The commit hash: what a peer says its state became with each block.

Rules: `core/ledger/kvledger/kv_ledger.go` (addBlockCommitHash),
`core/ledger/kvledger/txmgmt/txmgr/update_batch_bytes.go` and `updates.proto`,
`core/ledger/internal/version/version.go`, `common/ledger/util/util.go`.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import TypeVar

from network.protocol.read_write_set import Version
from network.protocol.wire import varint

StateKey = tuple[str, str, bytes]
"""Namespace, collection ("" for public state), key bytes (in a collection: the 32 bytes of the key's hash)."""

K = TypeVar("K", bound=StateKey)


_BY_KEY = itemgetter(0)


def version_bytes(version: Version) -> bytes:
    """Encode a version in Fabric's order-preserving form: for each number a length byte and its big-endian bytes."""
    return _order_preserving(version.block_number) + _order_preserving(version.tx_number)


@lru_cache(maxsize=4096)  # the numbers of one block's transactions come again with the next
def _order_preserving(value: int) -> bytes:
    length = (value.bit_length() + 7) // 8
    return bytes((length,)) + value.to_bytes(length, "big")


def encode_updates(updates: Mapping[K, tuple[bytes | None, Version]]) -> bytes:
    """Encode the keys a block touched as Fabric's `Updates` message; value None: the key was deleted.

    In a collection the value is the value's hash. The namespace "" (channel configuration) is left out. An entry
    names its namespace and its collection only when they differ from the entry before.
    """
    entries: list[bytes] = []
    previous_namespace, previous_collection = "", ""
    versions: dict[Version, bytes] = {}
    for (namespace, collection, key), (value, version) in sorted(updates.items(), key=_BY_KEY):
        if not namespace:
            continue
        names = b""
        if namespace != previous_namespace:
            names = _field(b"\x0a", namespace.encode())
            previous_namespace, previous_collection = namespace, ""
        if collection != previous_collection:
            names += _field(b"\x12", collection.encode())
            previous_collection = collection
        encoded = versions.get(version)
        if encoded is None:
            encoded = versions[version] = _field(b"\x32", version_bytes(version))
        written = b"\x20\x01" if value is None else _field(b"\x2a", value)
        entry = b"".join((names, _field(b"\x1a", key), written, encoded))
        entries += (b"\x0a", varint(len(entry)), entry)
    return b"".join(entries)


def _field(tag: bytes, content: bytes) -> bytes:
    """Encode a length-delimited field; an empty one is left out, as proto3 does."""
    if not content:
        return b""
    return tag + varint(len(content)) + content


def commit_hash(flags: bytes, updates: Mapping[K, tuple[bytes | None, Version]], previous: bytes | None) -> bytes:
    """Derive the commit hash of a block (32 bytes) from its verdicts, its updates and the commit hash before it.

    `flags`: one validation code per transaction. `previous` is None for block 1: block 0 has no commit hash.
    """
    return commit_hash_of(flags, encode_updates(updates), previous)


def commit_hash_of(flags: bytes, encoded_updates: bytes, previous: bytes | None) -> bytes:
    """Derive it from updates that are encoded already."""
    return sha256(varint(len(flags)) + flags + encoded_updates + (previous or b"")).digest()
