"""Read-write sets: what a transaction read and wrote, public and hashed.

Messages: `ledger/rwset/rwset.proto`, `ledger/rwset/kvrwset/kv_rwset.proto`. Rules of delete:
`core/ledger/kvledger/txmgmt/rwsetutil/rwset_proto_util.go` (an empty value, or the hash of one, deletes).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Protocol, TypeVar

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.wire import parse

_HASH_OF_NOTHING = sha256(b"").digest()
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class RepeatedField(Protocol[T_co]):
    """What is used of a message's repeated field."""

    def __len__(self) -> int:
        """Count the elements."""

    def __getitem__(self, index: int, /) -> T_co:
        """Give one element."""


class Version(NamedTuple):
    """The position of the transaction that wrote a key last."""

    block_number: int
    tx_number: int


class KeyRead(NamedTuple):
    """A public key read; `version` None: the key did not exist."""

    key: str
    version: Version | None


class KeyWrite(NamedTuple):
    """A public key written; `is_delete` by Fabric's rule: flagged so, or the value is empty."""

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
    """A private key written, by SHA-256 of key and value.

    `is_delete` by Fabric's rule (flag, no hash, hash of nothing).
    """

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


class CollectionWrites(NamedTuple):
    """The part of a `CollectionSet` that changes state."""

    collection: str
    writes: tuple[HashedWrite, ...]
    metadata_writes: tuple[HashedMetadataWrite, ...]
    private_set_hash: bytes


class NamespaceWrites(NamedTuple):
    """The part of a `NamespaceSet` that changes state."""

    namespace: str
    writes: tuple[KeyWrite, ...]
    metadata_writes: tuple[MetadataWrite, ...]
    collections: tuple[CollectionWrites, ...]


def decode_writes(content: bytes) -> tuple[NamespaceWrites, ...]:
    """Decode what a TxReadWriteSet changes, in the order of the message; its reads are parsed but not kept.

    A namespace that was only read publicly is not in the answer. Raises DecodeError where any part of the set, reads
    included, does not parse (`core/ledger/kvledger/txmgmt/rwsetutil/rwset_proto_util.go`, TxRwSetFromProtoMsg).
    """
    found = []
    for entry in parse(rwset_pb2.TxReadWriteSet, content, "TxReadWriteSet").ns_rwset:
        public = parse(kv_rwset_pb2.KVRWSet, entry.rwset, "KVRWSet")
        collections = [
            _collection_writes(part, parse(kv_rwset_pb2.HashedRWSet, part.hashed_rwset, "HashedRWSet"))
            for part in entry.collection_hashed_rwset
        ]
        if public.writes or public.metadata_writes or collections:
            found.append(_namespace_writes(entry.namespace, public, collections))
    return tuple(found)


def view_writes(result: Any) -> tuple[NamespaceWrites, ...]:  # noqa: ANN401  part of a view has no static type
    """Give the same of the TxReadWriteSet of a view (`network.protocol.envelope_view`)."""
    found = []
    entries = result.ns_rwset
    for index in range(len(entries)):
        entry = entries[index]
        public, parts = entry.rwset, entry.collection_hashed_rwset
        writes, metadata_writes = public.writes, public.metadata_writes
        if len(writes) or len(metadata_writes) or len(parts):
            collections = [_collection_writes(part, part.hashed_rwset) for part in elements(parts)]
            found.append(
                NamespaceWrites(
                    entry.namespace, _public_writes(writes), _public_metadata(metadata_writes), tuple(collections)
                )
            )
    return tuple(found)


def _namespace_writes(
    namespace: str, public: kv_rwset_pb2.KVRWSet, collections: list[CollectionWrites]
) -> NamespaceWrites:
    return NamespaceWrites(
        namespace, _public_writes(public.writes), _public_metadata(public.metadata_writes), tuple(collections)
    )


def _collection_writes(
    part: rwset_pb2.CollectionHashedReadWriteSet, hashed: kv_rwset_pb2.HashedRWSet
) -> CollectionWrites:
    return CollectionWrites(part.collection_name, _hashed_writes(hashed), _hashed_metadata(hashed), part.pvt_rwset_hash)


