"""A gateway of the embedded network when peers and orderers fail: whom it asks next, and what it tells."""

import asyncio
import re
from random import Random
from typing import Any

import grpc
import pytest
from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import proposal_pb2

from network.embedded.ledger.chaincode import ChaincodeError
from network.embedded.services.gateway import ENDORSEMENT_TIMEOUT_SECONDS, GatewayService
from network.embedded.services.rpc import RpcError
from network.errors import LedgerError
from tests.support.embedded_ledger import (
    AGENT,
    BILLING,
    CHANNEL,
    CUSTOMER,
    FIELD,
    SERVICE,
    Behaviour,
    LedgerNetwork,
    Stub,
    put,
)
from tests.support.generated_network import GeneratedNetwork

DEAD = re.compile(r"error in simulation: failed to execute transaction [0-9a-f]{64}: the server is gone")


class Chaincode:
    """A behaviour that dies at some of the peers, or does not come back there, and notes where it was called."""

    def __init__(self, network: LedgerNetwork, *, dead: tuple[str, ...] = (), slow: tuple[str, ...] = ()) -> None:
        self.called: list[str] = []
        self.arguments = [network.behaviours.add(self._behave)]
        self._dead, self._slow = dead, slow

    async def _behave(self, stub: Stub) -> bytes:
        self.called.append(stub.peer)
        if stub.peer in self._dead:
            raise ChaincodeError("the server is gone")
        if stub.peer in self._slow:
            await asyncio.sleep(10 * ENDORSEMENT_TIMEOUT_SECONDS)
        await stub.put("key", b"value")
        return b"done"


def gateway(network: LedgerNetwork, peer: str = SERVICE) -> GatewayService:
    return GatewayService(network.peers[peer], network.ledger, Random(1))  # noqa: S311  # no secret


def signed(network: LedgerNetwork, arguments: list[bytes]) -> Any:
    proposal = network.proposal(arguments)
    return proposal_pb2.SignedProposal(
        proposal_bytes=proposal.content, signature=network.client(*AGENT).sign(proposal.content)
    )


