"""The collections of a channel's chaincodes, block by block: which were in force, and who their members were.

Rules: `core/ledger/confighistory/mgr.go` (most recent below a block), `core/ledger/kvledger/coll_elg_notifier.go`
(a peer that becomes a member of an existing collection).
"""

import logging
from collections.abc import Mapping
from typing import Final

from network.embedded.ledger.peer_store import PeerStore
from network.protocol.collection import CollectionConfig, decode_collections, find_collection, member_msp_ids
from network.protocol.commit_hash import StateKey
from network.protocol.errors import DecodeError
from network.protocol.lifecycle import decode_state_data
from network.protocol.private_data import LIFECYCLE_NAMESPACE, collections_field_key
from network.protocol.state import StateUpdate

logger = logging.getLogger(__name__)

_PREFIX, _SUFFIX = collections_field_key("\0").split(b"\0")
_IN_FORCE_FROM_NEXT: Final = 1


class CollectionHistory:
    """What one peer's store knows of the collections of one channel."""

    def __init__(self, store: PeerStore) -> None:
        self._store = store

    def collection(self, chaincode: str, name: str, below: int) -> CollectionConfig | None:
        """Give a collection as it is in force for block `below`; raises DecodeError."""
        content = self._store.collections_below(chaincode, below)
        return find_collection(() if content is None else decode_collections(content), name)

    def is_member(self, chaincode: str, collection: str, msp_id: str, below: int) -> bool:
        """Tell whether an organisation's peers hold the values of a collection."""
        try:
            config = self.collection(chaincode, collection, below)
            return config is not None and msp_id in member_msp_ids(config)
        except DecodeError:
            return False

    def block_to_live(self, chaincode: str, collection: str, below: int) -> int:
        """Give a collection's block-to-live, in blocks; 0: values live for ever."""
        try:
            config = self.collection(chaincode, collection, below)
        except DecodeError:
            return 0
        return 0 if config is None else config.block_to_live

    def note(self, updates: Mapping[StateKey, StateUpdate], number: int) -> list[str]:
        """Note what block `number` says of collections; they are in force from the next one on. Names chaincodes."""
        chaincodes = []
        for (namespace, collection, key), update in updates.items():
            if namespace != LIFECYCLE_NAMESPACE or collection or update.value is None:
                continue
            if not (key.startswith(_PREFIX) and key.endswith(_SUFFIX)):
                continue
            chaincode = key[len(_PREFIX) : -len(_SUFFIX)].decode()
            try:
                content = decode_state_data(update.value)
                decode_collections(content if isinstance(content, bytes) else b"")
            except DecodeError:
                # Only a transaction that enough organisations endorsed against the rules gets this far.
                logger.warning("collections_not_readable", extra={"chaincode": chaincode, "block_number": number})
                continue
            self._store.add_collections(chaincode, number, content if isinstance(content, bytes) else b"")
            chaincodes.append(chaincode)
        return chaincodes

    def joined(self, chaincode: str, msp_id: str, number: int) -> list[str]:
        """Name the collections that an organisation is a member of since block `number`, and was not before.

        Collections that are new are none of them.
        """
        before = self._store.collections_below(chaincode, number)
        if before is None:
            return []
        return [
            config.name
            for config in decode_collections(before)
            if not self.is_member(chaincode, config.name, msp_id, number)
            and self.is_member(chaincode, config.name, msp_id, number + _IN_FORCE_FROM_NEXT)
        ]
