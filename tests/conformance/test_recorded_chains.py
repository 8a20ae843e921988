"""What real Fabric networks wrote: our rules give the same hashes, verdict names, state and commit hashes."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from kvr_sync import errors
from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.model import Effect, LedgerKey, ReplayedBlock, StateValue
from kvr_sync.replay_state import StateReplay, check_commit_hash
from kvr_sync.verify import ChainVerifier
from network.protocol.block import data_hash, header_hash
from network.protocol.validation_code import validation_code_name
from tests.support.recorded_chain import (
    ALL_CHAINS,
    RecordedChain,
    change_block,
    load_chain,
    without_commit_hash,
)

FIRST = 6


@pytest.fixture(params=ALL_CHAINS)
def chain(request: pytest.FixtureRequest) -> RecordedChain:
    return load_chain(request.param)


def replay(blocks: list[bytes], recorded: dict[int, bytes | None]) -> list[ReplayedBlock]:
    """Run the pure part of the line over blocks whose commit hashes are `recorded`, kept apart from the blocks."""
    verifier = ChainVerifier()
    state: dict[LedgerKey, StateValue] = {}
    line = StateReplay(lambda keys: {key: state[key] for key in keys if key in state}, None)
    result = []
    for content in blocks:
        block = decode_block(content)
        assert block.commit_hash is None
        replayed = line.replay(extract_changes(verifier.verify(block, content)))
        result.append(check_commit_hash(replayed, recorded[block.header.number]))
    return result


def strip(chain: RecordedChain) -> tuple[list[bytes], dict[int, bytes | None]]:
    recorded = {decode_block(content).header.number: decode_block(content).commit_hash for content in chain.blocks}
    return [without_commit_hash(content) for content in chain.blocks], recorded


def test_header_and_data_hashes_chain_from_the_first_block_to_the_last(chain: RecordedChain) -> None:
    previous = b""
    for number, content in enumerate(chain.blocks):
        block = decode_block(content)

        assert block.header.number == number
        assert block.header.previous_hash == previous
        assert data_hash(block.envelopes) == block.header.data_hash
        previous = header_hash(block.header)

    assert len(chain.blocks) == chain.expected["height"]


def test_every_transaction_has_the_recorded_id_type_and_verdict(chain: RecordedChain) -> None:
    found = [
        {
            "block": number,
            "tx": transaction.facts.tx_number,
            "tx_id": transaction.facts.tx_id,
            "header_type": transaction.facts.header_type,
            "code": validation_code_name(transaction.facts.validation_code),
        }
        for number, block in enumerate(map(decode_block, chain.blocks))
        for transaction in block.transactions
    ]

    recorded = [{key: entry[key] for key in found[0]} for entry in chain.expected["transactions"]]
    for entry, expected in zip(found, recorded, strict=True):
        if expected["header_type"] == 1 and expected["block"] > 0:
            expected["tx_id"] = entry["tx_id"]  # A configuration carries none; the recorder shows the computed one.
        assert entry == expected


def test_every_commit_hash_is_derived_without_having_been_seen(chain: RecordedChain) -> None:
    blocks, recorded = strip(chain)

    replayed = replay(blocks, recorded)

    assert [block.commit_hash for block in replayed] == [recorded[number] for number in range(len(blocks))]
    assert sum(block.commit_hash_verified for block in replayed) == chain.expected["height"] - 1


def test_public_state_is_what_the_peer_answered(chain: RecordedChain) -> None:
    blocks, recorded = strip(chain)
    state: dict[bytes, bytes | None] = {}
    for block in replay(blocks, recorded):
        for write in block.writes:
            if (write.key.namespace, write.key.collection) == (chain.expected["chaincode"], ""):
                if write.effect in {Effect.PUT, Effect.VERSION}:
                    state[write.key.key] = write.value
                elif write.effect == Effect.DELETE:
                    state[write.key.key] = None

    expected = chain.state
    assert set(state) <= set(expected)  # what a transaction writes twice over may have no effect at all
    for key, value in expected.items():
        found = state.get(key)
        if isinstance(value, str):
            assert found is not None
            assert "sha256:" + hashlib.sha256(found).hexdigest() == value
        else:
            assert (found or None) == (value or None), key


def number_with_write(chain: RecordedChain) -> int:
    """Give the first block after those that define the chaincode whose first transaction writes a public key of it."""
    for number, block in enumerate(map(decode_block, chain.blocks)):
        (first, *_) = block.transactions
        if number >= FIRST and any(not write.key.collection for write in first.writes):
            return number
    raise AssertionError(chain.name)


def flip_write_set(block: Any) -> None:
    """Change one byte of the first public value, keeping all that a peer hashes consistent but the write itself."""
    envelope = common_pb2.Envelope.FromString(block.data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    action_payload = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    response = proposal_response_pb2.ProposalResponsePayload.FromString(action_payload.action.proposal_response_payload)
    action = proposal_pb2.ChaincodeAction.FromString(response.extension)
    results = rwset_pb2.TxReadWriteSet.FromString(action.results)
    entry = next(ns for ns in results.ns_rwset if kv_rwset_pb2.KVRWSet.FromString(ns.rwset).writes)
    public = kv_rwset_pb2.KVRWSet.FromString(entry.rwset)
    value = bytearray(public.writes[0].value)
    value[-1] ^= 1
    public.writes[0].value = bytes(value)
    entry.rwset = public.SerializeToString()
    action.results = results.SerializeToString()
    response.extension = action.SerializeToString()
    action_payload.action.proposal_response_payload = response.SerializeToString()
    transaction.actions[0].payload = action_payload.SerializeToString()
    payload.data = transaction.SerializeToString()
    envelope.payload = payload.SerializeToString()
    block.data.data[0] = envelope.SerializeToString()


def flip_flag(block: Any) -> None:
    flags = bytearray(block.metadata.metadata[2])
    flags[0] = 0 if flags[0] else 11
    block.metadata.metadata[2] = bytes(flags)


def flip_signature(block: Any) -> None:
    slot = common_pb2.Metadata.FromString(block.metadata.metadata[0])
    for signature in slot.signatures:
        changed = bytearray(signature.signature)
        changed[-1] ^= 1
        signature.signature = bytes(changed)
    block.metadata.metadata[0] = slot.SerializeToString()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(flip_write_set, errors.DataHashError, id="write set"),
        pytest.param(flip_flag, errors.CommitHashError, id="flag"),
        pytest.param(flip_signature, errors.BlockSignatureError, id="signature"),
    ],
)
def test_one_flipped_byte_is_refused(
    chain: RecordedChain, change: Callable[[Any], None], error: type[errors.VerificationError]
) -> None:
    blocks, recorded = strip(chain)
    number = number_with_write(chain)
    blocks[number] = change_block(blocks[number], change)

    with pytest.raises(error) as refused:
        replay(blocks, recorded)

    assert refused.value.block_number == number


def test_a_flipped_write_is_seen_by_the_commit_hash_alone(chain: RecordedChain) -> None:
    """Without hashes and signatures in the way, the commit hash by itself tells that a value is not the peer's."""
    blocks, recorded = strip(chain)
    number = number_with_write(chain)
    line = StateReplay(lambda _: {}, None)
    verifier = ChainVerifier()
    for content in blocks[:number]:
        line.replay(extract_changes(verifier.verify(decode_block(content), content)))
    verified = verifier.verify(decode_block(blocks[number]), blocks[number])
    changes = extract_changes(verified)
    written = changes.writes[-1]
    other = changes._replace(writes=(*changes.writes[:-1], written._replace(value=written.value + b"!")))

    with pytest.raises(errors.CommitHashError):
        check_commit_hash(line.replay(other), recorded[number])


@pytest.mark.parametrize("form", ["delivered bytes", "header hash", "without flags"])
def test_the_genesis_block_is_pinned_by_any_form_of_its_hash(chain: RecordedChain, form: str) -> None:
    content = chain.blocks[0]
    block = decode_block(content)

    def clear_flags(message: Any) -> None:
        message.metadata.metadata[2] = b""

    pin = {
        "delivered bytes": bytes.fromhex(chain.expected["genesis_sha256"]),
        "header hash": header_hash(block.header),
        "without flags": hashlib.sha256(change_block(content, clear_flags)).digest(),
    }[form]

    assert ChainVerifier(pin=pin).verify(block, content).channel == chain.expected["channel"]


def test_another_pin_is_refused(chain: RecordedChain) -> None:
    content = chain.blocks[0]

    with pytest.raises(errors.ConfigurationError, match="not the pinned one"):
        ChainVerifier(pin=hashlib.sha256(b"another").digest()).verify(decode_block(content), content)
