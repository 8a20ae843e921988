"""Read-write sets in the making: what one simulation reads and writes, and the bytes a peer endorses of it.

The bytes depend on what was done, not on the order in which it was done: namespaces, collections, keys and metadata
names stand in the order of their text, private ones too although only their hashes are shown. Range queries alone keep
the order in which they were opened. So every peer that simulates the same call gives the same bytes.

Rules: `core/ledger/kvledger/txmgmt/rwsetutil/rwset_builder.go`, `rwset_proto_util.go`,
`core/ledger/kvledger/txmgmt/txmgr/query_executor.go` and `tx_simulator.go` (what is recorded when).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from google.protobuf.message import Message

from network.protocol.range_query import encode_read, record_range_query
from network.protocol.read_write_set import KeyRead, RangeQuery, Version


@dataclass(frozen=True, slots=True)
class _PrivateWrite:
    value: bytes
    is_purge: bool


@dataclass(slots=True)
class _Collection:
    reads: dict[str, Version | None] = field(default_factory=dict)
    writes: dict[str, _PrivateWrite] = field(default_factory=dict)
    metadata_writes: dict[str, dict[str, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Namespace:
    reads: dict[str, Version | None] = field(default_factory=dict)
    writes: dict[str, bytes] = field(default_factory=dict)
    metadata_writes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    range_queries: dict[tuple[str, str, bool], RangeQuery] = field(default_factory=dict)
    collections: dict[str, _Collection] = field(default_factory=dict)


class ReadWriteSetBuilder:
    """What one simulation did, recorded call by call; holds private values until it is dropped.

    Whether a call is allowed at all (a write after a paginated query, a name of a collection, an empty key) is the
    simulator's to decide. Names and keys must be text that UTF-8 can write.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}

    # --- public data

    def read(self, namespace: str, key: str, version: Version | None) -> None:
        """Record that a committed key was read; `version` None: it did not exist.

        A simulation reads one state, so a key's version cannot change on the way; should it, the first one is kept
        and validation finds out. The simulation's own writes are never what is read.
        """
        self._namespace(namespace).reads.setdefault(key, version)

    def write(self, namespace: str, key: str, value: bytes | None) -> None:
        """Record a write; None and the empty value delete. The last write of a key counts."""
        self._namespace(namespace).writes[key] = value or b""

    def write_metadata(self, namespace: str, key: str, entries: Mapping[str, bytes]) -> None:
        """Record new metadata of a key; no entries: metadata removed. The last write counts."""
        self._namespace(namespace).metadata_writes[key] = dict(entries)

    def range_query(
        self, namespace: str, start_key: str, end_key: str, *, exhausted: bool, reads: Iterable[KeyRead]
    ) -> None:
        """Record a range from everything that was fetched of it, in the order of the keys.

        `end_key` is the end as asked when the range ran dry (`exhausted`), else the last key fetched (empty: none was).
        Ranges are recorded when the simulation ends, in the order in which they were opened; of ranges with the same
        bounds the first is kept.
        """
        record = record_range_query(start_key, end_key, exhausted=exhausted, reads=reads)
        self.recorded_range_query(namespace, record)

    def recorded_range_query(self, namespace: str, record: RangeQuery) -> None:
        """Record a range that was condensed while it was fetched (`range_query.RangeReads`); else as `range_query`."""
        bounds = record.start_key, record.end_key, record.exhausted
        self._namespace(namespace).range_queries.setdefault(bounds, record)

    # --- private data

    def private_read_hash(self, namespace: str, collection: str, key: str, version: Version | None) -> None:
        """Record that a private key or its hash was read; `version` None: it did not exist. The first read counts."""
        self._collection(namespace, collection).reads.setdefault(key, version)

    def private_write(self, namespace: str, collection: str, key: str, value: bytes | None) -> None:
        """Record a private write; None and the empty value delete. The last write or purge of a key counts."""
        self._collection(namespace, collection).writes[key] = _PrivateWrite(value or b"", is_purge=False)

    def private_write_metadata(self, namespace: str, collection: str, key: str, entries: Mapping[str, bytes]) -> None:
        """Record new metadata of a private key; no entries: metadata removed. The last write counts."""
        self._collection(namespace, collection).metadata_writes[key] = dict(entries)

    def purge(self, namespace: str, collection: str, key: str) -> None:
        """Record that a private key is removed with its history. The last write or purge of a key counts."""
        self._collection(namespace, collection).writes[key] = _PrivateWrite(b"", is_purge=True)

    # --- results

    def public_bytes(self) -> bytes:
        """Give the TxReadWriteSet: public data and hashes of private data; no bytes when nothing was recorded."""
        private = self.private_bytes_by_collection()
        result = rwset_pb2.TxReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
        for name, namespace in sorted(self._namespaces.items()):
            entry = result.ns_rwset.add(namespace=name, rwset=_serialize(_public_set(namespace)))
            for collection_name, collection in sorted(namespace.collections.items()):
                part = entry.collection_hashed_rwset.add(
                    collection_name=collection_name, hashed_rwset=_serialize(_hashed_set(collection))
                )
                content = private.get((name, collection_name))
                if content is not None:
                    part.pvt_rwset_hash = sha256(content).digest()
        return _serialize(result)

    def private_bytes_by_collection(self) -> dict[tuple[str, str], bytes]:
        """Give the private KVRWSet of each (namespace, collection) that was written, in the order of the names.

        It holds keys and values of writes, and the bare keys of metadata writes.
        """
        return {
            (name, collection_name): _serialize(_private_set(collection))
            for name, namespace in sorted(self._namespaces.items())
            for collection_name, collection in sorted(namespace.collections.items())
            if collection.writes or collection.metadata_writes
        }

    def private_rwset(self) -> bytes | None:
        """Give the TxPvtReadWriteSet, None when nothing private was written."""
        private = self.private_bytes_by_collection()
        if not private:
            return None
        result = rwset_pb2.TxPvtReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
        for (name, collection_name), content in private.items():
            if not result.ns_pvt_rwset or result.ns_pvt_rwset[-1].namespace != name:
                result.ns_pvt_rwset.add(namespace=name)
            result.ns_pvt_rwset[-1].collection_pvt_rwset.add(collection_name=collection_name, rwset=content)
        return _serialize(result)

    def _namespace(self, name: str) -> _Namespace:
        return self._namespaces.setdefault(name, _Namespace())

    def _collection(self, namespace: str, name: str) -> _Collection:
        return self._namespace(namespace).collections.setdefault(name, _Collection())