def refusal(network: LedgerNetwork, call: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        network.run(call)
    return caught.value


# --- evaluate and endorse


def test_evaluate_asks_the_next_peer_where_a_chaincode_is_gone(network: LedgerNetwork) -> None:
    chaincode = Chaincode(network, dead=(SERVICE,))
    request = gateway_pb2.EvaluateRequest(proposed_transaction=signed(network, chaincode.arguments))

    answer = network.run(gateway(network).Evaluate(request))

    assert answer.result.payload == b"done"
    assert chaincode.called[0] == SERVICE
    assert len(chaincode.called) == 2


def test_evaluate_tells_what_every_peer_said(network: LedgerNetwork) -> None:
    runs_it = (SERVICE, BILLING, CUSTOMER)
    chaincode = Chaincode(network, dead=runs_it)
    request = gateway_pb2.EvaluateRequest(proposed_transaction=signed(network, chaincode.arguments))

    error = refusal(network, gateway(network).Evaluate(request))

    assert error.code is grpc.StatusCode.ABORTED
    assert len(error.details) == 3
    assert all(DEAD.fullmatch(detail.message) for detail in error.details)
    assert set(chaincode.called) == set(runs_it)


def test_endorse_does_not_leave_home_for_a_chaincode_that_is_gone(network: LedgerNetwork) -> None:
    chaincode = Chaincode(network, dead=(SERVICE,))
    request = gateway_pb2.EndorseRequest(proposed_transaction=signed(network, chaincode.arguments))

    error = refusal(network, gateway(network).Endorse(request))

    assert (error.code, error.message) == (
        grpc.StatusCode.ABORTED,
        "failed to endorse transaction, see attached details for more info",
    )
    assert chaincode.called == [SERVICE]


def test_where_nobody_at_home_runs_the_chaincode_others_endorse(network: LedgerNetwork) -> None:
    chaincode = Chaincode(network)  # the field department did not install it
    request = gateway_pb2.EndorseRequest(proposed_transaction=signed(network, chaincode.arguments))

    answer = network.run(gateway(network, FIELD).Endorse(request))

    assert answer.prepared_transaction.payload
    assert FIELD not in chaincode.called
    assert CUSTOMER in chaincode.called


def test_another_combination_is_tried_where_a_peer_fails(network: LedgerNetwork) -> None:
    """The policy wants the customers and one department; each of two departments can be the one."""
    chaincode = Chaincode(network, dead=(BILLING,))
    request = gateway_pb2.EndorseRequest(proposed_transaction=signed(network, chaincode.arguments))

    answer = network.run(gateway(network, CUSTOMER).Endorse(request))

    assert answer.prepared_transaction.payload
    assert chaincode.called[0] == CUSTOMER
    assert SERVICE in chaincode.called


def test_a_combination_that_nobody_completes_fails_with_what_was_said(network: LedgerNetwork) -> None:
    chaincode = Chaincode(network, dead=(BILLING, SERVICE))
    request = gateway_pb2.EndorseRequest(proposed_transaction=signed(network, chaincode.arguments))

    error = refusal(network, gateway(network, CUSTOMER).Endorse(request))

    assert (error.code, error.message) == (
        grpc.StatusCode.ABORTED,
        "failed to collect enough transaction endorsements, see attached details for more info",
    )
    assert {detail.msp_id for detail in error.details} == {"BillingMSP", "ServiceMSP"}
    assert all(DEAD.fullmatch(detail.message) for detail in error.details)


def test_another_peer_that_does_not_answer_in_time_counts_as_gone(network: LedgerNetwork) -> None:
    chaincode = Chaincode(network, slow=(CUSTOMER,))
    request = gateway_pb2.EndorseRequest(proposed_transaction=signed(network, chaincode.arguments))

    error = refusal(network, gateway(network).Endorse(request))

    assert [detail.message for detail in error.details] == [
        "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    ]


# --- submit


def prepared(network: LedgerNetwork, behaviour: Behaviour) -> Any:
    async def story() -> Any:
        return network.envelope(await network.endorse(behaviour))

    envelope = network.run(story())
    return gateway_pb2.SubmitRequest(channel_id=CHANNEL, prepared_transaction=envelope)


def test_submit_asks_the_next_orderer_where_one_knows_no_leader(network: LedgerNetwork) -> None:
    request = prepared(network, put("key", b"value"))
    for orderer in network.ledger.orderers[:2]:
        orderer.lost_leader.set()
    height = network.channel(SERVICE).height

    async def story() -> None:
        await gateway(network).Submit(request)
        await network.channel(SERVICE).wait_for_height(height)

    network.run(story())


def test_submit_fails_without_a_leader_and_orders_nothing(network: LedgerNetwork) -> None:
    request = prepared(network, put("key", b"value"))
    height = network.ledger.channels[CHANNEL].height
    for orderer in network.ledger.orderers:
        orderer.lost_leader.set()

    error = refusal(network, gateway(network).Submit(request))

    assert (error.code, error.message, error.details) == (
        grpc.StatusCode.UNAVAILABLE,
        "no orderers could successfully process transaction",
        (),
    )
    network.run(network.ledger.channels[CHANNEL].cut())
    assert network.ledger.channels[CHANNEL].height == height


def test_a_refusal_by_one_orderer_is_every_orderers(network: LedgerNetwork) -> None:
    request = prepared(network, put("key", b"value"))
    request.prepared_transaction.signature = b"none"

    error = refusal(network, gateway(network).Submit(request))

    assert error.code is grpc.StatusCode.ABORTED
    assert error.message.startswith("received unsuccessful response from orderer: status=FORBIDDEN, info=")


# --- joining


def joined(network: LedgerNetwork, block: Any) -> Any:
    admin = ("ServiceMSP", "admin")
    return network.run(
        network.propose(
            SERVICE, [b"JoinChain", block.SerializeToString()], chaincode="cscc", channel_id="", client=admin
        )
    ).response


def test_a_peer_that_joins_later_catches_up_and_follows(network: LedgerNetwork) -> None:
    async def forget() -> None:
        peer = network.peers[SERVICE]
        peer.leave(peer.channels[CHANNEL])

    genesis = network.ledger.channels[CHANNEL].block(0, 0)
    network.run(forget())
    for path in sorted((network.folder / SERVICE).rglob("*"), reverse=True):
        if path.is_file() and "packages" not in path.parts:
            path.unlink()

    assert joined(network, genesis).status == 200

    async def story() -> None:
        channel = network.channel(SERVICE)
        await channel.wait_for_height(network.ledger.channels[CHANNEL].height - 1)
        assert channel.height == network.channel(CUSTOMER).height

    network.run(story())


def test_a_channel_that_no_orderer_serves_is_kept_over_a_restart(
    network: LedgerNetwork, generated: GeneratedNetwork
) -> None:
    genesis = common_pb2.Block.FromString(generated.genesis(CHANNEL))
    envelope = common_pb2.Envelope.FromString(genesis.data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.channel_id = "another"
    payload.header.channel_header = header.SerializeToString()
    envelope.payload = payload.SerializeToString()
    genesis.data.data[0] = envelope.SerializeToString()

    assert joined(network, genesis).status == 200
    network.close()
    (network.folder / SERVICE / "chains" / "broken-off").mkdir()
    again = LedgerNetwork(generated, network.folder)
    try:
        again.ledger.reopen_joined()
        info = again.run(
            again.propose(SERVICE, [b"GetChainInfo", b"another"], chaincode="qscc", channel_id="")
        ).response
        assert ledger_pb2.BlockchainInfo.FromString(info.payload).height == 1
        assert set(again.peers[SERVICE].channels) == {CHANNEL, "another"}
        assert set(again.peers[CUSTOMER].channels) == {CHANNEL}
    finally:
        again.close()


# --- events


class DamagedFiles:
    """The block files of a channel, of which one block cannot be read."""

    def __init__(self, files: Any, damaged: int) -> None:
        self._files = files
        self._damaged = damaged

    def __getattr__(self, name: str) -> Any:
        """Give what the files have."""
        return getattr(self._files, name)

    def block(self, number: int) -> Any:
        if number == self._damaged:
            raise LedgerError(f"block {number} is damaged")
        return self._files.block(number)


def test_a_block_that_cannot_be_read_ends_a_stream_of_events(network: LedgerNetwork) -> None:
    client = network.client(*AGENT)
    asked = gateway_pb2.ChaincodeEventsRequest(
        channel_id=CHANNEL,
        chaincode_id="asset",
        identity=client.creator,
        start_position=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=1)),
    ).SerializeToString()
    request = gateway_pb2.SignedChaincodeEventsRequest(request=asked, signature=client.sign(asked))
    channel = network.channel(SERVICE)
    channel.files = DamagedFiles(channel.files, 1)  # type: ignore[assignment]  # a double that keeps the protocol

    async def story() -> None:
        await anext(gateway(network).ChaincodeEvents(request))

    error = refusal(network, story())
    assert (error.code, error.message) == (grpc.StatusCode.ABORTED, "block 1 cannot be read")
