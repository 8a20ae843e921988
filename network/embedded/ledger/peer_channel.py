"""One channel at one peer: its blocks, its state, and the commit of the next block.

A block is judged on the peer's own state, written to its block files with the flags and the commit hash it came to, and
then to its store, in one transaction. Where the process dies between the two, opening the channel commits the block
from the files again.

Rules: `gossip/privdata/coordinator.go`, `core/ledger/kvledger/kv_ledger.go`.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from fabric_protos.common import common_pb2

from network.embedded.ledger.block_file import BlockFiles
from network.embedded.ledger.peer_store import PeerStore, PrivateWriteSet, TransactionPlace
from network.embedded.ledger.private_data import (
    PrivatePart,
    deleted_keys,
    find_private_writes,
    key_values,
    private_parts,
)
from network.embedded.ledger.state_lock import StateLock
from network.errors import LedgerError
from network.protocol.block import (
    SLOT_COMMIT_HASH,
    SLOT_TRANSACTIONS_FILTER,
    BlockHeader,
    data_hash,
    header_hash,
)
from network.protocol.collection import (
    CollectionConfig,
    decode_collections,
    find_collection,
    implicit_collection_name,
    member_msp_ids,
)
from network.protocol.commit_hash import StateKey, commit_hash
from network.protocol.decode import decode_transaction
from network.protocol.endorsement_policy import ChannelRules, channel_rules
from network.protocol.errors import ConfigurationError, DecodeError, PolicyError
from network.protocol.lifecycle import (
    ChaincodeDefinition,
    chaincode_of_metadata_key,
    decode_state_data,
    metadata_key,
    read_definition,
)
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import Version
from network.protocol.state import CONFIG_KEY, StateUpdate
from network.protocol.transaction import Transaction
from network.protocol.validation import BlockJudgement, judge_block, judge_genesis
from network.protocol.validation_code import VALID

Pull = Callable[[PrivatePart], bytes | None]
"""Asks the other members of a collection for private writes; None: nobody has them."""

_COLLECTIONS_PREFIX: Final = b"namespaces/fields/"
_COLLECTIONS_SUFFIX: Final = b"/Collections"
_BLOCKS_REMEMBERED: Final = 16


def _nobody(part: PrivatePart) -> bytes | None:
    del part
    return None


class PeerChannel:
    """A channel that a peer has joined. `folder` is the peer's; raises LedgerError when what is there is damaged."""

    def __init__(self, channel_id: str, msp_id: str, folder: Path) -> None:
        self.channel_id = channel_id
        self.msp_id = msp_id
        self.lock = StateLock()
        self.files = BlockFiles(folder / "chains" / channel_id)
        try:
            self.store = PeerStore(folder / "state" / f"{channel_id}.sqlite")
        except LedgerError:
            self.files.close()
            raise
        self.lifecycle_changes = 0
        """Grows with each block that touches `_lifecycle`: what is remembered of definitions is old then."""
        self._grown = asyncio.Condition()
        self._rules: ChannelRules | None = None
        config = self.store.value(CONFIG_KEY)
        if config is not None:
            self._rules = channel_rules(channel_id, config.value)
        self._height = self.store.height
        if self._height > self.files.height:
            self.close()
            raise LedgerError(f"{channel_id}: the store has {self._height} blocks, the files {self.files.height}")

    def join(self, genesis: common_pb2.Block) -> None:
        """Begin the channel with its first block; again with the same block it changes nothing.

        Raises LedgerError for another block than the one joined, ConfigurationError or DecodeError for one that is no
        channel's first.
        """
        if self.files.height:
            if self.files.block(0).header != genesis.header:
                raise LedgerError(f"{self.msp_id} has joined {self.channel_id} with another first block")
            return
        judgement = judge_genesis(tuple(genesis.data.data))
        if judgement.rules.channel_id != self.channel_id:
            raise LedgerError(f"the first block is of {judgement.rules.channel_id}, not of {self.channel_id}")
        block = common_pb2.Block.FromString(genesis.SerializeToString())
        _set_peer_metadata(block, judgement.flags, None)
        self._write(block, judgement, None, _nobody)

    def close(self) -> None:
        """Close the files."""
        self.store.close()
        self.files.close()

    # --- what is there

    @property
    def height(self) -> int:
        """Number of the next block."""
        return self._height

    @property
    def rules(self) -> ChannelRules:
        """The configuration in force."""
        if self._rules is None:
            raise LedgerError(f"{self.channel_id} has no first block yet")
        return self._rules

    def header(self, number: int) -> BlockHeader:
        """Give the header of a block."""
        header = self.files.block(number).header
        return BlockHeader(header.number, header.previous_hash, header.data_hash)

    def transaction_place(self, tx_id: str) -> TransactionPlace | None:
        """Find a transaction that is committed, valid or not."""
        return self.store.transaction_place(tx_id)

    def envelope(self, place: Version) -> bytes:
        """Give the envelope of a committed transaction."""
        return bytes(self.files.block(place.block_number).data.data[place.tx_number])

    def definition(self, chaincode: str) -> ChaincodeDefinition | None:
        """Give the committed definition of a chaincode; raises DecodeError."""
        return read_definition(chaincode, self.read_lifecycle)

    def chaincodes(self) -> list[str]:
        """Name the chaincodes with a committed definition."""
        first, last = metadata_key(""), metadata_key("\U0010ffff")
        rows = self.store.rows(LIFECYCLE_NAMESPACE, first, last)
        return [name for key, _, _ in rows if (name := chaincode_of_metadata_key(key)) is not None]

    def read_lifecycle(self, key: str) -> bytes | None:
        """Read the public state of `_lifecycle`."""
        found = self.store.value((LIFECYCLE_NAMESPACE, "", key.encode()))
        return None if found is None else found.value

    def read_approval(self, key: str) -> bytes | None:
        """Read what the peer's own organisation approved."""
        found = self.store.private_value(LIFECYCLE_NAMESPACE, implicit_collection_name(self.msp_id), key)
        return None if found is None else found.value

    def read_approval_hash(self, key: str) -> bytes | None:
        """Read the hash of what the peer's own organisation approved."""
        place = (LIFECYCLE_NAMESPACE, implicit_collection_name(self.msp_id), sha256(key.encode()).digest())
        found = self.store.value(place)
        return None if found is None else found.value

    def collection(self, chaincode: str, name: str, below: int | None = None) -> CollectionConfig | None:
        """Give a collection as it is in force for block `below` (None: the next one)."""
        content = self.store.collections_below(chaincode, self.height if below is None else below)
        return find_collection(() if content is None else decode_collections(content), name)

    def is_member(self, chaincode: str, collection: str, msp_id: str, below: int | None = None) -> bool:
        """Tell whether an organisation's peers hold the values of a collection."""
        try:
            config = self.collection(chaincode, collection, below)
            return config is not None and msp_id in member_msp_ids(config)
        except DecodeError:
            return False

    async def wait_for_height(self, above: int) -> None:
        """Return when the height is above a number; all that the block brought is readable then."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.height > above)

    # --- commit

    async def commit(self, block: common_pb2.Block, pull: Pull = _nobody) -> None:
        """Check the next block as an orderer gave it, judge it and write it; raises LedgerError for a wrong one."""
        async with self.lock.committing():
            judgement = self._judged(block)
            new_hash = commit_hash(judgement.flags, judgement.hashed_updates(), self.store.commit_hash)
            _set_peer_metadata(block, judgement.flags, new_hash)
            self._write(block, judgement, new_hash, pull)
        async with self._grown:
            self._grown.notify_all()

    def _judged(self, block: common_pb2.Block) -> BlockJudgement:
        self._check(block)
        return judge_block(block.header.number, tuple(block.data.data), self.rules, self.store)

    def _check(self, block: common_pb2.Block) -> None:
        header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
        place = f"block {header.number} of {self.channel_id}"
        if header.number != self.height:
            raise LedgerError(f"{place}: {self.height} comes next")
        if header.previous_hash != header_hash(self.header(header.number - 1)):
            raise LedgerError(f"{place}: does not follow block {header.number - 1}")
        if header.data_hash != data_hash(tuple(block.data.data)):
            raise LedgerError(f"{place}: not the hash of its transactions")
        try:
            self.rules.trust.verify_block(header, tuple(block.metadata.metadata))
        except (DecodeError, PolicyError) as error:
            raise LedgerError(f"{place}: {error}") from error

    def catch_up(self, pull: Pull = _nobody) -> None:
        """Write blocks to the store that are in the files only: the process died between the two."""
        while self._height < self.files.height:
            block = self.files.block(self._height)
            if self._height == 0:
                judgement, new_hash = judge_genesis(tuple(block.data.data)), None
            else:
                judgement = self._judged(block)
                new_hash = commit_hash(judgement.flags, judgement.hashed_updates(), self.store.commit_hash)
            self._apply(block, judgement, new_hash, pull)

    def _write(self, block: common_pb2.Block, judgement: BlockJudgement, new_hash: bytes | None, pull: Pull) -> None:
        self.files.append(block)
        self._apply(block, judgement, new_hash, pull)

    def _apply(self, block: common_pb2.Block, judgement: BlockJudgement, new_hash: bytes | None, pull: Pull) -> None:
        """Write one block to the store and take its configuration into force."""
        number = block.header.number
        transactions = _decoded(tuple(block.data.data))
        header = BlockHeader(number, block.header.previous_hash, block.header.data_hash)
        block_to_live = self._blocks_to_live(judgement.updates, number)
        with self.store.transaction():
            private = self._keep_private_writes(number, transactions, judgement.flags, pull)
            self.store.write_state(judgement.updates.items())
            self._write_private_state(judgement.updates, private)
            for transaction in transactions:
                if transaction.action is not None and judgement.flags[transaction.tx_number] == VALID:
                    for entry in transaction.action.writes:
                        self.store.add_history(
                            entry.namespace,
                            [write.key for write in entry.writes],
                            Version(number, transaction.tx_number),
                        )
            self.store.add_block(number, header_hash(header), judgement.tx_ids, judgement.flags)
            self._note_collections(judgement.updates, number)
            for key, update in judgement.updates.items():
                live = block_to_live.get(key[:2], 0)
                if live and update.value is not None:
                    self.store.plan_expiry(number + live + 1, key)
            due = {(namespace, collection) for namespace, collection in self.store.expiring(number)}
            self.store.expire(number, {place: self._block_to_live(*place, number) for place in due})
            self.store.forget_transient([tx_id for tx_id in judgement.tx_ids if tx_id], number)
            self.store.set_tip(number + 1, new_hash)
        self._rules = judgement.rules
        self._height = number + 1
        if any(key[0] == LIFECYCLE_NAMESPACE for key in judgement.updates):
            self.lifecycle_changes += 1

    def _keep_private_writes(
        self, number: int, transactions: tuple[Transaction, ...], flags: bytes, pull: Pull
    ) -> dict[StateKey, list[tuple[str, bytes]]]:
        """Keep the private writes of a block that this peer is a member for; give the values of valid transactions."""
        values: dict[StateKey, list[tuple[str, bytes]]] = {}
        for part in private_parts(transactions):
            member = self.is_member(part.namespace, part.collection, self.msp_id, number)
            content = None
            if member:
                content = find_private_writes(part, self.store.transient(part.tx_id)) or pull(part)
                if content is not None and sha256(content).digest() != part.content_hash:
                    content = None  # whoever gave it, it is not what was endorsed
            if content is None:
                self.store.add_missing(number, part.tx_number, part.namespace, part.collection, is_member=member)
                continue
            live = self._block_to_live(part.namespace, part.collection, number)
            kept = PrivateWriteSet(part.tx_number, part.namespace, part.collection, content)
            self.store.add_private_writes(number, kept, number + live + 1 if live else None)
            if flags[part.tx_number] != VALID:
                continue
            for key, found in key_values(part, content).items():
                values.setdefault(key, []).append(found)
            self._purge(transactions[part.tx_number], part, content)
        return values

    def _purge(self, transaction: Transaction, part: PrivatePart, content: bytes) -> None:
        """Take keys that a valid transaction purges out of everything kept so far."""
        purged = {
            write.key_hash
            for namespace in (transaction.action.writes if transaction.action else ())
            if namespace.namespace == part.namespace
            for collection in namespace.collections
            if collection.collection == part.collection
            for write in collection.writes
            if write.is_purge
        }
        if purged:
            for key in deleted_keys(content):
                if sha256(key.encode()).digest() in purged:
                    self.store.purge_private_writes(part.namespace, part.collection, key)

    def _write_private_state(
        self, updates: Mapping[StateKey, StateUpdate], values: Mapping[StateKey, list[tuple[str, bytes]]]
    ) -> None:
        """Bring the values this peer holds in line with their hashes."""
        for (namespace, collection, key_hash), update in updates.items():
            if not collection:
                continue
            if update.value is None:
                self.store.delete_private(namespace, collection, key_hash)
                continue
            given = values.get((namespace, collection, key_hash), [])
            found = next((kv for kv in reversed(given) if sha256(kv[1]).digest() == update.value), None)
            if found is not None:
                self.store.write_private(namespace, collection, found[0], key_hash, found[1], update.version)
            else:
                self.store.confirm_private(namespace, collection, key_hash, update.value, update.version)

    def _note_collections(self, updates: Mapping[StateKey, StateUpdate], number: int) -> None:
        for (namespace, collection, key), update in updates.items():
            if namespace != LIFECYCLE_NAMESPACE or collection or update.value is None:
                continue
            if key.startswith(_COLLECTIONS_PREFIX) and key.endswith(_COLLECTIONS_SUFFIX):
                content = decode_state_data(update.value)
                name = key[len(_COLLECTIONS_PREFIX) : -len(_COLLECTIONS_SUFFIX)].decode()
                self.store.add_collections(name, number, content if isinstance(content, bytes) else b"")

    def _blocks_to_live(self, updates: Mapping[StateKey, StateUpdate], number: int) -> dict[tuple[str, str], int]:
        places = {key[:2] for key in updates if key[1]}
        return {place: self._block_to_live(*place, number) for place in places}

    def _block_to_live(self, namespace: str, collection: str, number: int) -> int:
        try:
            config = self.collection(namespace, collection, number)
        except (DecodeError, ConfigurationError):
            return 0
        return 0 if config is None else config.block_to_live


@lru_cache(_BLOCKS_REMEMBERED)
def _decoded(envelopes: tuple[bytes, ...]) -> tuple[Transaction, ...]:
    """Decode a block's envelopes, once for all peers of the process."""
    return tuple([decode_transaction(number, envelope) for number, envelope in enumerate(envelopes)])


def _set_peer_metadata(block: common_pb2.Block, flags: bytes, new_hash: bytes | None) -> None:
    block.metadata.metadata[SLOT_TRANSACTIONS_FILTER] = flags
    if new_hash is not None:
        block.metadata.metadata[SLOT_COMMIT_HASH] = common_pb2.Metadata(value=new_hash).SerializeToString()
