"""Private write sets beside the blocks: what a block expects of them, what is found, what is acceptable.

Rules: `gossip/privdata/{coordinator,pvtdataprovider}.go` (what a block asks for), `core/ledger/pvtdatastorage/store.go`
and `core/ledger/kvledger/hashcheck_pvtdata.go` (purged keys). Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.errors import DecodeError
from network.protocol.read_write_set import HashedWrite
from network.protocol.transaction import Transaction
from network.protocol.wire import parse

IsPurged = Callable[[bytes], bool]
"""Tells by the hash of a key whether it was purged."""


class PrivatePart(NamedTuple):
    """What a block says of one transaction's writes to one collection.

    `content_hash`: SHA-256 of the private KVRWSet. `writes`: the same writes by hash.
    """

    tx_id: str
    tx_number: int
    namespace: str
    collection: str
    content_hash: bytes
    writes: tuple[HashedWrite, ...]


class PrivateWrites(NamedTuple):
    """A private KVRWSet, read: keys with their new values (None: deleted), and keys whose metadata was written."""

    values: tuple[tuple[str, bytes | None], ...]
    metadata_keys: tuple[str, ...]


def private_parts(transactions: Iterable[Transaction]) -> Iterator[PrivatePart]:
    """Name the private writes of a block's transactions, valid or not."""
    for transaction in transactions:
        if transaction.action is None:
            continue
        for namespace in transaction.action.writes:
            for part in namespace.collections:
                if part.writes or part.metadata_writes:
                    yield PrivatePart(
                        transaction.tx_id,
                        transaction.tx_number,
                        namespace.namespace,
                        part.collection,
                        part.private_set_hash,
                        part.writes,
                    )


def find_private_writes(part: PrivatePart, endorsed: Iterable[bytes]) -> bytes | None:
    """Find the private writes that the block means among endorsed ones (TxPvtReadWriteSet); None: not there."""
    for content in endorsed:
        try:
            message = parse(rwset_pb2.TxPvtReadWriteSet, content, "TxPvtReadWriteSet")
        except DecodeError:
            continue
        for namespace in message.ns_pvt_rwset:
            if namespace.namespace != part.namespace:
                continue
            for collection in namespace.collection_pvt_rwset:
                found = collection.rwset
                if collection.collection_name == part.collection and sha256(found).digest() == part.content_hash:
                    return bytes(found)
    return None


def only_collections(content: bytes, wanted: Callable[[str, str], bool]) -> bytes | None:
    """Give of endorsed private writes those to wanted collections (namespace, collection); None: there are none."""
    message = parse(rwset_pb2.TxPvtReadWriteSet, content, "TxPvtReadWriteSet")
    result = rwset_pb2.TxPvtReadWriteSet(data_model=message.data_model)
    for namespace in message.ns_pvt_rwset:
        kept = [part for part in namespace.collection_pvt_rwset if wanted(namespace.namespace, part.collection_name)]
        if kept:
            result.ns_pvt_rwset.add(namespace=namespace.namespace, collection_pvt_rwset=kept)
    return bytes(result.SerializeToString(deterministic=True)) if result.ns_pvt_rwset else None


def read_private_writes(content: bytes) -> PrivateWrites:
    """Read a private KVRWSet; raises DecodeError."""
    message = parse(kv_rwset_pb2.KVRWSet, content, "KVRWSet")
    return PrivateWrites(
        tuple([(write.key, None if write.is_delete or not write.value else write.value) for write in message.writes]),
        tuple([write.key for write in message.metadata_writes]),
    )


def without_purged(content: bytes, is_purged: IsPurged) -> bytes:
    """Take the writes of purged keys out of a KVRWSet; what cannot be read holds no key, and is given back.

    An empty set stays where nothing is left: it says that there was something, and that nobody has to look for it.
    """
    try:
        message = parse(kv_rwset_pb2.KVRWSet, content, "KVRWSet")
    except DecodeError:
        return content
    kept = [write for write in message.writes if not is_purged(key_hash(write.key))]
    if len(kept) == len(message.writes):
        return content
    rest = kv_rwset_pb2.KVRWSet(writes=kept, metadata_writes=message.metadata_writes)
    return bytes(rest.SerializeToString(deterministic=True))


def acceptable_later(part: PrivatePart, content: bytes, is_purged: IsPurged) -> bytes | None:
    """Give what may be kept of private writes that come long after their block, None: nothing of them.

    `is_purged` tells what this peer knows to be purged since. Whoever gives them may have purged more, or less, so the
    hash of the whole does not always tell; then every single value has to have its hash. A transaction that wrote
    metadata alone has no value to check, so nothing is accepted for it.
    """
    expected = {write.key_hash: write.value_hash for write in part.writes}
    if not expected:
        return None
    wanted = {hashed: value_hash for hashed, value_hash in expected.items() if not is_purged(hashed)}
    if not wanted:
        return b""
    try:
        message = parse(kv_rwset_pb2.KVRWSet, content, "KVRWSet")
    except DecodeError:
        return None
    if len(wanted) == len(expected) == len(message.writes):
        return content if sha256(content).digest() == part.content_hash else None
    kept = []
    for write in message.writes:
        value_hash = wanted.pop(key_hash(write.key), None)
        if value_hash is None:
            continue
        if sha256(write.value).digest() != value_hash:  # as in Fabric a delete does not pass either
            return None
        kept.append(write)
    if wanted:  # the giver has seen purges that this peer has not: it will see them too, and then ask again
        return None
    return bytes(kv_rwset_pb2.KVRWSet(writes=kept).SerializeToString(deterministic=True))


def key_hash(key: str) -> bytes:
    """Give the hash that stands for a private key on the channel."""
    return sha256(key.encode()).digest()
