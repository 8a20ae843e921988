"""Private writes at commit: found, compared with the hashes in the block, and laid over private state.

Rules: `gossip/privdata/{coordinator,pvtdataprovider}.go` (who is eligible, where they come from),
`core/ledger/kvledger/txmgmt/validation/batch_preparer.go` (what is applied). Pure but for the readers it is given.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.commit_hash import StateKey
from network.protocol.errors import DecodeError
from network.protocol.transaction import Transaction
from network.protocol.wire import parse


class PrivatePart(NamedTuple):
    """What a block says of one transaction's writes to one collection; `content_hash`: of the private KVRWSet."""

    tx_id: str
    tx_number: int
    namespace: str
    collection: str
    content_hash: bytes


class PrivateKeyValue(NamedTuple):
    """A private key with the value that a transaction gave it."""

    key: str
    value: bytes


def private_parts(transactions: Iterable[Transaction]) -> Iterator[PrivatePart]:
    """Name the private writes of a block's transactions, valid or not."""
    for transaction in transactions:
        if transaction.action is None:
            continue
        for namespace in transaction.action.writes:
            for part in namespace.collections:
                if part.private_set_hash:
                    yield PrivatePart(
                        transaction.tx_id,
                        transaction.tx_number,
                        namespace.namespace,
                        part.collection,
                        part.private_set_hash,
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


def key_values(part: PrivatePart, content: bytes) -> Mapping[StateKey, PrivateKeyValue]:
    """Give what a KVRWSet writes, by hashed key; deletes are none of it."""
    message = parse(kv_rwset_pb2.KVRWSet, content, "KVRWSet")
    return {
        (part.namespace, part.collection, sha256(write.key.encode()).digest()): PrivateKeyValue(write.key, write.value)
        for write in message.writes
        if write.value and not write.is_delete
    }


def deleted_keys(content: bytes) -> list[str]:
    """Give the keys that a KVRWSet deletes."""
    message = parse(kv_rwset_pb2.KVRWSet, content, "KVRWSet")
    return [write.key for write in message.writes if write.is_delete or not write.value]
