"""The ordering service of a channel: takes envelopes, cuts blocks, and gives each orderer its own signed copy.

There is one order in one process, so no consensus is run; blocks have the form that Raft gives them. As with Raft each
orderer signs for itself, so that copies of a block differ in their signature.

Rules: `orderer/common/multichannel/blockwriter.go`, `orderer/consensus/etcdraft/chain.go`.
"""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2
from fabric_protos.orderer.etcdraft import metadata_pb2 as raft_metadata_pb2

from gateway.client.identity import SigningIdentity
from network.credentials.issuing import Randomness
from network.embedded.ledger.admission import check_envelope
from network.embedded.ledger.block_cutter import BatchLimits, BlockCutter
from network.embedded.ledger.block_file import BlockFiles
from network.embedded.ledger.clock import Clock
from network.errors import LedgerError
from network.protocol.block import (
    SLOT_LAST_CONFIG,
    SLOT_SIGNATURES,
    SLOTS,
    BlockHeader,
    data_hash,
    header_bytes,
    header_hash,
)
from network.protocol.block_signature import last_config_index
from network.protocol.configuration import ChannelConfiguration
from network.protocol.decode import decode_transaction
from network.protocol.endorsement_policy import ChannelRules, channel_rules
from network.protocol.validation import judge_genesis
from network.protocol.wire import parse

NONCE_BYTES: Final = 24

_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class _Tip(NamedTuple):
    header: BlockHeader
    last_config: int
    raft_index: int