def _public_set(namespace: _Namespace) -> kv_rwset_pb2.KVRWSet:
    result = kv_rwset_pb2.KVRWSet()
    for key, version in sorted(namespace.reads.items()):
        encode_read(result.reads.add(), KeyRead(key, version))
    for record in namespace.range_queries.values():
        _encode_range_query(result.range_queries_info.add(), record)
    for key, value in sorted(namespace.writes.items()):
        result.writes.add(key=key, is_delete=not value, value=value)
    for key, entries in sorted(namespace.metadata_writes.items()):
        _encode_entries(result.metadata_writes.add(key=key), entries)
    return result


def _hashed_set(collection: _Collection) -> kv_rwset_pb2.HashedRWSet:
    result = kv_rwset_pb2.HashedRWSet()
    for key, version in sorted(collection.reads.items()):
        read = result.hashed_reads.add(key_hash=_hash(key))
        if version is not None:
            read.version.SetInParent()  # version 0.0 is a version
            read.version.block_num, read.version.tx_num = version
    for key, write in sorted(collection.writes.items()):
        value_hash = sha256(write.value).digest() if write.value else b""
        result.hashed_writes.add(
            key_hash=_hash(key), is_delete=not write.value, value_hash=value_hash, is_purge=write.is_purge
        )
    for key, entries in sorted(collection.metadata_writes.items()):
        _encode_entries(result.metadata_writes.add(key_hash=_hash(key)), entries)
    return result


def _private_set(collection: _Collection) -> kv_rwset_pb2.KVRWSet:
    result = kv_rwset_pb2.KVRWSet()
    for key, write in sorted(collection.writes.items()):
        result.writes.add(key=key, is_delete=not write.value, value=write.value)
    for key in sorted(collection.metadata_writes):
        result.metadata_writes.add(key=key)
    return result


def _encode_range_query(message: kv_rwset_pb2.RangeQueryInfo, record: RangeQuery) -> None:
    message.start_key, message.end_key, message.itr_exhausted = record.start_key, record.end_key, record.exhausted
    if record.merkle_summary is not None:
        max_degree, max_level, hashes = record.merkle_summary
        summary = message.reads_merkle_hashes
        summary.max_degree, summary.max_level = max_degree, max_level
        summary.max_level_hashes.extend(hashes)
    elif record.raw_reads is not None:
        message.raw_reads.SetInParent()
        for read in record.raw_reads:
            encode_read(message.raw_reads.kv_reads.add(), read)


def _encode_entries(
    message: kv_rwset_pb2.KVMetadataWrite | kv_rwset_pb2.KVMetadataWriteHash, entries: Mapping[str, bytes]
) -> None:
    for name, value in sorted(entries.items()):
        message.entries.add(name=name, value=value)


def _hash(key: str) -> bytes:
    return sha256(key.encode()).digest()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
