"""The ordering service of a channel: takes envelopes, cuts blocks, and gives each orderer its own signed copy.

There is one order in one process, so no consensus is run; blocks have the form that Raft or BFT gives them
(`block_signing`), by the configuration in force. What is taken gets its place at once, so that a configuration never
comes between the check of an envelope and its place.

An orderer that does not run gets no blocks, and without a quorum nothing is taken; one that comes back catches up.

Rules: `orderer/common/multichannel/blockwriter.go`, `orderer/consensus/etcdraft/chain.go`,
`orderer/consensus/smartbft/{chain,util}.go`; SmartBFT's pool of requests.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from fabric_protos.common import common_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2

from gateway.client.identity import SigningIdentity
from network.embedded.ledger.admission import (
    SERVICE_UNAVAILABLE,
    AdmissionError,
    check_transaction,
    check_wrapped,
    is_config_update,
    propose_configuration,
)
from network.embedded.ledger.block_cutter import BatchLimits, BlockCutter
from network.embedded.ledger.block_file import BlockFiles
from network.embedded.ledger.block_signing import (
    NONCE_BYTES,
    BlockTip,
    SigningOrderer,
    assembled_block,
    consenter_id,
    consenter_signatures,
    kept_signatures,
    next_consenter_metadata,
    own_signature,
    read_tip,
    signed_value,
)
from network.embedded.ledger.clock import Clock
from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.request_pool import RequestPool, transaction_request_id
from network.errors import LedgerError
from network.protocol.block import SLOT_SIGNATURES, BlockHeader, data_hash, header_hash
from network.protocol.config_transition import BFT
from network.protocol.configuration import ChannelConfiguration
from network.protocol.decode import decode_transaction
from network.protocol.duration import decode_duration
from network.protocol.endorsement_policy import ChannelRules, channel_rules
from network.protocol.quorum import bft_quorum, raft_quorum
from network.protocol.transaction import HEADER_CONFIG
from network.protocol.validation import judge_genesis
from network.protocol.wire import parse

_NANOSECONDS: Final = 1e9


class Orderer:
    """One orderer's copy of the channels: block files with blocks as it keeps them.

    `lost_leader` is a fault to set: the orderer then refuses envelopes, and blocks to all but the best effort.
    """

    def __init__(self, name: str, identity: SigningIdentity, folder: Path) -> None:
        self.name = name
        self.identity = identity
        self.state = NodeState()
        self._folder = folder
        self.chains: dict[str, BlockFiles] = {}
        self.lost_leader = asyncio.Event()

    def open_chain(self, channel_id: str) -> BlockFiles:
        """Open the block files of a channel."""
        if channel_id not in self.chains:
            self.chains[channel_id] = BlockFiles(self._folder / "chains" / channel_id)
        return self.chains[channel_id]

    def close(self) -> None:
        """Close the files."""
        for chain in self.chains.values():
            chain.close()


class OrderingService:
    """The order of one channel. `join` or an earlier run gives it the first block; then `run` cuts by time.

    `chance` gives nonces, and decides which signatures BFT orderers keep.
    """

    def __init__(self, channel_id: str, orderers: Sequence[Orderer], clock: Clock, chance: Random) -> None:
        self.channel_id = channel_id
        self.orderers = tuple(orderers)
        self._clock = clock
        self._chance = chance
        self._cutter = BlockCutter()
        self._pool = RequestPool()
        self._due: float | None = None
        self._waits = asyncio.Event()
        self._grown = asyncio.Condition()
        self._chains = [orderer.open_chain(channel_id) for orderer in self.orderers]
        self._rules: ChannelRules | None = None
        self._tip: BlockTip | None = None
        ahead = max(self._chains, key=lambda chain: chain.height)
        if ahead.height:
            self._tip = read_tip(ahead.block(ahead.height - 1))
            self._rules = self._rules_in_force(ahead, self._tip.last_config)
        for orderer in self.orderers:
            self._catch_up(orderer)  # the process may have died between two of them

    def join(self, genesis: common_pb2.Block) -> None:
        """Begin with the channel's first block; again with the same block it changes nothing.

        Raises LedgerError for another block, DecodeError or ConfigurationError for a block that is no channel's first.
        """
        if self.height:
            if self._chains[0].block(0).header != genesis.header:
                raise LedgerError(f"the orderers have joined {self.channel_id} with another first block")
            return
        rules = judge_genesis(tuple(genesis.data.data)).rules
        for chain in self._chains:
            chain.append(genesis)
        self._tip = read_tip(genesis)
        self._rules = rules

    @property
    def height(self) -> int:
        """Number of the next block."""
        return 0 if self._tip is None else self._tip.header.number + 1

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

    @property
    def running(self) -> list[int]:
        """Positions of the orderers that run."""
        return [number for number, orderer in enumerate(self.orderers) if orderer.state.is_running]

    def block(self, orderer: int, number: int) -> common_pb2.Block:
        """Give an orderer's copy of a block."""
        return self._chains[orderer].block(number)

    def height_at(self, orderer: int) -> int:
        """Give how many blocks an orderer has: one that does not run has fewer than the others."""
        return self._chains[orderer].height

    async def wait_for_height(self, above: int, orderer: int | None = None) -> None:
        """Return when the height, that of one orderer if it is named, is above a number."""
        async with self._grown:
            await self._grown.wait_for(lambda: (self.height if orderer is None else self.height_at(orderer)) > above)

    async def wait_for_running(self) -> list[int]:
        """Give the positions of the orderers that run, as soon as there are any."""
        async with self._grown:
            return await self._grown.wait_for(lambda: self.running)

    async def resume(self, orderer: Orderer) -> None:
        """Have an orderer that was stopped catch up with the others."""
        self._catch_up(orderer)
        if self._cutter.has_pending and self.has_quorum:
            await self.cut()
        async with self._grown:
            self._grown.notify_all()

    # --- taking envelopes

    async def broadcast(self, envelope: common_pb2.Envelope, orderer: int = 0) -> None:
        """Take an envelope that an orderer received; when this returns, it will be in a block.

        `orderer` is its position. Raises AdmissionError.
        """
        limits = batch_limits(self.rules.configuration)
        if is_config_update(envelope):
            await self._configure(envelope, limits, self.orderers[orderer])
            return
        check_transaction(envelope, self.rules, limits.absolute_max_bytes, self._clock.now())
        self._check_quorum(self.orderers[orderer])
        # Written again: receivers demand the canonical bytes.
        content = envelope.SerializeToString()
        if self._is_bft:
            self._pool.add(transaction_request_id(envelope))
        size = len(content) if self._is_bft else len(envelope.payload) + len(envelope.signature)
        batches = self._cutter.add(content, size, limits)
        if not self._cutter.has_pending:
            self._due = None
        elif self._due is None:
            self._due = self._clock.now() + limits.timeout_seconds
            self._waits.set()
        await self._write(batches)

    async def _configure(self, envelope: common_pb2.Envelope, limits: BatchLimits, orderer: Orderer) -> None:
        """Order the configuration that an update makes, after all that waits, in a block of its own."""
        now = self._clock.now()
        running = None if self._is_bft else self.running
        proposed = propose_configuration(envelope, self.rules, limits.absolute_max_bytes, now, running)
        wrapped = self._wrapped(proposed.content, orderer, int(now))
        check_wrapped(wrapped, self.rules, limits.absolute_max_bytes, now)
        self._check_quorum(orderer)
        self._due = None
        for batch in self._cutter.cut():
            self._write_block(batch)
        self._write_block([wrapped.SerializeToString()], proposed.rules)
        async with self._grown:
            self._grown.notify_all()

    def _wrapped(self, config: bytes, orderer: Orderer, seconds: int) -> common_pb2.Envelope:
        """Make the transaction of a configuration: the orderer that received the update signs it."""
        header = common_pb2.ChannelHeader(type=HEADER_CONFIG, channel_id=self.channel_id)
        header.timestamp.seconds = seconds
        signature_header = common_pb2.SignatureHeader(
            creator=orderer.identity.creator, nonce=self._chance.randbytes(NONCE_BYTES)
        )
        payload = common_pb2.Payload(
            header=common_pb2.Header(
                channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
            ),
            data=config,
        ).SerializeToString()
        return common_pb2.Envelope(payload=payload, signature=orderer.identity.sign(payload))

    @property
    def has_quorum(self) -> bool:
        """Whether enough orderers run to order anything."""
        if self._is_bft:
            return len(self._signers()) >= bft_quorum(len(self.rules.configuration.consenters))
        return len(self.running) >= raft_quorum(len(self.orderers))

    def _check_quorum(self, orderer: Orderer) -> None:
        """Raise AdmissionError without a quorum; real BFT orderers would take it, and wait for each other."""
        if orderer.lost_leader.is_set() or not self.has_quorum:
            raise AdmissionError(SERVICE_UNAVAILABLE, "no leader" if self._is_bft else "no Raft leader")

    async def run(self) -> None:
        """Cut what waits when its time is up; ends by being cancelled."""
        while True:
            await self._waits.wait()
            self._waits.clear()
            while self._due is not None:
                left = self._due - self._clock.now()
                if left > 0:
                    await self._clock.sleep(left)
                else:
                    await self.cut()

    async def cut(self) -> None:
        """Make a block of what waits; without a quorum it goes on waiting."""
        self._due = None
        if self.has_quorum:
            await self._write(self._cutter.cut())

    async def _write(self, batches: list[list[bytes]]) -> None:
        for batch in batches:
            self._write_block(batch)
        if batches:
            async with self._grown:
                self._grown.notify_all()

    # --- blocks

    @property
    def _is_bft(self) -> bool:
        return self.rules.configuration.consensus_type == BFT

    def _signers(self) -> list[SigningOrderer]:
        """Give the consenters of BFT that run; an orderer with another certificate than the configuration's is none."""
        configuration = self.rules.configuration
        running = [self.orderers[number].identity for number in self.running]
        found = [SigningOrderer(identity, consenter_id(configuration, identity)) for identity in running]
        return [signer for signer in found if signer.consenter_id is not None]

    def _write_block(self, batch: list[bytes], next_rules: ChannelRules | None = None) -> None:
        """Write the next block for every orderer that runs; `next_rules`: those of the configuration it brings."""
        if self._tip is None:
            raise LedgerError(f"{self.channel_id} has no first block yet")
        rules, before = self.rules, self._tip.header
        header = BlockHeader(before.number + 1, header_hash(before), data_hash(tuple(batch)))
        last_config = self._tip.last_config if next_rules is None else header.number
        signers = self._signers() if self._is_bft else []
        ids = [signer.consenter_id for signer in signers if signer.consenter_id is not None]
        successor = None if next_rules is None else next_rules.configuration
        consensus = next_consenter_metadata(self._tip, rules.configuration, successor, ids)
        value = signed_value(last_config, consensus)
        signatures = consenter_signatures(signers, header, value, self._chance.randbytes)
        for number in self.running:
            orderer = self.orderers[number]
            if self._is_bft:
                quorum = bft_quorum(len(rules.configuration.consenters))
                own = consenter_id(rules.configuration, orderer.identity)
                kept = kept_signatures(signatures, own, quorum, self._chance)
            else:
                kept = [own_signature(orderer.identity, header, value, self._chance.randbytes)]
            self._chains[number].append(assembled_block(header, batch, value, kept, last_config))
        self._tip = BlockTip(header, last_config, consensus)
        self._rules = next_rules or rules
        if self._is_bft:
            for content in batch:
                self._pool.order(transaction_request_id(parse(common_pb2.Envelope, content, "Envelope")))

    def _catch_up(self, orderer: Orderer) -> None:
        """Give an orderer the blocks it misses: a Raft orderer signs its copy, a BFT orderer takes another's."""
        chain = orderer.chains[self.channel_id]
        ahead = max(self._chains, key=lambda other: other.height)
        while chain.height < ahead.height:
            block = ahead.block(chain.height)
            signed = parse(common_pb2.Metadata, block.metadata.metadata[SLOT_SIGNATURES], "Metadata")
            if signed.signatures and signed.signatures[0].signature_header:
                tip = read_tip(block)
                own = own_signature(orderer.identity, tip.header, signed.value, self._chance.randbytes)
                block = assembled_block(tip.header, list(block.data.data), signed.value, [own], tip.last_config)
            chain.append(block)

    def _rules_in_force(self, chain: BlockFiles, number: int) -> ChannelRules:
        envelopes = tuple(chain.block(number).data.data)
        if number == 0:
            return judge_genesis(envelopes).rules
        config = decode_transaction(0, envelopes[0]).config
        if config is None:
            raise LedgerError(f"block {number} of {self.channel_id} is no configuration")
        return channel_rules(self.channel_id, config)


def batch_limits(configuration: ChannelConfiguration) -> BatchLimits:
    """Read the limits of blocks from the configuration in force."""
    values = configuration.root.groups["Orderer"].values
    size = parse(orderer_pb2.BatchSize, values["BatchSize"].value, "BatchSize")
    if configuration.consensus_type == BFT:
        options = parse(smartbft_pb2.Options, configuration.consensus_metadata, "Options")
        seconds = decode_duration(options.request_batch_max_interval) / _NANOSECONDS
        return BatchLimits(size.max_message_count, size.absolute_max_bytes, size.absolute_max_bytes, seconds)
    timeout = parse(orderer_pb2.BatchTimeout, values["BatchTimeout"].value, "BatchTimeout").timeout
    seconds = decode_duration(timeout) / _NANOSECONDS
    return BatchLimits(size.max_message_count, size.preferred_max_bytes, size.absolute_max_bytes, seconds)