class Orderer:
    """One orderer's copy of the channels: block files with blocks it signed itself."""

    def __init__(self, name: str, identity: SigningIdentity, folder: Path) -> None:
        self.name = name
        self.identity = identity
        self._folder = folder
        self.chains: dict[str, BlockFiles] = {}

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
    """The order of one channel. `join` or an earlier run gives it the first block; then `run` cuts by time."""

    def __init__(self, channel_id: str, orderers: Sequence[Orderer], clock: Clock, randomness: Randomness) -> None:
        self.channel_id = channel_id
        self.orderers = tuple(orderers)
        self._clock = clock
        self._randomness = randomness
        self._cutter = BlockCutter()
        self._due: float | None = None
        self._waits = asyncio.Event()
        self._grown = asyncio.Condition()
        self._chains = [orderer.open_chain(channel_id) for orderer in self.orderers]
        self._rules: ChannelRules | None = None
        self._tip: _Tip | None = None
        self._copy_what_is_missing()
        if self.height:
            self._tip = _tip(self._chains[0].block(self.height - 1), len(self.orderers))
            self._rules = self._rules_in_force(self._tip.last_config)

    def join(self, genesis: common_pb2.Block) -> None:
        """Begin with the channel's first block; again with the same block it changes nothing.

        Raises LedgerError for another block or another consensus than Raft, DecodeError or ConfigurationError for a
        block that is no channel's first.
        """
        if self.height:
            if self._chains[0].block(0).header != genesis.header:
                raise LedgerError(f"the orderers have joined {self.channel_id} with another first block")
            return
        rules = judge_genesis(tuple(genesis.data.data)).rules
        if rules.configuration.consensus_type != "etcdraft":
            raise LedgerError(f"the embedded network orders as Raft does, not as {rules.configuration.consensus_type}")
        for chain in self._chains:
            chain.append(genesis)
        self._tip = _tip(genesis, len(self.orderers))
        self._rules = rules

    @property
    def height(self) -> int:
        """Number of the next block."""
        return self._chains[0].height

    @property
    def rules(self) -> ChannelRules:
        """The configuration in force."""
        if self._rules is None:
            raise LedgerError(f"{self.channel_id} has no first block yet")
        return self._rules

    def block(self, orderer: int, number: int) -> common_pb2.Block:
        """Give an orderer's copy of a block."""
        return self._chains[orderer].block(number)

    async def wait_for_height(self, above: int) -> None:
        """Return when the height is above a number."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.height > above)

    # --- taking envelopes

    async def broadcast(self, envelope: common_pb2.Envelope) -> None:
        """Take an envelope: when this returns, it will be in a block. Raises AdmissionError."""
        limits = self._limits()
        check_envelope(envelope, self.rules, limits.absolute_max_bytes, self._clock.now())
        size = len(envelope.payload) + len(envelope.signature)
        # Written again: receivers demand the canonical bytes.
        batches = self._cutter.add(envelope.SerializeToString(), size, limits)
        if not self._cutter.has_pending:
            self._due = None
        elif self._due is None:
            self._due = self._clock.now() + limits.timeout_seconds
            self._waits.set()
        await self._write(batches)

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
        """Make a block of what waits."""
        self._due = None
        await self._write(self._cutter.cut())

    async def _write(self, batches: list[list[bytes]]) -> None:
        for batch in batches:
            self._write_block(batch)
        if batches:
            async with self._grown:
                self._grown.notify_all()

    def _limits(self) -> BatchLimits:
        return batch_limits(self.rules.configuration)

    # --- blocks

    def _write_block(self, batch: list[bytes]) -> None:
        if self._tip is None:
            raise LedgerError(f"{self.channel_id} has no first block yet")
        before, last_config, raft_index = self._tip
        header = BlockHeader(before.number + 1, header_hash(before), data_hash(tuple(batch)))
        self._tip = _Tip(header, last_config, raft_index + 1)
        value = self._signed_value(last_config, raft_index + 1)
        for orderer, chain in zip(self.orderers, self._chains, strict=True):
            chain.append(self._signed_block(orderer, header, batch, value, last_config))

    def _signed_value(self, last_config: int, raft_index: int) -> bytes:
        metadata = parse(raft_pb2.ConfigMetadata, self.rules.configuration.consensus_metadata, "ConfigMetadata")
        count = len(metadata.consenters)
        raft = raft_metadata_pb2.BlockMetadata(
            consenter_ids=range(1, count + 1), next_consenter_id=count + 1, raft_index=raft_index
        )
        message = common_pb2.OrdererBlockMetadata(
            last_config=common_pb2.LastConfig(index=last_config),
            consenter_metadata=common_pb2.Metadata(value=raft.SerializeToString()).SerializeToString(),
        )
        return bytes(message.SerializeToString())

    def _signed_block(
        self, orderer: Orderer, header: BlockHeader, batch: Sequence[bytes], value: bytes, last_config: int
    ) -> common_pb2.Block:
        nonce = self._randomness(NONCE_BYTES)
        signature_header = common_pb2.SignatureHeader(creator=orderer.identity.creator, nonce=nonce).SerializeToString()
        signature = orderer.identity.sign(value + signature_header + header_bytes(header))
        slots = [b""] * SLOTS
        slots[SLOT_SIGNATURES] = common_pb2.Metadata(
            value=value,
            signatures=[common_pb2.MetadataSignature(signature_header=signature_header, signature=signature)],
        ).SerializeToString()
        last = common_pb2.LastConfig(index=last_config).SerializeToString()
        slots[SLOT_LAST_CONFIG] = common_pb2.Metadata(value=last).SerializeToString()
        return common_pb2.Block(
            header=common_pb2.BlockHeader(
                number=header.number, previous_hash=header.previous_hash, data_hash=header.data_hash
            ),
            data=common_pb2.BlockData(data=batch),
            metadata=common_pb2.BlockMetadata(metadata=slots),
        )

    def _copy_what_is_missing(self) -> None:
        """Bring every orderer to the same height: the process may have died between two of them."""
        ahead = max(self._chains, key=lambda chain: chain.height)
        for orderer, chain in zip(self.orderers, self._chains, strict=True):
            while chain.height < ahead.height:
                block = ahead.block(chain.height)
                if block.header.number == 0:
                    chain.append(block)
                    continue
                header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
                value = parse(common_pb2.Metadata, block.metadata.metadata[SLOT_SIGNATURES], "Metadata").value
                last_config = last_config_index(tuple(block.metadata.metadata))
                chain.append(self._signed_block(orderer, header, list(block.data.data), value, last_config))

    def _rules_in_force(self, number: int) -> ChannelRules:
        envelopes = tuple(self._chains[0].block(number).data.data)
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
    timeout = parse(orderer_pb2.BatchTimeout, values["BatchTimeout"].value, "BatchTimeout").timeout
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(timeout))
    return BatchLimits(size.max_message_count, size.preferred_max_bytes, size.absolute_max_bytes, seconds)


def _tip(block: common_pb2.Block, orderers: int) -> _Tip:
    """Read where a chain stands; in the log of Raft one entry per orderer, and the leader's, come before block 1."""
    header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
    if header.number == 0:
        return _Tip(header, 0, orderers + 1)
    value = parse(common_pb2.Metadata, block.metadata.metadata[SLOT_SIGNATURES], "Metadata").value
    message = parse(common_pb2.OrdererBlockMetadata, value, "OrdererBlockMetadata")
    wrapped = parse(common_pb2.Metadata, message.consenter_metadata, "Metadata").value
    raft_index = parse(raft_metadata_pb2.BlockMetadata, wrapped, "BlockMetadata").raft_index
    return _Tip(header, message.last_config.index, raft_index)
