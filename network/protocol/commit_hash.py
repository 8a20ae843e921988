"""The commit hash: what a peer says its state became with each block.

Rules: `core/ledger/kvledger/kv_ledger.go` (addBlockCommitHash),
`core/ledger/kvledger/txmgmt/txmgr/update_batch_bytes.go` and `updates.proto`,
`core/ledger/internal/version/version.go`, `common/ledger/util/util.go`.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import TypeVar

from network.protocol.read_write_set import Version
from network.protocol.wire import append_varint, varint

StateKey = tuple[str, str, bytes]
"""Namespace, collection ("" for public state), key bytes (in a collection: the 32 bytes of the key's hash)."""

K = TypeVar("K", bound=StateKey)


def version_bytes(version: Version) -> bytes:
    """Encode a version in Fabric's order-preserving form: for each number a length byte and its big-endian bytes."""
    return _order_preserving(version.block_number) + _order_preserving(version.tx_number)


def _order_preserving(value: int) -> bytes:
    length = (value.bit_length() + 7) // 8
    return bytes((length,)) + value.to_bytes(length, "big")


def encode_updates(updates: Mapping[K, tuple[bytes | None, Version]]) -> bytes:
    """Encode the keys a block touched as Fabric's `Updates` message; value None: the key was deleted.

    In a collection the value is the value's hash. The namespace "" (channel configuration) is left out. An entry
    names its namespace and its collection only when they differ from the entry before.
    """
    out = bytearray()
    previous_namespace, previous_collection = "", ""
    version_cache: dict[Version, bytes] = {}
    for (namespace, collection, key), (value, version) in sorted(updates.items()):
        if not namespace:
            continue
        entry = bytearray()
        if namespace != previous_namespace:
            _append_bytes(entry, 0x0A, namespace.encode())
            previous_namespace, previous_collection = namespace, ""
        if collection != previous_collection:
            _append_bytes(entry, 0x12, collection.encode())
            previous_collection = collection
        _append_bytes(entry, 0x1A, key)
        if value is None:
            entry += b"\x20\x01"
        else:
            _append_bytes(entry, 0x2A, value)
        encoded = version_cache.get(version)
        if encoded is None:
            encoded = version_cache[version] = version_bytes(version)
        _append_bytes(entry, 0x32, encoded)
        _append_bytes(out, 0x0A, entry, keep_empty=True)
    return bytes(out)


def _append_bytes(out: bytearray, tag: int, content: bytes | bytearray, *, keep_empty: bool = False) -> None:
    if content or keep_empty:
        out.append(tag)
        append_varint(out, len(content))
        out += content


def commit_hash(flags: bytes, updates: Mapping[K, tuple[bytes | None, Version]], previous: bytes | None) -> bytes:
    """Derive the commit hash of a block (32 bytes) from its verdicts, its updates and the commit hash before it.

    `flags`: one validation code per transaction. `previous` is None for block 1: block 0 has no commit hash.
    """
    return sha256(varint(len(flags)) + flags + encode_updates(updates) + (previous or b"")).digest()
