"""The Gateway service of a peer: evaluate, endorse, submit, commit status, chaincode events.

Rules: `internal/pkg/gateway/{evaluate,endorse,submit,commitstatus,chaincodeevents,apiutils}.go`. Codes, texts and
details are those that clients of Fabric decide by.
"""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Final, NamedTuple

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from network.embedded.ledger.access_control import AccessError, check_channel_access
from network.embedded.ledger.admission import AdmissionError
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.peer import Peer
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.ledger.request_filter import EndorserError, RequestFilterError
from network.embedded.services.chaincode_events import EventFilter, block_events
from network.embedded.services.endorsement_planner import Candidate, EndorsementPlan
from network.embedded.services.gateway_request import (
    Proposed,
    read_chaincode_events,
    read_commit_status,
    read_endorsed,
    read_evaluated,
    start_block,
)
from network.embedded.services.peer_choice import PeerChoice
from network.embedded.services.rpc import ErrorDetail, RpcError
from network.errors import LedgerError
from network.protocol.errors import DecodeError, ProposalError
from network.protocol.policy import SignedData
from network.protocol.proposal import decode_proposal, prepared_transaction
from network.protocol.transaction import Endorsement
from network.protocol.wire import parse

ENDORSEMENT_TIMEOUT_SECONDS: Final = 30.0
_CLIENT_ERRORS: Final = range(400, 500)
_SERVER_ERROR: Final = 500
_GOOD: Final = range(200, 400)
_SEE_DETAILS: Final = "see attached details for more info"


class _EndorserFailure(NamedTuple):
    """Why a peer gave no endorsement; `may_retry`: another peer may do better."""

    code: grpc.StatusCode
    message: str
    may_retry: bool


