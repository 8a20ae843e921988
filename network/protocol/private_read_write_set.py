"""Private write sets: the values behind the hashes, as members of a collection hold them.

Messages: `ledger/rwset/rwset.proto` (TxPvtReadWriteSet), `ledger/rwset/kvrwset/kv_rwset.proto`. A private set holds
writes and metadata writes alone (`core/ledger/kvledger/txmgmt/rwsetutil/rwset_builder.go`).
"""

from typing import NamedTuple

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from network.protocol.read_write_set import KeyWrite
from network.protocol.wire import parse


class PrivateWrites(NamedTuple):
    """What one transaction wrote to one collection, in the order of the message."""

    namespace: str
    collection: str
    writes: tuple[KeyWrite, ...]


def decode_private_writes(content: bytes) -> tuple[PrivateWrites, ...]:
    """Decode a TxPvtReadWriteSet; raises DecodeError where any part of it does not parse.

    Nothing in it is proved: whoever uses a value compares its hash with the public write set first.
    """
    result = parse(rwset_pb2.TxPvtReadWriteSet, content, "TxPvtReadWriteSet")
    found = []
    for namespace in result.ns_pvt_rwset:
        for part in namespace.collection_pvt_rwset:
            private = parse(kv_rwset_pb2.KVRWSet, part.rwset, "KVRWSet")
            writes = tuple(
                KeyWrite(write.key, write.is_delete or not write.value, write.value) for write in private.writes
            )
            found.append(PrivateWrites(namespace.namespace, part.collection_name, writes))
    return tuple(found)
