"""The Endorser service of a peer (`core/endorser/endorser.go`)."""

import grpc
from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from network.embedded.ledger.peer import Peer
from network.embedded.ledger.request_filter import EndorserError
from network.embedded.services.rpc import RpcError


class EndorserService:
    """Answers signed proposals."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def ProcessProposal(  # noqa: N802  # the name on the wire
        self, request: proposal_pb2.SignedProposal
    ) -> proposal_response_pb2.ProposalResponse:
        """Endorse, or say why not."""
        try:
            return await self._peer.process_proposal(request)
        except EndorserError as error:
            raise RpcError(grpc.StatusCode.UNKNOWN, str(error)) from error
