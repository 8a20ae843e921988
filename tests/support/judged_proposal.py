"""One proposal, sent to several peers as it is, and what each of them endorsed; then ordered with all endorsements."""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple, Self

from fabric_protos.peer import peer_pb2_grpc, proposal_pb2, proposal_response_pb2

from gateway.client.broadcast import broadcast
from gateway.client.channel import NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from gateway.client.transaction import Status
from network.protocol.proposal import (
    Proposal,
    build_proposal,
    decode_proposal,
    encode_envelope,
    prepared_transaction,
    sign_proposal,
)
from network.protocol.transaction import Endorsement
from tests.support.judged_network import CHANNEL, ORGANIZATIONS, JudgedNetwork

Operation = Sequence[object]


class Endorsed(NamedTuple):
    """What a peer answered. Without endorsement (`payload` empty) there are a status and a message alone.

    `results` is the TxReadWriteSet and `event` the ChaincodeEvent, both serialised and out of `payload`, which every
    endorser has to agree on; `answer` is the chaincode's payload.
    """

    status: int
    message: str
    payload: bytes
    answer: bytes
    results: bytes
    event: bytes
    endorsement: Endorsement | None


class Trial:
    """Connections to all peers and the orderer of a network, as one identity; an async context manager."""

    def __init__(self, network: JudgedNetwork, identity: SigningIdentity) -> None:
        self._network = network
        self._identity = identity
        self._stack = AsyncExitStack()
        self._peers: dict[str, Endorser] = {}

    async def __aenter__(self) -> Self:
        """Connect."""
        for msp_id in ORGANIZATIONS:
            channel = await self._stack.enter_async_context(NodeChannel(self._network.endpoint(msp_id)))
            self._peers[msp_id] = Endorser(self._identity, channel)
        orderer = self._network.endpoint("OrdererMSP")
        self._orderer = await self._stack.enter_async_context(NodeChannel(orderer))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._stack.aclose()

    def proposal(
        self, chaincode: str, arguments: Sequence[bytes], transient: Mapping[str, bytes] | None = None
    ) -> Proposal:
        """Make a signed proposal."""
        built = build_proposal(
            channel_id=CHANNEL,
            chaincode=chaincode,
            arguments=arguments,
            transient=transient,
            creator=self._identity.creator,
            nonce=secrets.token_bytes(24),
            nanoseconds=time.time_ns(),
        )
        return decode_proposal(sign_proposal(built.content, self._identity.sign(built.content)))

    async def propose(self, proposal: Proposal, msp_id: str) -> Endorsed:
        """Ask an organisation's peer."""
        stub = peer_pb2_grpc.EndorserStub(self._peers[msp_id].channel.grpc)
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal.content, signature=proposal.signature)
        response = await stub.ProcessProposal(signed, timeout=30)
        endorsement = None
        if response.HasField("endorsement"):
            endorsement = Endorsement(response.endorsement.endorser, response.endorsement.signature)
        payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
        action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
        return Endorsed(
            response.response.status,
            response.response.message,
            response.payload,
            action.response.payload,
            action.results,
            action.events,
            endorsement,
        )

    async def order(self, proposal: Proposal, endorsed: Iterable[Endorsed]) -> dict[str, Status]:
        """Send the transaction with all endorsements, and wait for the verdict of every peer."""
        answers = list(endorsed)
        endorsements = [answer.endorsement for answer in answers if answer.endorsement is not None]
        prepared = prepared_transaction(proposal, endorsements, answers[0].payload)
        await broadcast(self._orderer, encode_envelope(prepared, self._identity.sign(prepared)))
        return {
            msp_id: await Gateway(self._identity, peer.channel).network(CHANNEL).commit(proposal.tx_id).status(30)
            for msp_id, peer in self._peers.items()
        }


def script(operations: Sequence[Operation]) -> bytes:
    """Write operations as the script contract reads them."""
    return json.dumps(operations, separators=(",", ":")).encode()
