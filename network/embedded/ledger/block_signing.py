"""What orderers write into the metadata of a block, in the form of Raft and of BFT. Pure but for nonces and chance.

Raft: each orderer signs its own copy by itself. BFT: a quorum of consenters signs once, and each orderer keeps as many
of their signatures as it takes, its own last: copies differ in subset and order.

Rules: `orderer/common/multichannel/blockwriter.go`, `orderer/consensus/etcdraft/chain.go` (writeConfigBlock),
`orderer/consensus/smartbft/{chain,signer,assembler}.go`; SmartBFT's ViewMetadata.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2
from fabric_protos.orderer.etcdraft import metadata_pb2 as raft_metadata_pb2

from gateway.client.identity import SigningIdentity
from network.credentials.issuing import Randomness
from network.protocol.block import SLOT_LAST_CONFIG, SLOT_SIGNATURES, SLOTS, BlockHeader, header_bytes
from network.protocol.certificate import decode_pem
from network.protocol.config_transition import BFT, RaftMembership, first_raft_membership, raft_membership
from network.protocol.configuration import ChannelConfiguration
from network.protocol.errors import DecodeError
from network.protocol.identity import decode_serialized_identity
from network.protocol.wire import append_varint, read_varint, scan_fields

NONCE_BYTES: Final = 24
_VIEW_ID, _LATEST_SEQUENCE, _DECISIONS_IN_VIEW = 1, 2, 3


class BlockTip(NamedTuple):
    """Where a chain stands: its newest header, the block of its configuration, and what consensus noted last."""

    header: BlockHeader
    last_config: int
    consenter_metadata: bytes


def read_tip(block: common_pb2.Block) -> BlockTip:
    """Read where a chain stands from its newest block; raises DecodeError."""
    header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
    if header.number == 0:
        return BlockTip(header, 0, b"")
    value = common_pb2.Metadata.FromString(block.metadata.metadata[SLOT_SIGNATURES]).value
    message = common_pb2.OrdererBlockMetadata.FromString(value)
    return BlockTip(header, message.last_config.index, message.consenter_metadata)


# --- what consensus notes


def next_consenter_metadata(
    tip: BlockTip, configuration: ChannelConfiguration, successor: ChannelConfiguration | None, running: Sequence[int]
) -> bytes:
    """Give what consensus notes in the block after `tip`; `successor` is the configuration that the block brings.

    `running`: for BFT the ids of the consenters that take part.
    """
    if configuration.consensus_type == BFT:
        return _next_view(tip, configuration, running)
    return _next_raft_metadata(tip, configuration, successor)


def _next_raft_metadata(
    tip: BlockTip, configuration: ChannelConfiguration, successor: ChannelConfiguration | None
) -> bytes:
    first = first_raft_membership(configuration)
    # In the log of Raft one entry per orderer, and the leader's, come before block 1.
    membership, index = first, len(first.consenter_ids) + 1
    if tip.consenter_metadata:
        wrapped = common_pb2.Metadata.FromString(tip.consenter_metadata).value
        message = raft_metadata_pb2.BlockMetadata.FromString(wrapped)
        membership = RaftMembership(tuple(message.consenter_ids), message.next_consenter_id)
        index = message.raft_index
    if successor is not None:
        membership = raft_membership(membership, configuration, successor)
    raft = raft_metadata_pb2.BlockMetadata(**membership._asdict(), raft_index=index + 1)
    return bytes(common_pb2.Metadata(value=raft.SerializeToString()).SerializeToString())


def _next_view(tip: BlockTip, configuration: ChannelConfiguration, running: Sequence[int]) -> bytes:
    """Give the ViewMetadata; where the leader of the view does not run, the next one that does has taken over."""
    view, decisions = 0, 0
    if tip.header.number > 0:
        try:
            before = {field.number: read_varint(field.raw, 0)[0] for field in scan_fields(tip.consenter_metadata)}
        except DecodeError:
            before = {}  # of Raft, before it gave way to BFT
        view, decisions = before.get(_VIEW_ID, 0), before.get(_DECISIONS_IN_VIEW, 0) + 1
    consenters = sorted([consenter.consenter_id for consenter in configuration.consenters])
    while consenters and running and consenters[view % len(consenters)] not in running:
        view, decisions = view + 1, 0
    out = bytearray()
    for number, value in (
        (_VIEW_ID, view),
        (_LATEST_SEQUENCE, tip.header.number + 1),
        (_DECISIONS_IN_VIEW, decisions),
    ):
        if value:
            append_varint(out, number << 3)
            append_varint(out, value)
    return bytes(out)


# --- copies


class SigningOrderer(NamedTuple):
    """An orderer that takes part: what it signs with, and its id among the consenters (BFT)."""

    identity: SigningIdentity
    consenter_id: int | None


def consenter_id(configuration: ChannelConfiguration, identity: SigningIdentity) -> int | None:
    """Give the id of the BFT consenter that an identity is, None when it is none."""
    own = decode_serialized_identity(identity.creator)
    for consenter in configuration.consenters:
        if consenter.msp_id == own.msp_id and decode_pem(consenter.certificate_pem) == decode_pem(own.id_bytes):
            return consenter.consenter_id
    return None


def signed_value(last_config: int, consenter_metadata: bytes) -> bytes:
    """Give the value of slot 0, which signatures cover."""
    message = common_pb2.OrdererBlockMetadata(
        last_config=common_pb2.LastConfig(index=last_config), consenter_metadata=consenter_metadata
    )
    return bytes(message.SerializeToString())


def own_signature(
    identity: SigningIdentity, header: BlockHeader, value: bytes, randomness: Randomness
) -> common_pb2.MetadataSignature:
    """Sign a block as a Raft orderer does."""
    named = common_pb2.SignatureHeader(creator=identity.creator, nonce=randomness(NONCE_BYTES)).SerializeToString()
    signature = identity.sign(value + named + header_bytes(header))
    return common_pb2.MetadataSignature(signature_header=named, signature=signature)


def consenter_signatures(
    orderers: Sequence[SigningOrderer], header: BlockHeader, value: bytes, randomness: Randomness
) -> dict[int, common_pb2.MetadataSignature]:
    """Sign a block as BFT consenters do, each once; by consenter id."""
    signatures = {}
    for orderer in orderers:
        if orderer.consenter_id is None:
            continue
        named = common_pb2.IdentifierHeader(identifier=orderer.consenter_id, nonce=randomness(NONCE_BYTES))
        content = named.SerializeToString()
        signatures[orderer.consenter_id] = common_pb2.MetadataSignature(
            identifier_header=content, signature=orderer.identity.sign(value + content + header_bytes(header))
        )
    return signatures


def kept_signatures(
    signatures: Mapping[int, common_pb2.MetadataSignature], own: int | None, quorum: int, chance: Random
) -> list[common_pb2.MetadataSignature]:
    """Choose the quorum of signatures that one orderer keeps: those of others that came first, then its own."""
    others = [number for number in signatures if number != own]
    is_signer = own in signatures
    chosen = chance.sample(others, min(len(others), quorum - is_signer))
    if own is not None and is_signer:
        chosen.append(own)
    return [signatures[number] for number in chosen]


def assembled_block(
    header: BlockHeader,
    envelopes: Sequence[bytes],
    value: bytes,
    signatures: Sequence[common_pb2.MetadataSignature],
    last_config: int,
) -> common_pb2.Block:
    """Put a block together; the slots of the peer stay empty."""
    slots = [b""] * SLOTS
    slots[SLOT_SIGNATURES] = common_pb2.Metadata(value=value, signatures=signatures).SerializeToString()
    last = common_pb2.LastConfig(index=last_config).SerializeToString()
    slots[SLOT_LAST_CONFIG] = common_pb2.Metadata(value=last).SerializeToString()
    return common_pb2.Block(
        header=common_pb2.BlockHeader(
            number=header.number, previous_hash=header.previous_hash, data_hash=header.data_hash
        ),
        data=common_pb2.BlockData(data=envelopes),
        metadata=common_pb2.BlockMetadata(metadata=slots),
    )
