"""Every orderer signature that real Fabric networks recorded checks out under its configuration, and nothing else."""

from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
from fabric_protos.common import common_pb2

from network.protocol.block import BlockHeader
from network.protocol.block_signature import ChannelTrust, last_config_index
from network.protocol.configuration import decode_config_envelope
from network.protocol.errors import PolicyError, ProtocolError
from tests.support.recorded_chain import OWN_CHAINS, load_chain

RAFT, BFT, SERVICE_WEEK = "fabric-3.1.5-raft", "fabric-3.1.5-bft", "fabric-3.1.5-service-week"
OWN_RAFT, OWN_BFT, OWN_LTS = OWN_CHAINS


class Recorded(NamedTuple):
    """A block after the first, with the trust that is in force for it."""

    header: BlockHeader
    metadata: tuple[bytes, ...]
    trust: ChannelTrust
    last_config: int


def config_envelope(block: common_pb2.Block) -> bytes | None:
    for envelope in block.data.data:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        if common_pb2.ChannelHeader.FromString(payload.header.channel_header).type == common_pb2.CONFIG:
            return bytes(payload.data)
    return None


@cache
def chain(name: str) -> tuple[Recorded, ...]:
    recorded, trust, last_config = [], None, 0
    for block in map(common_pb2.Block.FromString, load_chain(name).blocks):
        header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
        config = config_envelope(block)
        if config is not None:
            last_config = header.number
        if trust is not None:
            recorded.append(Recorded(header, tuple(block.metadata.metadata), trust, last_config))
        if config is not None:
            trust = ChannelTrust(decode_config_envelope(config))
    return tuple(recorded)


def slot_of(block: Recorded) -> common_pb2.Metadata:
    return common_pb2.Metadata.FromString(block.metadata[0])


def with_slot(block: Recorded, slot: common_pb2.Metadata) -> tuple[bytes, ...]:
    return (slot.SerializeToString(), *block.metadata[1:])


@pytest.mark.parametrize(
    ("name", "signers_per_block"),
    [(RAFT, 1), (SERVICE_WEEK, 1), (BFT, 3), (OWN_RAFT, 1), (OWN_BFT, 3), (OWN_LTS, 1)],
)
def test_every_recorded_signature_verifies(name: str, signers_per_block: int) -> None:
    blocks = chain(name)

    attestations = [block.trust.verify_block(block.header, block.metadata) for block in blocks]

    assert [len(slot_of(block).signatures) for block in blocks] == [signers_per_block] * len(blocks)
    assert [len(attestation.signers) for attestation in attestations] == [signers_per_block] * len(blocks)
    assert len({block.header.number for block in blocks}) == len(blocks) > 50


@pytest.mark.parametrize(
    ("name", "by_id"),
    [(RAFT, False), (SERVICE_WEEK, False), (BFT, True), (OWN_RAFT, False), (OWN_BFT, True), (OWN_LTS, False)],
)
def test_bft_names_signers_by_consenter_id_and_raft_by_certificate(name: str, by_id: bool) -> None:
    seen: Counter[int | None] = Counter()

    for block in chain(name):
        seen.update(signer.consenter_id for signer in block.trust.verify_block(block.header, block.metadata).signers)

    assert set(seen) == ({1, 2, 3, 4} if by_id else {None})


@pytest.mark.parametrize("name", [RAFT, BFT, SERVICE_WEEK, *OWN_CHAINS])
def test_last_config_index_follows_the_configuration_blocks(name: str) -> None:
    assert all(last_config_index(block.metadata) == block.last_config for block in chain(name))


def test_chains_contain_configuration_changes() -> None:
    assert len({id(block.trust) for block in chain(RAFT)}) > 1


@pytest.mark.parametrize("name", [RAFT, BFT])
def test_rejects_any_flipped_byte_of_a_signature(name: str) -> None:
    block = chain(name)[5]
    length = len(slot_of(block).signatures[0].signature)
    accepted = []

    for position in range(length):
        slot = slot_of(block)
        signature = bytearray(slot.signatures[0].signature)
        signature[position] ^= 1
        slot.signatures[0].signature = bytes(signature)
        try:
            block.trust.verify_block(block.header, with_slot(block, slot))
        except PolicyError:
            continue
        accepted.append(position)

    assert accepted == []


@pytest.mark.parametrize("name", [RAFT, BFT])
def test_rejects_any_flipped_byte_of_the_signed_value(name: str) -> None:
    block = chain(name)[5]
    value = slot_of(block).value

    for position in range(len(value)):
        slot = slot_of(block)
        slot.value = value[:position] + bytes((value[position] ^ 0x80,)) + value[position + 1 :]

        with pytest.raises(PolicyError, match="/Channel/Orderer/BlockValidation"):
            block.trust.verify_block(block.header, with_slot(block, slot))


@pytest.mark.parametrize("name", [RAFT, BFT])
def test_rejects_another_header(name: str) -> None:
    block = chain(name)[5]
    header = block.header
    others = [
        header._replace(number=header.number + 1),
        header._replace(previous_hash=bytes(32)),
        header._replace(data_hash=header.data_hash[:-1] + bytes((header.data_hash[-1] ^ 1,))),
    ]

    for other in others:
        with pytest.raises(PolicyError):
            block.trust.verify_block(other, block.metadata)


@pytest.mark.parametrize("name", [RAFT, BFT])
def test_rejects_any_flipped_byte_of_the_signer_header(name: str) -> None:
    block = chain(name)[5]
    field = "identifier_header" if name == BFT else "signature_header"
    original = getattr(slot_of(block).signatures[0], field)

    for position in range(0, len(original), 7):
        slot = slot_of(block)
        setattr(
            slot.signatures[0],
            field,
            original[:position] + bytes((original[position] ^ 1,)) + original[position + 1 :],
        )

        with pytest.raises(ProtocolError):
            block.trust.verify_block(block.header, with_slot(block, slot))


def test_rejects_bft_block_with_one_signature_removed() -> None:
    block = chain(BFT)[5]

    for missing in range(3):
        slot = slot_of(block)
        del slot.signatures[missing]

        with pytest.raises(PolicyError, match="2 good of 2"):
            block.trust.verify_block(block.header, with_slot(block, slot))


def test_rejects_bft_quorum_made_of_one_repeated_signature() -> None:
    block = chain(BFT)[5]
    slot = slot_of(block)
    slot.signatures[2].CopyFrom(slot.signatures[0])

    with pytest.raises(PolicyError, match="2 good of 3"):
        block.trust.verify_block(block.header, with_slot(block, slot))


def test_rejects_signatures_of_another_block() -> None:
    first, second = chain(BFT)[5:7]

    with pytest.raises(PolicyError):
        second.trust.verify_block(second.header, first.metadata)


def test_rejects_signatures_of_another_network() -> None:
    raft, week = chain(RAFT)[5], chain(SERVICE_WEEK)[5]

    with pytest.raises(PolicyError, match="0 good of 1"):
        raft.trust.verify_block(week.header, week.metadata)


@pytest.mark.parametrize("name", [RAFT, BFT])
def test_rejects_unsigned_block(name: str) -> None:
    block = chain(name)[5]
    slot = slot_of(block)
    del slot.signatures[:]

    with pytest.raises(PolicyError, match="0 good of 0"):
        block.trust.verify_block(block.header, with_slot(block, slot))
