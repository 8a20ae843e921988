"""A peer's own Endorser service: what is asked of one peer, by whoever administers it (`peer/peer.proto`).

For `_lifecycle` (install, approve, ...), `cscc` (join, channels) and `qscc`; applications use the Gateway service.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
from fabric_protos.common import ledger_pb2
from fabric_protos.peer import peer_pb2_grpc, proposal_pb2

from gateway.client.call import call_error
from gateway.client.channel import NodeChannel
from gateway.client.errors import CallError, EndorserError
from gateway.client.gateway import Chance
from gateway.client.identity import SigningIdentity
from network.protocol.proposal import build_proposal
from network.protocol.wire import parse

CALL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Endorser:
    """One peer, asked by one identity. The channel stays the caller's to close."""

    identity: SigningIdentity
    channel: NodeChannel
    chance: Chance = field(default_factory=Chance)

    async def call(
        self, chaincode: str, arguments: Sequence[bytes], *, channel_name: str = "", seconds: float = CALL_SECONDS
    ) -> bytes:
        """Send a proposal to this peer alone, without channel name for the peer itself; give the response's payload.

        Raises EndorserError: the call failed, or the peer answered with a status that is no success (its text in
        `message`).
        """
        proposal = build_proposal(
            channel_id=channel_name,
            chaincode=chaincode,
            arguments=arguments,
            creator=self.identity.creator,
            nonce=self.chance.nonce(),
            nanoseconds=self.chance.nanoseconds(),
        )
        content = proposal.content
        request = proposal_pb2.SignedProposal(proposal_bytes=content, signature=self.identity.sign(content))
        try:
            answer = await self.channel.stub(peer_pb2_grpc.EndorserStub).ProcessProposal(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            failure = call_error(CallError, error, proposal.tx_id)
            raise EndorserError(failure.grpc_code, failure.message, proposal.tx_id) from error
        response = answer.response
        if not 200 <= response.status < 400:
            raise EndorserError("", response.message, proposal.tx_id, response.status)
        return bytes(response.payload)

    async def join(self, genesis_block: bytes) -> None:
        """Have the peer join the channel of a genesis block; raises EndorserError."""
        await self.call("cscc", [b"JoinChain", genesis_block])

    async def height(self, channel_name: str) -> int:
        """Give the number of blocks this peer has; raises EndorserError."""
        answer = await self.call("qscc", [b"GetChainInfo", channel_name.encode()], channel_name=channel_name)
        return int(parse(ledger_pb2.BlockchainInfo, answer, "BlockchainInfo").height)