class GatewayService:
    """The Gateway of one peer; it asks the other peers of the ledger for endorsements. `chance` breaks ties."""

    def __init__(self, peer: Peer, ledger: EmbeddedLedger, chance: Random) -> None:
        self._peer = peer
        self._ledger = ledger
        self._chance = chance
        self._choice = PeerChoice(peer, ledger, chance)

    # --- calls

    async def Evaluate(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.EvaluateRequest
    ) -> gateway_pb2.EvaluateResponse:
        """Ask one peer after the other until one answers."""
        proposed = read_evaluated(request.proposed_transaction)
        if proposed.channel_id not in self._peer.channels:
            raise RpcError(grpc.StatusCode.UNAVAILABLE, _no_config(proposed.channel_id))
        details = []
        code = grpc.StatusCode.UNAVAILABLE
        for peer in self._choice.evaluators(proposed, request.target_organizations):
            result = await self._ask(peer, proposed.signed)
            if isinstance(result, proposal_response_pb2.ProposalResponse):
                return gateway_pb2.EvaluateResponse(result=_result(result))
            details.append(_detail(peer, result.message))
            if not result.may_retry:
                message = f"evaluate call to endorser returned error: {result.message}"
                raise RpcError(result.code, message, details)
            code = result.code
        raise RpcError(code, f"failed to evaluate transaction, {_SEE_DETAILS}", details)

    async def Endorse(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.EndorseRequest
    ) -> gateway_pb2.EndorseResponse:
        """Collect endorsements of one payload that satisfy every policy the transaction touches."""
        proposed = read_endorsed(request.proposed_transaction)
        if request.endorsing_organizations:
            plan = self._choice.plan_for_organizations(proposed, request.endorsing_organizations)
        else:
            plan = await self._plan_from_first(proposed)
        details: list[ErrorDetail] = []
        while (chosen := plan.next_round()) and plan.endorsements is None:
            await asyncio.gather(*[self._collect(plan, candidate, proposed.signed, details) for candidate in chosen])
        if plan.endorsements is None or plan.payload is None:
            message = f"failed to collect enough transaction endorsements, {_SEE_DETAILS}"
            raise RpcError(grpc.StatusCode.ABORTED, message, details)
        try:
            proposal = decode_proposal(proposed.signed.SerializeToString())
            prepared = prepared_transaction(proposal, plan.endorsements, plan.payload)
        except ProposalError as error:
            raise RpcError(grpc.StatusCode.ABORTED, f"failed to assemble transaction: {error}") from error
        return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=prepared))

    async def Submit(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.SubmitRequest
    ) -> gateway_pb2.SubmitResponse:
        """Give a signed transaction to one orderer after the other, in any order, until one takes it."""
        if not request.HasField("prepared_transaction"):
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "a prepared transaction is required")
        if not request.prepared_transaction.signature:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "prepared transaction must be signed")
        if request.channel_id not in self._peer.channels:
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, _no_config(request.channel_id))
        orderers = len(self._ledger.orderers)
        for orderer in self._chance.sample(range(orderers), orderers):
            try:
                await self._ledger.broadcast(request.prepared_transaction, orderer)
            except AdmissionError as error:
                if error.status in _CLIENT_ERRORS:
                    name = common_pb2.Status.Name(error.status)
                    words = f"received unsuccessful response from orderer: status={name}, info={error.info}"
                    raise RpcError(grpc.StatusCode.ABORTED, words) from error
            else:
                return gateway_pb2.SubmitResponse()
        raise RpcError(grpc.StatusCode.UNAVAILABLE, "no orderers could successfully process transaction")

    async def CommitStatus(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.SignedCommitStatusRequest
    ) -> gateway_pb2.CommitStatusResponse:
        """Wait until a transaction is committed, valid or not; only the client's deadline ends the wait."""
        asked = read_commit_status(request)
        signed = SignedData(asked.identity, request.request, request.signature)
        channel = self._permitted("gateway/CommitStatus", asked.channel_id, signed)
        while (place := channel.transaction_place(asked.transaction_id)) is None:
            await channel.wait_for_height(channel.height)
        return gateway_pb2.CommitStatusResponse(result=place.code, block_number=place.block_number)

    async def ChaincodeEvents(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.SignedChaincodeEventsRequest
    ) -> AsyncIterator[gateway_pb2.ChaincodeEventsResponse]:
        """Give the events of a chaincode block by block, from a position or behind a transaction; it never ends."""
        wanted = read_chaincode_events(request)
        channel = self._permitted("gateway/ChaincodeEvents", wanted.channel_id, wanted.signed)
        place = channel.transaction_place(wanted.after) if wanted.after else None
        number = start_block(wanted.position, channel.height) if place is None else place.block_number
        passing = EventFilter(wanted.chaincode, wanted.after)
        while True:
            await channel.wait_for_height(number)
            try:
                events = block_events(channel.files.block(number))
            except DecodeError as error:
                raise RpcError(grpc.StatusCode.ABORTED, str(error)) from error
            except LedgerError as error:
                raise RpcError(grpc.StatusCode.ABORTED, f"block {number} cannot be read") from error
            found = [event for event in events if passing.passes(event)]
            if found:
                yield gateway_pb2.ChaincodeEventsResponse(block_number=number, events=found)
            number += 1

    def _permitted(self, resource: str, channel_id: str, signed: SignedData) -> PeerChannel:
        """Give a channel to those who may see it; raises RpcError."""
        channel = self._peer.channels.get(channel_id)
        try:
            check_channel_access(resource, signed, channel_id, None if channel is None else channel.rules)
        except AccessError as error:
            raise RpcError(grpc.StatusCode.PERMISSION_DENIED, str(error)) from error
        return self._peer.channels[channel_id]

    # --- asking peers

    async def _plan_from_first(self, proposed: Proposed) -> EndorsementPlan:
        """Get a first endorsement, and plan the others by it; raises RpcError."""
        first_plan = self._choice.first_plan(proposed)
        asked: Candidate | None = first_plan.next_round()[0]
        details = []
        while asked is not None:
            peer = self._choice.at(asked.address)
            result = await self._ask(peer, proposed.signed)
            if isinstance(result, proposal_response_pb2.ProposalResponse):
                return self._choice.plan_from(proposed, asked, result)
            details.append(_detail(peer, result.message))
            asked = first_plan.replacement(asked)
        raise RpcError(grpc.StatusCode.ABORTED, f"failed to endorse transaction, {_SEE_DETAILS}", details)

    async def _collect(
        self,
        plan: EndorsementPlan,
        candidate: Candidate,
        signed: proposal_pb2.SignedProposal,
        details: list[ErrorDetail],
    ) -> None:
        """Get one endorsement of a group: from the peer chosen, or from the next one that does not fail."""
        asked: Candidate | None = candidate
        while asked is not None:
            peer = self._choice.at(asked.address)
            result = await self._ask(peer, signed)
            if isinstance(result, _EndorserFailure):
                details.append(_detail(peer, result.message))
            elif plan.credit(
                asked, result.payload, Endorsement(result.endorsement.endorser, result.endorsement.signature)
            ):
                return
            else:
                details.append(_detail(peer, "ProposalResponsePayloads do not match"))
            asked = plan.replacement(asked)

    async def _ask(
        self, peer: Peer, signed: proposal_pb2.SignedProposal
    ) -> proposal_response_pb2.ProposalResponse | _EndorserFailure:
        """Ask a peer to endorse; another peer's failures arrive as those of a call."""
        try:
            if peer is self._peer:
                answer = await peer.process_proposal(signed)
            else:
                async with asyncio.timeout(ENDORSEMENT_TIMEOUT_SECONDS):
                    answer = await peer.process_proposal(signed)
        except TimeoutError:
            message = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
            return _EndorserFailure(grpc.StatusCode.UNAVAILABLE, message, may_retry=True)
        except EndorserError as error:
            if peer is not self._peer:
                message = f"rpc error: code = Unknown desc = {error}"
                return _EndorserFailure(grpc.StatusCode.UNAVAILABLE, message, may_retry=True)
            if isinstance(error, RequestFilterError):
                return _EndorserFailure(grpc.StatusCode.UNAVAILABLE, str(error), may_retry=True)
            return _EndorserFailure(grpc.StatusCode.FAILED_PRECONDITION, str(error), may_retry=False)
        response = answer.response
        if response.status in _GOOD:
            return answer
        if response.status == _SERVER_ERROR and not answer.payload:
            return _EndorserFailure(grpc.StatusCode.ABORTED, response.message, may_retry=True)
        message = f"chaincode response {response.status}, {response.message}"
        return _EndorserFailure(grpc.StatusCode.UNKNOWN, message, may_retry=False)


def _detail(peer: Peer, message: str) -> ErrorDetail:
    return ErrorDetail(peer.node.address, peer.node.msp_id, message)


def _no_config(channel_id: str) -> str:
    return f"failed to get config for channel [{channel_id}]: could not get last config for channel {channel_id}"


def _result(answer: proposal_response_pb2.ProposalResponse) -> proposal_response_pb2.Response:
    """Give what the chaincode answered, from what was signed where something was."""
    if not answer.payload:
        return answer.response
    payload = parse(proposal_response_pb2.ProposalResponsePayload, answer.payload, "ProposalResponsePayload")
    return parse(proposal_pb2.ChaincodeAction, payload.extension, "ChaincodeAction").response
