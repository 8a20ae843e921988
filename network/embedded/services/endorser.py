"""The Endorser service of a peer (`core/endorser/endorser.go`)."""

from typing import Any

import grpc
from fabric_protos.peer import peer_pb2_grpc, proposal_pb2, proposal_response_pb2

from network.embedded.ledger.peer import EndorserError, Peer
from network.embedded.services.rpc import RpcError, aborting


class EndorserService(peer_pb2_grpc.EndorserServicer):  # type: ignore[misc]  # generated without types
    """Answers signed proposals."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @aborting
    async def ProcessProposal(  # noqa: N802  # the name on the wire
        self, request: proposal_pb2.SignedProposal, context: grpc.aio.ServicerContext[Any, Any]
    ) -> proposal_response_pb2.ProposalResponse:
        """Endorse, or say why not."""
        del context
        try:
            return await self._peer.process_proposal(request)
        except EndorserError as error:
            raise RpcError(grpc.StatusCode.UNKNOWN, str(error)) from error
