"""Proposals and prepared transactions as real clients and peers wrote them: ids, hashes and bytes."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol.decode import decode_block
from network.protocol.proposal import (
    Response,
    decode_proposal,
    encode_envelope,
    prepared_transaction,
    proposal_hash,
    response_payload,
    sign_proposal,
    transaction_id,
)
from network.protocol.transaction import ChaincodeEvent, Endorsement
from tests.support.recorded_chain import ALL_CHAINS, load_chain

VALID = 0
UNKNOWN_FIELD = {"unknown field at the end of the payload", "an unknown field behind the payload"}


class Recorded(NamedTuple):
    envelope: bytes
    payload: common_pb2.Payload
    action: transaction_pb2.ChaincodeActionPayload


def recorded(chain: str) -> Iterator[Recorded]:
    for block in map(decode_block, load_chain(chain).blocks):
        for content, transaction, flag in zip(block.envelopes, block.transactions, block.flags, strict=True):
            if transaction.action is not None and flag == VALID:
                payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(content).payload)
                (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
                yield Recorded(content, payload, transaction_pb2.ChaincodeActionPayload.FromString(action.payload))


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_ids_and_hashes_are_those_of_the_network(chain: str) -> None:
    count = 0
    for _, payload, action in recorded(chain):
        header = payload.header
        author = common_pb2.SignatureHeader.FromString(header.signature_header)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(action.action.proposal_response_payload)

        tx_id = transaction_id(author.nonce, author.creator)
        found = proposal_hash(header.channel_header, header.signature_header, action.chaincode_proposal_payload)

        assert tx_id == common_pb2.ChannelHeader.FromString(header.channel_header).tx_id
        assert found == response.proposal_hash
        count += 1

    transactions = load_chain(chain).expected["transactions"]
    assert count == sum((entry["code"], entry["header_type"]) == ("VALID", 3) for entry in transactions)


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_transactions_are_prepared_as_the_gateway_prepared_them(chain: str) -> None:
    differing = []
    for content, payload, action in recorded(chain):
        given = proposal_pb2.ChaincodeProposalPayload.FromString(action.chaincode_proposal_payload)
        given.TransientMap["secret"] = b"hidden"
        message = proposal_pb2.Proposal(
            header=payload.header.SerializeToString(), payload=given.SerializeToString()
        ).SerializeToString()
        proposal = decode_proposal(sign_proposal(message, b"signature"))
        endorsements = [Endorsement(e.endorser, e.signature) for e in action.action.endorsements]

        prepared = prepared_transaction(proposal, endorsements, action.action.proposal_response_payload)

        signature = common_pb2.Envelope.FromString(content).signature
        if encode_envelope(prepared, signature) != content:
            differing.append(proposal.tx_id)

    assert differing == [
        transaction["tx_id"]
        for transaction in load_chain(chain).expected["transactions"]
        if transaction["code"] == "VALID" and transaction["label"] in UNKNOWN_FIELD
    ]


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_answers_are_written_as_peers_endorsed_them(chain: str) -> None:
    events = 0
    for _, payload, action in recorded(chain):
        message = proposal_pb2.Proposal(
            header=payload.header.SerializeToString(), payload=action.chaincode_proposal_payload
        ).SerializeToString()
        proposal = decode_proposal(sign_proposal(message, b"signature"))
        endorsed = action.action.proposal_response_payload
        answer = proposal_pb2.ChaincodeAction.FromString(
            proposal_response_pb2.ProposalResponsePayload.FromString(endorsed).extension
        )
        event = None
        if answer.events:
            read = chaincode_event_pb2.ChaincodeEvent.FromString(answer.events)
            event = ChaincodeEvent(read.chaincode_id, read.tx_id, read.event_name, read.payload)
            events += 1

        built = response_payload(
            proposal,
            version=answer.chaincode_id.version,
            response=Response(answer.response.status, answer.response.message, answer.response.payload),
            results=answer.results,
            event=event,
        )

        assert built == endorsed, proposal.tx_id

    assert events > 0
