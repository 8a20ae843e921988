"""The recorded chains of real peers, judged again from the first block on without any word of those peers.

Blocks are stripped of flags and commit hashes; configuration, definitions, state and verdicts all follow from the
envelopes. Everything must come out as the peers had it.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from network.protocol.collection import implicit_collection_name
from network.protocol.configuration import decode_config_envelope
from network.protocol.decode import decode_block
from network.protocol.lifecycle import approval_mismatches, read_committed_definition
from network.protocol.state import CONFIG_KEY
from network.protocol.validation import BlockJudgement, judge_block, judge_genesis
from network.protocol.validation_code import validation_code_name
from tests.support.memory_state import MemoryState
from tests.support.recorded_chain import ALL_CHAINS, RecordedChain, change_block, load_chain

EXCEPTED: dict[str, dict[tuple[int, int], str]] = {chain: {} for chain in ALL_CHAINS}
"""Transactions that we judge otherwise than the peers did: by chain, block and position, with our code. None are."""


@dataclass(frozen=True)
class JudgedChain:
    """A chain after the replay: what each block came to, the commit hash after each, the state at the end."""

    judgements: tuple[BlockJudgement, ...]
    commit_hashes: tuple[bytes | None, ...]
    state: MemoryState


def stripped(content: bytes) -> bytes:
    """Give a block without anything that a peer wrote into it."""

    def strip(block: Any) -> None:
        block.metadata.metadata[2] = b""
        block.metadata.metadata[4] = b""

    return change_block(content, strip)


@cache
def judged(name: str) -> JudgedChain:
    state = MemoryState()
    judgements: list[BlockJudgement] = []
    commit_hashes = []
    for number, content in enumerate(load_chain(name).blocks):
        block = decode_block(stripped(content))
        assert block.flags == b""
        assert block.commit_hash is None
        if number == 0:
            judgement = judge_genesis(block.envelopes)
        else:
            judgement = judge_block(number, block.envelopes, judgements[-1].rules, state)
        state.apply(judgement)
        judgements.append(judgement)
        commit_hashes.append(state.commit_hash)
    return JudgedChain(tuple(judgements), tuple(commit_hashes), state)


@pytest.fixture(params=ALL_CHAINS)
def chain(request: pytest.FixtureRequest) -> RecordedChain:
    return load_chain(request.param)


def test_every_transaction_gets_the_code_the_peers_gave_it(chain: RecordedChain) -> None:
    differing = {}
    count = 0
    for number, judgement in enumerate(judged(chain.name).judgements):
        recorded = decode_block(chain.blocks[number]).flags
        assert len(judgement.flags) == len(recorded)
        for position, (ours, theirs) in enumerate(zip(judgement.flags, recorded, strict=True)):
            count += 1
            if ours != theirs:
                differing[number, position] = validation_code_name(ours)

    assert differing == EXCEPTED[chain.name]
    assert count == len(chain.expected["transactions"])


def test_the_codes_are_those_of_the_recorders_list_too(chain: RecordedChain) -> None:
    found = [validation_code_name(code) for judgement in judged(chain.name).judgements for code in judgement.flags]

    assert found == [entry["code"] for entry in chain.expected["transactions"]]


def test_every_commit_hash_follows(chain: RecordedChain) -> None:
    recorded = [decode_block(content).commit_hash for content in chain.blocks]

    assert list(judged(chain.name).commit_hashes) == recorded
    assert sum(commit_hash is not None for commit_hash in recorded) == chain.expected["height"] - 1


def test_a_reason_is_given_for_what_is_refused_and_for_nothing_else(chain: RecordedChain) -> None:
    for judgement in judged(chain.name).judgements:
        assert [bool(reason) for reason in judgement.reasons] == [code != 0 for code in judgement.flags]


def test_nothing_is_said_to_stop_peers_that_went_on(chain: RecordedChain) -> None:
    assert [judgement.without_verdict for judgement in judged(chain.name).judgements if judgement.without_verdict] == []


def test_public_state_is_what_the_peers_answered(chain: RecordedChain) -> None:
    state = judged(chain.name).state
    chaincode = chain.expected["chaincode"]

    for key, expected in chain.state.items():
        found = state.value((chaincode, "", key))
        value = None if found is None else found.value
        if isinstance(expected, str):
            assert value is not None
            assert "sha256:" + hashlib.sha256(value).hexdigest() == expected
        else:
            assert value == (expected or None), key
    existing = {key for namespace, collection, key in state.keys if (namespace, collection) == (chaincode, "")}
    assert existing == {key for key, value in chain.state.items() if value}


def test_the_configuration_in_force_is_the_last_one_recorded(chain: RecordedChain) -> None:
    result = judged(chain.name)
    configs = [
        transaction.config
        for content in chain.blocks
        for transaction in decode_block(content).transactions
        if transaction.config is not None
    ]

    stored = result.state.value(CONFIG_KEY)

    assert stored is not None
    assert stored.value == configs[-1]
    assert result.judgements[-1].rules.configuration == decode_config_envelope(configs[-1])
    assert result.judgements[-1].rules.configuration.sequence == len(configs) - 1


def test_the_committed_definition_is_the_one_every_organisation_approved(chain: RecordedChain) -> None:
    result = judged(chain.name)
    chaincode = chain.expected["chaincode"]

    definition = read_committed_definition(chaincode, result.state.read_lifecycle)

    approved = {}
    for msp_id in result.judgements[-1].rules.application_msp_ids:

        def read_hash(key: str, collection: str = implicit_collection_name(msp_id)) -> bytes | None:
            return result.state.read_hash(collection, hashlib.sha256(key.encode()).digest())

        approved[msp_id] = approval_mismatches(chaincode, definition, read_hash)
    assert definition.sequence == (1 if chain.name.endswith("week") else 2)
    assert {msp_id for msp_id, differing in approved.items() if not differing} >= {"EnterpriseMSP", "CustomerMSP"}


def test_used_ids_are_those_that_transactions_claim(chain: RecordedChain) -> None:
    found = [tx_id for judgement in judged(chain.name).judgements for tx_id in judgement.tx_ids]

    for tx_id, entry in zip(found, chain.expected["transactions"], strict=True):
        assert tx_id == (entry["tx_id"] or computed_id(chain, entry))


def computed_id(chain: RecordedChain, entry: dict[str, Any]) -> str:
    """Work out the id under which peers find what claims none."""
    block = common_pb2.Block.FromString(chain.blocks[entry["block"]])
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block.data.data[entry["tx"]]).payload)
    header = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
    return hashlib.sha256(header.nonce + header.creator).hexdigest()


def test_hashed_state_is_that_of_the_private_values_the_peers_answered(chain: RecordedChain) -> None:
    state = judged(chain.name).state
    answers = 0
    for place, expected in chain.expected["private_state_as_each_peer_answers"].items():
        _, collection, key = place.split("/", 2)
        found = state.value((chain.expected["chaincode"], collection, hashlib.sha256(key.encode()).digest()))
        if expected is None:
            assert found is None, place
        elif not expected.startswith("ERROR"):
            assert found is not None, place
            assert found.value == hashlib.sha256(base64.b64decode(expected)).digest(), place
            answers += 1
    assert answers > 0
