"""Read-write sets: what a transaction read and wrote, public and hashed.

Messages: `ledger/rwset/rwset.proto`, `ledger/rwset/kvrwset/kv_rwset.proto`.
Rules of delete: `core/ledger/kvledger/txmgmt/rwsetutil/rwset_proto_util.go` (an empty value, or the hash of one, deletes).
"""

from typing import NamedTuple


class Version(NamedTuple):
    """The position of the transaction that wrote a key last."""

    block_number: int
    tx_number: int


class KeyRead(NamedTuple):
    """A public key read; `version` None: the key did not exist."""

    key: str
    version: Version | None


class KeyWrite(NamedTuple):
    """A public key written; a delete has an empty value, whatever its flag says."""

    key: str
    is_delete: bool
    value: bytes


class MetadataEntry(NamedTuple):
    """One named metadata value of a key, e.g. `VALIDATION_PARAMETER`."""

    name: str
    value: bytes


class MetadataWrite(NamedTuple):
    """New metadata of a public key; no entries: metadata removed."""

    key: str
    entries: tuple[MetadataEntry, ...]


class RangeQuery(NamedTuple):
    """A range read: keys from `start_key` to `end_key`, as raw reads or as a Merkle summary (degree, level, hashes)."""

    start_key: str
    end_key: str
    exhausted: bool
    raw_reads: tuple[KeyRead, ...] | None
    merkle_summary: tuple[int, int, tuple[bytes, ...]] | None


class HashedRead(NamedTuple):
    """A private key read, by SHA-256 of the key."""

    key_hash: bytes
    version: Version | None


class HashedWrite(NamedTuple):
    """A private key written, by SHA-256 of key and value."""

    key_hash: bytes
    is_delete: bool
    value_hash: bytes
    is_purge: bool


class HashedMetadataWrite(NamedTuple):
    """New metadata of a private key."""

    key_hash: bytes
    entries: tuple[MetadataEntry, ...]


class CollectionSet(NamedTuple):
    """What a transaction did to one collection, hashed; `private_set_hash` is SHA-256 of the private KVRWSet bytes."""

    collection: str
    reads: tuple[HashedRead, ...]
    writes: tuple[HashedWrite, ...]
    metadata_writes: tuple[HashedMetadataWrite, ...]
    private_set_hash: bytes


class NamespaceSet(NamedTuple):
    """What a transaction did to one namespace (chaincode), in the order of the message."""

    namespace: str
    reads: tuple[KeyRead, ...]
    range_queries: tuple[RangeQuery, ...]
    writes: tuple[KeyWrite, ...]
    metadata_writes: tuple[MetadataWrite, ...]
    collections: tuple[CollectionSet, ...]