def decode_read_write_set(content: bytes) -> tuple[NamespaceSet, ...]:
    """Decode a whole TxReadWriteSet, in the order of the message.

    Raises DecodeError where any part of it does not parse.
    """
    result = parse(rwset_pb2.TxReadWriteSet, content, "TxReadWriteSet")
    namespaces = []
    for entry in result.ns_rwset:
        public = parse(kv_rwset_pb2.KVRWSet, entry.rwset, "KVRWSet")
        collections = []
        for part in entry.collection_hashed_rwset:
            hashed = parse(kv_rwset_pb2.HashedRWSet, part.hashed_rwset, "HashedRWSet")
            reads = tuple(
                HashedRead(read.key_hash, _version(read.version) if read.HasField("version") else None)
                for read in hashed.hashed_reads
            )
            collections.append(
                CollectionSet(
                    part.collection_name, reads, _hashed_writes(hashed), _hashed_metadata(hashed), part.pvt_rwset_hash
                )
            )
        namespaces.append(
            NamespaceSet(
                entry.namespace,
                _reads(public.reads),
                tuple(_range_query(query) for query in public.range_queries_info),
                _public_writes(public.writes),
                _public_metadata(public.metadata_writes),
                tuple(collections),
            )
        )
    return tuple(namespaces)


def _version(version: kv_rwset_pb2.Version) -> Version:
    return Version(version.block_num, version.tx_num)


def _reads(reads: Iterable[kv_rwset_pb2.KVRead]) -> tuple[KeyRead, ...]:
    return tuple(KeyRead(read.key, _version(read.version) if read.HasField("version") else None) for read in reads)


def _range_query(query: kv_rwset_pb2.RangeQueryInfo) -> RangeQuery:
    kind = query.WhichOneof("reads_info")
    raw = _reads(query.raw_reads.kv_reads) if kind == "raw_reads" else None
    merkle = None
    if kind == "reads_merkle_hashes":
        summary = query.reads_merkle_hashes
        merkle = (summary.max_degree, summary.max_level, tuple(summary.max_level_hashes))
    return RangeQuery(query.start_key, query.end_key, query.itr_exhausted, raw, merkle)


def elements(field: RepeatedField[T]) -> Sequence[T]:
    """Give the elements of a repeated field of a message.

    The library's own iteration ends by raising and catching an IndexError, which costs more than reading the one or
    two elements that most fields have.
    """
    size = len(field)
    if size == 0:
        return ()
    if size == 1:
        return (field[0],)
    return [field[index] for index in range(size)]


def _public_writes(writes: RepeatedField[kv_rwset_pb2.KVWrite]) -> tuple[KeyWrite, ...]:
    found = []
    for index in range(len(writes)):
        write = writes[index]
        value = write.value
        found.append(KeyWrite(write.key, write.is_delete or not value, value))
    return tuple(found)


def _public_metadata(writes: RepeatedField[kv_rwset_pb2.KVMetadataWrite]) -> tuple[MetadataWrite, ...]:
    if not len(writes):
        return ()
    return tuple([MetadataWrite(write.key, _entries(write.entries)) for write in elements(writes)])


def _hashed_writes(hashed: kv_rwset_pb2.HashedRWSet) -> tuple[HashedWrite, ...]:
    return tuple(
        [
            HashedWrite(
                w.key_hash,
                w.is_delete or not w.value_hash or w.value_hash == _HASH_OF_NOTHING,
                w.value_hash,
                w.is_purge,
            )
            for w in elements(hashed.hashed_writes)
        ]
    )


def _hashed_metadata(hashed: kv_rwset_pb2.HashedRWSet) -> tuple[HashedMetadataWrite, ...]:
    return tuple([HashedMetadataWrite(w.key_hash, _entries(w.entries)) for w in elements(hashed.metadata_writes)])


def _entries(entries: Iterable[kv_rwset_pb2.KVMetadataEntry]) -> tuple[MetadataEntry, ...]:
    return tuple([MetadataEntry(entry.name, entry.value) for entry in entries])
