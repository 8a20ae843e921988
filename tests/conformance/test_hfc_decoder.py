"""A second opinion on every recorded block: hfc's block decoder, which shares no code with ours."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol.block import Block
from network.protocol.decode import decode_block
from network.protocol.identity import decode_serialized_identity
from network.protocol.read_write_set import KeyRead, RangeQuery, decode_read_write_set
from network.protocol.transaction import Action, Transaction
from tests.support.older_client import hfc_modules
from tests.support.recorded_chain import ALL_CHAINS, CHAINS, load_chain

NO_EVENT: Final = ("", "", "", b"")


@pytest.fixture(scope="module")
def decoder() -> Any:
    return hfc_modules().blocks


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_headers_and_verdicts_are_what_hfc_reads(name: str, decoder: Any) -> None:
    for content in load_chain(name).blocks:
        ours, message = decode_block(content), common_pb2.Block.FromString(content)
        header = decoder.decode_block_header(message.header)
        signatures, last_config, flags = decoder.decode_block_metadata(message.metadata)["metadata"]

        assert ours.header.number == header["number"]
        assert ours.header.previous_hash.hex().encode() == header["previous_hash"]
        assert ours.header.data_hash.hex().encode() == header["data_hash"]
        assert list(ours.flags) == flags
        assert len(signatures["signatures"]) >= (ours.header.number > 0)
        assert last_config["value"]["index"] <= ours.header.number


@pytest.mark.parametrize("name", ALL_CHAINS)
def test_transactions_are_what_hfc_reads(name: str, decoder: Any) -> None:
    whole = broken = 0
    for block, transaction, envelope in transactions(name):
        place = (block.header.number, transaction.tx_number)
        try:
            theirs = decoder.decode_block_data_envelope(common_pb2.Envelope.FromString(envelope))
        except Exception:  # noqa: BLE001  # of every kind: hfc lets its libraries' errors through
            # What hfc cannot read at all we read as far as it goes. No peer found it valid, unless what cannot be read
            # is an endorser, who then does not count.
            broken += 1
            is_refused = transaction.defect is not None or block.flags[transaction.tx_number] != 0
            assert is_refused or b"nobody" in {it.endorser for it in transaction.action.endorsements}, place
            continue
        whole += 1
        assert our_header(transaction) == their_header(theirs["payload"]["header"]), place
        if transaction.action is not None:
            (action,) = theirs["payload"]["data"]["actions"]
            assert our_action(transaction.action, simulated(envelope)) == their_action(action["payload"]), place
    assert whole > 70
    assert broken < 10


def test_a_difference_is_seen(decoder: Any) -> None:
    block, transaction, envelope = next(
        found for found in transactions(CHAINS[0]) if found[1].action is not None and found[1].action.writes
    )
    assert transaction.action is not None
    theirs = decoder.decode_block_data_envelope(common_pb2.Envelope.FromString(envelope))
    right = their_action(theirs["payload"]["data"]["actions"][0]["payload"])
    result = simulated(envelope)
    assert our_action(transaction.action, result) == right

    for change in (
        {"endorsements": transaction.action.endorsements[1:]},
        {"event": ("chaincode", "id", "name", b"payload")},
    ):
        assert our_action(transaction.action._replace(**change), result) != right
    other_status = proposal_pb2.ChaincodeAction.FromString(result.SerializeToString())
    other_status.response.status = 201
    other_writes = proposal_pb2.ChaincodeAction.FromString(result.SerializeToString())
    other_writes.results = b""
    for other in (other_status, other_writes):
        assert our_action(transaction.action, other) != right
    assert block.header.number > 0


def transactions(name: str) -> Iterator[tuple[Block, Transaction, bytes]]:
    for content in load_chain(name).blocks:
        block = decode_block(content)
        for transaction, envelope in zip(block.transactions, block.envelopes, strict=True):
            yield block, transaction, envelope


def our_header(transaction: Transaction) -> object:
    msp_id = decode_serialized_identity(transaction.creator).msp_id
    return transaction.header_type, transaction.channel_id, transaction.tx_id, msp_id


def their_header(header: Any) -> object:
    channel = header["channel_header"]
    return channel["type"], channel["channel_id"], channel["tx_id"], header["signature_header"]["creator"]["mspid"]


def simulated(envelope: bytes) -> Any:
    """Give the ChaincodeAction message of a transaction: what the endorsers signed of its simulation."""
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
    (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
    endorsed = transaction_pb2.ChaincodeActionPayload.FromString(action.payload).action
    response = proposal_response_pb2.ProposalResponsePayload.FromString(endorsed.proposal_response_payload)
    return proposal_pb2.ChaincodeAction.FromString(response.extension)


def our_action(action: Action, result: Any) -> object:
    endorsers = [(decode_serialized_identity(it.endorser).msp_id, it.signature) for it in action.endorsements]
    sets = [
        (
            found.namespace,
            [our_read(read) for read in found.reads],
            [our_range(query) for query in found.range_queries],
            [(write.key, write.is_delete, write.value) for write in found.writes],
        )
        for found in decode_read_write_set(result.results)
    ]
    return action.chaincode or ("", ""), result.response.status, endorsers, action.event or NO_EVENT, sets


def their_action(payload: Any) -> object:
    extension = payload["action"]["proposal_response_payload"]["extension"]
    endorsers = [(it["endorser"]["mspid"], it["signature"]) for it in payload["action"]["endorsements"]]
    sets = [
        (
            found["namespace"],
            [their_read(read) for read in found["rwset"]["reads"]],
            [their_range(query) for query in found["rwset"]["range_queries_info"]],
            [(it["key"], it["is_delete"] or not it["value"], it["value"]) for it in found["rwset"]["writes"]],
        )
        for found in extension["results"]["ns_rwset"]
    ]
    chaincode, event = extension["chaincode_id"], extension["events"]
    return (
        (chaincode["name"], chaincode["version"]),
        extension["response"]["status"],
        endorsers,
        (event["chaincode_id"], event["tx_id"], event["event_name"], event["payload"]),
        sets,
    )


def our_read(read: KeyRead) -> object:
    return read.key, tuple(map(str, read.version or (0, 0)))


def their_read(read: Any) -> object:
    return read["key"], (read["version"]["block_num"], read["version"]["tx_num"])


def our_range(query: RangeQuery) -> object:
    reads = [our_read(read) for read in query.raw_reads or ()]
    return query.start_key, query.end_key, query.exhausted, reads, query.merkle_summary or (0, 0, ())


def their_range(query: Any) -> object:
    reads = [their_read(read) for read in query["raw_reads"]["kv_reads"]]
    summary = query["reads_merkle_hashes"]
    hashes = tuple(summary["max_level_hashes"])
    merkle = (summary["max_degree"], summary["max_level"], hashes)
    return query["start_key"], query["end_key"], query["itr_exhausted"], reads, merkle
