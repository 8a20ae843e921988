"""`_lifecycle` of the embedded network against real peers: the same calls on the same chain leave the same writes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from network.embedded.ledger.lifecycle_chaincode import LifecycleCall, invoke
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.simulation import Simulation
from network.protocol.decode import decode_block
from network.protocol.identity import decode_serialized_identity
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.transaction import Transaction
from tests.support.recorded_chain import ALL_CHAINS, OWN_CHAINS, load_chain

CALLS = {"fabric-3.1.5-raft": 8, "fabric-3.1.5-bft": 8, "fabric-3.1.5-service-week": 4} | dict.fromkeys(OWN_CHAINS, 12)
"""Approvals by three organisations and a commit, for each definition."""


class Recorded(NamedTuple):
    arguments: tuple[bytes, ...]
    creator: bytes
    endorser_msp_id: str
    action: proposal_pb2.ChaincodeAction


def recorded_calls(transaction: Transaction, envelope: bytes) -> Iterator[Recorded]:
    if transaction.action is None or transaction.action.chaincode is None:
        return
    if transaction.action.chaincode.name != LIFECYCLE_NAMESPACE:
        return
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
    (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
    content = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
    proposal = proposal_pb2.ChaincodeProposalPayload.FromString(content.chaincode_proposal_payload)
    called = chaincode_pb2.ChaincodeInvocationSpec.FromString(proposal.input).chaincode_spec
    response = proposal_response_pb2.ProposalResponsePayload.FromString(content.action.proposal_response_payload)
    yield Recorded(
        tuple(called.input.args),
        common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator,
        decode_serialized_identity(content.action.endorsements[0].endorser).msp_id,
        proposal_pb2.ChaincodeAction.FromString(response.extension),
    )


@pytest.mark.parametrize("chain", ALL_CHAINS)
def test_approvals_and_commits_leave_the_bytes_that_real_peers_endorsed(chain: str, tmp_path: Path) -> None:
    genesis, *blocks = load_chain(chain).blocks
    first = common_pb2.Block.FromString(genesis)
    channel_id = decode_block(genesis).transactions[0].channel_id
    channel = PeerChannel(channel_id, "PartnerMSP", tmp_path)
    packages = PackageStore(tmp_path / "packages")
    count = 0

    try:
        channel.join(first)
        for block in blocks:
            decoded = decode_block(block)
            for transaction, envelope in zip(decoded.transactions, decoded.envelopes, strict=True):
                for recorded in recorded_calls(transaction, envelope):
                    creator = channel.rules.msps.identity(decode_serialized_identity(recorded.creator))
                    simulation = Simulation(channel, transaction.tx_id, creator)
                    call = LifecycleCall(
                        recorded.endorser_msp_id, packages, lambda _: {}, lambda _: None, simulation, channel.rules
                    )

                    response = invoke(recorded.arguments, call)

                    assert (response.status, response.payload) == (200, recorded.action.response.payload)
                    assert simulation.result().public == recorded.action.results
                    count += 1
            if count == CALLS[chain]:
                break
            asyncio.run(channel.commit(common_pb2.Block.FromString(block)))
    finally:
        channel.close()

    assert count == CALLS[chain]
