"""One channel at one peer: its blocks, its state, and the commit of the next block.

A block is judged on the peer's own state, written to its block files with the flags and the commit hash it came to, and
then to its store, in one transaction. Where the process dies between the two, opening the channel commits the block
from the files again.

Rules: `gossip/privdata/coordinator.go`, `core/ledger/kvledger/kv_ledger.go`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from fabric_protos.common import common_pb2

from network.embedded.ledger.block_file import BlockFiles, BlockReader
from network.embedded.ledger.collection_history import CollectionHistory
from network.embedded.ledger.peer_store import PeerStore, PrivateWriteSet, TransactionPlace
from network.embedded.ledger.private_data import PrivatePart
from network.embedded.ledger.private_ledger import CommittedBlock, PrivateLedger, Pull
from network.embedded.ledger.state_lock import StateLock
from network.errors import LedgerError
from network.protocol.block import (
    SLOT_COMMIT_HASH,
    SLOT_TRANSACTIONS_FILTER,
    BlockHeader,
    data_hash,
    header_hash,
)
from network.protocol.collection import CollectionConfig, implicit_collection_name
from network.protocol.commit_hash import commit_hash
from network.protocol.decode import decode_transaction
from network.protocol.endorsement_policy import ChannelRules, channel_rules
from network.protocol.errors import DecodeError, PolicyError
from network.protocol.lifecycle import (
    ChaincodeDefinition,
    chaincode_of_metadata_key,
    metadata_key,
    read_definition,
)
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.read_write_set import Version
from network.protocol.state import CONFIG_KEY, StateReader
from network.protocol.transaction import Transaction
from network.protocol.validation import BlockJudgement, judge_block, judge_genesis
from network.protocol.validation_code import VALID

logger = logging.getLogger(__name__)

Judge = Callable[[int, Sequence[bytes], ChannelRules, StateReader], BlockJudgement]

RECONCILED_BLOCKS: Final = 10
"""Blocks looked after without letting anybody else in (`core.yaml`, peer.gossip.pvtData.reconcileBatchSize)."""

_BLOCKS_REMEMBERED: Final = 16


async def _at_once() -> None:
    pass


def _nobody(part: PrivatePart, block_number: int) -> bytes | None:
    del part, block_number
    return None


class PeerChannel:
    """A channel that a peer has joined. `folder` is the peer's; raises LedgerError when what is there is damaged."""

    def __init__(self, channel_id: str, msp_id: str, folder: Path) -> None:
        self.channel_id = channel_id
        self.msp_id = msp_id
        self.lock = StateLock()
        self._files = BlockFiles(folder / "chains" / channel_id)
        self.files: BlockReader = self._files
        """The blocks that the peer hands out; honest ones, unless a fault is wanted (`faults`)."""
        self.discloses_private_data = True
        """Whether the peer hands out private data, to other members and to clients."""
        self.before_commit: Callable[[], Awaitable[None]] = _at_once
        """What the peer waits for before it takes each block that was ordered."""
        self.judge: Judge = judge_block
        try:
            self.store = PeerStore(folder / "state" / f"{channel_id}.sqlite")
        except LedgerError:
            self._files.close()
            raise
        self._collections = CollectionHistory(self.store)
        self._private = PrivateLedger(msp_id, self.store, self._collections)
        self.lifecycle_changes = 0
        """Grows with each block that touches `_lifecycle`: what is remembered of definitions is old then."""
        self._grown = asyncio.Condition()
        self._rules: ChannelRules | None = None
        config = self.store.value(CONFIG_KEY)
        if config is not None:
            self._rules = channel_rules(channel_id, config.value)
        self._height = self.store.height
        if self._height > self._files.height:
            self.close()
            raise LedgerError(f"{channel_id}: the store has {self._height} blocks, the files {self._files.height}")

    def join(self, genesis: common_pb2.Block) -> None:
        """Begin the channel with its first block; again with the same block it changes nothing.

        Raises LedgerError for another block than the one joined, ConfigurationError or DecodeError for one that is no
        channel's first.
        """
        if self._files.height:
            if self._files.block(0).header != genesis.header:
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
        self._files.close()

    # --- what is there

    @property
    def has_first_block(self) -> bool:
        """Whether the block that the channel begins with is kept."""
        return self._files.height > 0

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

    @property
    def config_sequence(self) -> int:
        """Grows with each configuration."""
        return self.rules.configuration.sequence

    def header(self, number: int) -> BlockHeader:
        """Give the header of a block."""
        header = self._files.block(number).header
        return BlockHeader(header.number, header.previous_hash, header.data_hash)

    def transaction_place(self, tx_id: str) -> TransactionPlace | None:
        """Find a transaction that is committed, valid or not."""
        return self.store.transaction_place(tx_id)

    def envelope(self, place: Version) -> bytes:
        """Give the envelope of a committed transaction."""
        return bytes(self._files.block(place.block_number).data.data[place.tx_number])

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
        return self._collections.collection(chaincode, name, self.height if below is None else below)

    def is_member(self, chaincode: str, collection: str, msp_id: str) -> bool:
        """Tell whether an organisation's peers hold the values of a collection now."""
        return self._collections.is_member(chaincode, collection, msp_id, self.height)

    async def wait_for_height(self, above: int) -> None:
        """Return when the height is above a number; all that the block brought is readable then."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.height > above)

    async def wait_for_missing(self) -> None:
        """Return when private data is missing that this peer is to hold."""
        async with self._grown:
            await self._grown.wait_for(self.store.missing_blocks)

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
        return self.judge(block.header.number, tuple(block.data.data), self.rules, self.store)

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
        while self._height < self._files.height:
            block = self._files.block(self._height)
            if self._height == 0:
                judgement, new_hash = judge_genesis(tuple(block.data.data)), None
            else:
                judgement = self._judged(block)
                new_hash = commit_hash(judgement.flags, judgement.hashed_updates(), self.store.commit_hash)
            self._apply(block, judgement, new_hash, pull)

    def _write(self, block: common_pb2.Block, judgement: BlockJudgement, new_hash: bytes | None, pull: Pull) -> None:
        self._files.append(block)
        self._apply(block, judgement, new_hash, pull)

    def _apply(self, block: common_pb2.Block, judgement: BlockJudgement, new_hash: bytes | None, pull: Pull) -> None:
        """Write one block to the store and take its configuration into force."""
        number = block.header.number
        transactions = _decoded(tuple(block.data.data))
        header = BlockHeader(number, block.header.previous_hash, block.header.data_hash)
        with self.store.transaction():
            self.store.write_state(judgement.updates.items())
            self._private.commit(number, transactions, judgement.flags, judgement.updates, pull)
            for transaction in transactions:
                if transaction.action is not None and judgement.flags[transaction.tx_number] == VALID:
                    for entry in transaction.action.writes:
                        self.store.add_history(
                            entry.namespace,
                            [write.key for write in entry.writes],
                            Version(number, transaction.tx_number),
                        )
            self.store.add_block(number, header_hash(header), judgement.tx_ids, judgement.flags)
            self._private.note_collections(number, judgement.updates)
            self.store.expire(number)
            self.store.forget_transient([tx_id for tx_id in judgement.tx_ids if tx_id], number)
            self.store.set_tip(number + 1, new_hash)
        for found in judgement.without_verdict:
            place = {"channel": self.channel_id, "block_number": number, "tx_number": found.tx_number}
            logger.warning("block_without_verdict", extra={**place, "reason": found.reason})
        self._rules = judgement.rules
        self._height = number + 1
        if any(key[0] == LIFECYCLE_NAMESPACE for key in judgement.updates):
            self.lifecycle_changes += 1

    # --- private data

    def private_writes(self, block_number: int) -> list[PrivateWriteSet]:
        """Give the private writes of a block that the peer holds and hands out."""
        return self.store.private_writes(block_number) if self.discloses_private_data else []

    async def reconcile(self, pull: Pull) -> int:
        """Look again for private data that is missing, newest blocks first; gives the number of write sets found."""
        found = 0
        missing = self.store.missing_blocks()
        for start in range(0, len(missing), RECONCILED_BLOCKS):
            async with self.lock.committing():
                with self.store.transaction():
                    for number in missing[start : start + RECONCILED_BLOCKS]:
                        found += self._private.reconcile(self._committed(number), pull)
        return found

    def _committed(self, number: int) -> CommittedBlock:
        block = self._files.block(number)
        flags = block.metadata.metadata[SLOT_TRANSACTIONS_FILTER]
        return CommittedBlock(number, _decoded(tuple(block.data.data)), flags)


@lru_cache(_BLOCKS_REMEMBERED)
def _decoded(envelopes: tuple[bytes, ...]) -> tuple[Transaction, ...]:
    """Decode a block's envelopes, once for all peers of the process."""
    return tuple([decode_transaction(number, envelope) for number, envelope in enumerate(envelopes)])


def _set_peer_metadata(block: common_pb2.Block, flags: bytes, new_hash: bytes | None) -> None:
    block.metadata.metadata[SLOT_TRANSACTIONS_FILTER] = flags
    if new_hash is not None:
        block.metadata.metadata[SLOT_COMMIT_HASH] = common_pb2.Metadata(value=new_hash).SerializeToString()
