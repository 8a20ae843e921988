"""The factory's chains have the form of the recorded ones, pass every check of the line, and follow from their seed."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.model import Effect, LedgerKey, ReplayedBlock, StateValue
from kvr_sync.replay_state import StateReplay, check_commit_hash
from kvr_sync.verify import ChainVerifier
from network.protocol.read_write_set import Version
from tests.support.chain_factory import (
    ORDER,
    ChainFactory,
    TransactionSpec,
    delete,
    purge,
    put,
    set_metadata,
)
from tests.support.recorded_chain import change_block, load_chain

Consensus = Literal["raft", "bft"]
CONSENSUS: tuple[Consensus, ...] = ("raft", "bft")


def eventful(consensus: Consensus, seed: int = 1) -> ChainFactory:
    """Make a chain with every kind of write, invalid transactions, an event, configurations."""
    factory = ChainFactory(seed=seed, consensus=consensus)
    factory.block(
        [
            TransactionSpec([put("a", b"1"), put("b", b"2")], event=("made", b"{}")),
            TransactionSpec([put("a", b"lost")], code=11, reads=[("a", None)]),
            TransactionSpec([put("p", b"secret", collection="coll"), put("q", b"other", collection="coll")]),
        ]
    )
    factory.block([TransactionSpec([set_metadata("a", {"VALIDATION_PARAMETER": b"x"})], reads=[("a", Version(1, 0))])])
    factory.rotate_orderers()
    factory.block(
        [
            TransactionSpec([delete("b"), set_metadata("never", {"VALIDATION_PARAMETER": b"x"})]),
            TransactionSpec([purge("p", collection="coll"), set_metadata("q", {}, collection="coll")]),
            TransactionSpec(envelope=b"\x0a\x01\xff\x12\x01s", code=2),
        ]
    )
    factory.block([TransactionSpec([put("a", b""), put("other", b"3", namespace="another")])])
    return factory


def replay(blocks: list[bytes]) -> list[ReplayedBlock]:
    verifier, line, replayed = ChainVerifier(), StateReplay(lambda _: {}, None), []
    for content in blocks:
        block = decode_block(content)
        verified = verifier.verify(block, content)
        replayed.append(check_commit_hash(line.replay(extract_changes(verified)), block.commit_hash))
    return replayed


@pytest.mark.parametrize("consensus", CONSENSUS)
def test_every_block_is_verified_with_the_commit_hash_it_carries(consensus: Consensus) -> None:
    factory = eventful(consensus)

    replayed = replay(factory.blocks)

    assert [block.commit_hash_verified for block in replayed] == [False] + [True] * 5
    assert replayed[-1].changes.header.number == 5
    assert [block.changes.config is not None for block in replayed] == [True, False, False, True, False, False]


def test_the_writes_of_valid_transactions_have_the_effects_asked_for() -> None:
    replayed = replay(eventful("raft").blocks)

    state: dict[LedgerKey, StateValue] = {}
    for block in replayed:
        for write in block.writes:
            version = Version(block.changes.header.number, write.tx_number)
            if write.effect in {Effect.PUT, Effect.VERSION} and write.value is not None:
                state[write.key] = StateValue(write.value, version)
            elif write.effect == Effect.DELETE:
                state.pop(write.key, None)

    public = {(key.namespace, key.key): value for key, value in state.items() if not key.collection}
    private = [value.version for key, value in state.items() if key.collection]
    assert public == {("another", b"other"): StateValue(b"3", Version(5, 0))}
    assert private == [Version(4, 1)]
    assert [(event.name, event.payload) for event in replayed[1].changes.events] == [("made", b"{}")]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_network() -> None:
    chain = eventful("raft", seed=7)

    assert eventful("raft", seed=7).blocks == chain.blocks
    assert eventful("raft", seed=8).genesis() != chain.genesis()
    assert ChainFactory(seed=8).orderers[0].pem != chain.orderers[0].pem


@pytest.mark.parametrize("consensus", CONSENSUS)
def test_signatures_of_orderers_are_low_s_and_as_many_as_a_quorum(consensus: Consensus) -> None:
    for content in eventful(consensus).blocks[1:]:
        slot = common_pb2.Metadata.FromString(common_pb2.Block.FromString(content).metadata.metadata[0])

        assert len(slot.signatures) == (1 if consensus == "raft" else 3)
        for entry in slot.signatures:
            assert decode_dss_signature(entry.signature)[1] <= ORDER // 2


def test_a_changed_block_can_be_signed_again() -> None:
    factory = ChainFactory()
    content = factory.block([TransactionSpec([put("a", b"1")])])

    def renumber(block: Any) -> None:
        block.header.previous_hash = bytes(32)
        factory.resign(block)

    changed = change_block(content, renumber)

    def sign(block: Any) -> bytes:
        slot = common_pb2.Metadata.FromString(block.metadata.metadata[0])
        return bytes(slot.signatures[0].signature)

    assert sign(common_pb2.Block.FromString(changed)) != sign(common_pb2.Block.FromString(content))


# The form, compared with blocks that real networks wrote.

RECORDED = {"raft": load_chain("fabric-3.1.5-raft"), "bft": load_chain("fabric-3.1.5-bft")}


def fields(message: Any) -> dict[str, Any]:
    """Name the fields that a message holds, with their inner messages; of repeated ones the first."""
    found = {}
    for descriptor, value in message.ListFields():
        inner = value[0] if isinstance(getattr(value, "__len__", None), Callable) and hasattr(value, "add") else value
        found[descriptor.name] = fields(inner) if hasattr(inner, "ListFields") else type(inner).__name__
    return found


def envelope_form(envelope: bytes) -> dict[str, Any]:
    """Name every field from an envelope down to its public writes."""
    outer = common_pb2.Envelope.FromString(envelope)
    payload = common_pb2.Payload.FromString(outer.payload)
    channel_header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    form = {
        "envelope": fields(outer),
        "payload": fields(payload),
        "channel header": fields(channel_header),
        "signature header": fields(common_pb2.SignatureHeader.FromString(payload.header.signature_header)),
    }
    if channel_header.type != 3:
        return form
    form["extension"] = fields(proposal_pb2.ChaincodeHeaderExtension.FromString(channel_header.extension))
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    action_payload = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    response = proposal_response_pb2.ProposalResponsePayload.FromString(action_payload.action.proposal_response_payload)
    action = proposal_pb2.ChaincodeAction.FromString(response.extension)
    results = rwset_pb2.TxReadWriteSet.FromString(action.results)
    entry = next(ns for ns in results.ns_rwset if ns.namespace == "ext")
    for part in entry.collection_hashed_rwset:
        form[f"collection {part.collection_name}"] = fields(kv_rwset_pb2.HashedRWSet.FromString(part.hashed_rwset))
    form |= {
        "transaction": fields(transaction),
        "action payload": fields(action_payload),
        "response": fields(response),
        "action": fields(action),
        "namespaces": [ns.namespace for ns in results.ns_rwset],
        "definition": fields(kv_rwset_pb2.KVRWSet.FromString(results.ns_rwset[0].rwset)),
        "namespace": fields(entry),
        "public set": fields(kv_rwset_pb2.KVRWSet.FromString(entry.rwset)),
        "creator twice": transaction.actions[0].header == payload.header.signature_header,
    }
    return form


def block_form(content: bytes) -> dict[str, Any]:
    """Name the fields of header and metadata, and the sizes of what has one."""
    block = common_pb2.Block.FromString(content)
    slot = common_pb2.Metadata.FromString(block.metadata.metadata[0])
    value = common_pb2.OrdererBlockMetadata.FromString(slot.value)
    return {
        "block": fields(block),
        "slots": [bool(content) for content in block.metadata.metadata],
        "flags": block.metadata.metadata[2],
        "signatures": fields(slot),
        "signature count": len(slot.signatures),
        "orderer metadata": fields(value),
        "consenter metadata": len(value.consenter_metadata),
        "commit hash": len(common_pb2.Metadata.FromString(block.metadata.metadata[4]).value),
    }


@pytest.mark.parametrize("consensus", CONSENSUS)
def test_a_block_has_the_form_of_a_recorded_one(consensus: Consensus) -> None:
    recorded = RECORDED[consensus].blocks[6]
    made = ChainFactory(consensus=consensus)
    for _ in range(6):
        content = made.block([TransactionSpec([put("k", b"v")], arguments=[b"k", b"v"])])

    assert decode_block(recorded).header.number == decode_block(content).header.number == 6
    assert block_form(content) == block_form(recorded)
    made_form, recorded_form = (envelope_form(decode_block(block).envelopes[0]) for block in (content, recorded))
    assert made_form == recorded_form


def test_a_private_write_has_the_form_of_a_recorded_one() -> None:
    blocks = [decode_block(content) for content in load_chain("fabric-3.1.5-service-week").blocks]
    envelope = next(
        envelope
        for block in blocks
        for transaction, envelope in zip(block.transactions, block.envelopes, strict=True)
        if transaction.facts.function == b"privput"
    )
    made = ChainFactory().envelope(
        TransactionSpec([put("k", b"v", collection="entCust")], arguments=[b"entCust", b"k"])
    )

    assert envelope_form(made)["collection entCust"] == {"hashed_writes": {"key_hash": "bytes", "value_hash": "bytes"}}
    assert envelope_form(made) == envelope_form(envelope)


@pytest.mark.parametrize("consensus", CONSENSUS)
def test_a_genesis_block_has_the_form_and_the_tree_of_a_recorded_one(consensus: Consensus) -> None:
    recorded, made = RECORDED[consensus].blocks[0], ChainFactory(consensus=consensus).genesis()

    assert block_form(made) == block_form(recorded)
    assert envelope_form(decode_block(made).envelopes[0]) == envelope_form(decode_block(recorded).envelopes[0])
    assert tree(made) == tree(recorded)


def test_a_configuration_block_has_the_form_of_a_recorded_one() -> None:
    recorded = RECORDED["raft"].blocks[65]
    made = ChainFactory()
    made.block([TransactionSpec()])
    content = made.config_block()

    assert block_form(content)["signatures"] == block_form(recorded)["signatures"]
    assert block_form(content)["orderer metadata"] == block_form(recorded)["orderer metadata"]
    assert envelope_form(decode_block(content).envelopes[0]) == envelope_form(decode_block(recorded).envelopes[0])


def tree(genesis: bytes) -> dict[str, Any]:
    """Name what each group of a configuration holds; one application organisation stands for all."""
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(decode_block(genesis).envelopes[0]).payload)
    group = configtx_pb2.ConfigEnvelope.FromString(payload.data).config.channel_group
    found: dict[str, Any] = {}

    def visit(group: Any, path: str) -> None:
        found[path] = {
            "mod_policy": group.mod_policy,
            # Anchor peers are an update of their own in a channel's life, and may as well be there from the beginning.
            "values": {name: value.mod_policy for name, value in group.values.items() if name != "AnchorPeers"},
            "policies": {name: (entry.policy.type, entry.mod_policy) for name, entry in group.policies.items()},
        }
        for name in ("Capabilities", "HashingAlgorithm", "BlockDataHashingStructure"):
            if name in group.values:
                found[path][name] = group.values[name].value
        if "MSP" in group.values:
            found[path]["MSP"] = msp_form(group.values["MSP"].value)
        for name, inner in group.groups.items():
            visit(inner, f"{path}/{'ORG' if group.groups[name].values.get('MSP') else name}")

    visit(group, "/Channel")
    return found


def msp_form(content: bytes) -> dict[str, Any]:
    return fields(msp_config_pb2.FabricMSPConfig.FromString(msp_config_pb2.MSPConfig.FromString(content).config))
