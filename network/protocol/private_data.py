"""Block-to-live: when a private key leaves the state by itself.

Rules: `core/ledger/pvtdatapolicy/btlpolicy.go` (an expiring block is the committing block + block-to-live + 1),
`core/ledger/kvledger/txmgmt/pvtstatepurgemgmt/purge_mgr.go`, `core/chaincode/lifecycle/serializer.go` (field names).
"""

from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import db_pb2

from network.protocol.wire import parse

LIFECYCLE_NAMESPACE = "_lifecycle"


def collections_field_key(chaincode: str) -> bytes:
    """Name the public `_lifecycle` key that holds the committed collections of a chaincode."""
    return f"namespaces/fields/{chaincode}/Collections".encode()


def decode_block_to_live(content: bytes, collection: str) -> int:
    """Read a collection's block-to-live, in blocks, from the value of its `collections_field_key`; 0: lives for ever.

    An implicit or unknown collection has none. Raises DecodeError when the value is no collection package.
    """
    state = parse(db_pb2.StateData, content, "StateData")
    package = parse(collection_pb2.CollectionConfigPackage, state.Bytes, "CollectionConfigPackage")
    for config in package.config:
        if config.static_collection_config.name == collection:
            return int(config.static_collection_config.block_to_live)
    return 0


def has_expired(*, written_in: int, block_to_live: int, at_block: int) -> bool:
    """Tell whether a key written in one block is gone while another is validated.

    The block of expiry itself still sees the key: expiry follows its validation and its commit hash.
    """
    return block_to_live > 0 and at_block > written_in + block_to_live + 1
