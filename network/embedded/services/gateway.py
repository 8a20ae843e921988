"""The Gateway service of a peer: evaluate, endorse, submit, commit status.

Rules: `internal/pkg/gateway/{evaluate,endorse,submit,commitstatus,registry,apiutils}.go`. Codes, texts and details are
those that clients of Fabric decide by. ChaincodeEvents is not there yet and answers UNIMPLEMENTED.
"""

import asyncio
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from network.embedded.ledger.access_control import AccessError, check_access
from network.embedded.ledger.admission import AdmissionError
from network.embedded.ledger.endorsable import NotEndorsableError
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.peer import SYSTEM_CHAINCODES, EndorserError, Peer, RequestFilterError
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.services.endorsement_planner import (
    Candidate,
    Combinations,
    EndorsementPlan,
    PlanError,
    combinations_of,
)
from network.embedded.services.rpc import ErrorDetail, RpcError, aborting
from network.protocol.collection import is_member
from network.protocol.errors import ConfigurationError, DecodeError, ProposalError
from network.protocol.interest import ChaincodeCall, decode_interest
from network.protocol.lifecycle import signature_policy
from network.protocol.policy import Policy, SignedData
from network.protocol.proposal import Proposal, decode_proposal, prepared_transaction
from network.protocol.transaction import Endorsement
from network.protocol.wire import parse

_SERVER_ERROR: Final = 500
_GOOD: Final = range(200, 400)
_SEE_DETAILS: Final = "see attached details for more info"
_PROTECT: Final = (
    "no endorsers found in the gateway's organization; retry specifying {} organization(s) to protect transient data"
)
_Context = grpc.aio.ServicerContext[Any, Any]


class _EndorserFailure(NamedTuple):
    """Why a peer gave no endorsement; `may_retry`: another peer may do better."""

    code: grpc.StatusCode
    message: str
    may_retry: bool


class GatewayService(gateway_pb2_grpc.GatewayServicer):  # type: ignore[misc]  # generated without types
    """The Gateway of one peer; it asks the other peers of the ledger for endorsements. `chance` breaks ties."""

    def __init__(self, peer: Peer, ledger: EmbeddedLedger, chance: Random) -> None:
        self._peer = peer
        self._ledger = ledger
        self._chance = chance

    # --- calls

    @aborting
    async def Evaluate(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.EvaluateRequest, context: _Context
    ) -> gateway_pb2.EvaluateResponse:
        """Ask one peer after the other until one answers."""
        del context
        signed = request.proposed_transaction
        proposal = _unpack(signed)
        channel = self._peer.channels.get(proposal.channel_id)
        if channel is None:
            raise RpcError(
                grpc.StatusCode.UNAVAILABLE,
                f"failed to get config for channel [{proposal.channel_id}]: could not get last config for channel "
                f"{proposal.channel_id}",
            )
        details = []
        failure: _EndorserFailure | None = None
        for peer in self._evaluators(proposal, request.target_organizations):
            result = await self._ask(peer, signed)
            if isinstance(result, proposal_response_pb2.ProposalResponse):
                return gateway_pb2.EvaluateResponse(result=_result(result))
            failure = result
            details.append(ErrorDetail(peer.node.address, peer.node.msp_id, result.message))
            if not result.may_retry:
                message = f"evaluate call to endorser returned error: {result.message}"
                raise RpcError(result.code, message, details)
        if failure is None:
            words = f"no peers available to evaluate chaincode {proposal.planned_chaincode} in channel"
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, f"{words} {proposal.channel_id}")
        raise RpcError(failure.code, f"failed to evaluate transaction, {_SEE_DETAILS}", details)

    @aborting
    async def Endorse(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.EndorseRequest, context: _Context
    ) -> gateway_pb2.EndorseResponse:
        """Collect endorsements of one payload that satisfy every policy the transaction touches."""
        del context
        signed = request.proposed_transaction
        if not signed.proposal_bytes:
            words = "the proposed transaction must contain a signed proposal"
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, words)
        proposal = _decoded(signed)
        details: list[ErrorDetail] = []
        if request.endorsing_organizations:
            plan = self._plan_for_organizations(proposal, request.endorsing_organizations)
        else:
            plan = await self._plan_from_first(proposal, signed)
        while (chosen := plan.next_round()) and plan.endorsements is None:
            await asyncio.gather(*[self._collect(plan, candidate, signed, details) for candidate in chosen])
        if plan.endorsements is None or plan.payload is None:
            message = f"failed to collect enough transaction endorsements, {_SEE_DETAILS}"
            raise RpcError(grpc.StatusCode.ABORTED, message, details)
        prepared = prepared_transaction(proposal, plan.endorsements, plan.payload)
        return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=prepared))

    @aborting
    async def Submit(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.SubmitRequest, context: _Context
    ) -> gateway_pb2.SubmitResponse:
        """Give a signed transaction to the orderers."""
        del context
        if not request.HasField("prepared_transaction"):
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "a prepared transaction is required")
        if not request.prepared_transaction.signature:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "prepared transaction must be signed")
        if request.channel_id not in self._peer.channels:
            words = f"failed to get config for channel [{request.channel_id}]: channel is not found"
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, words)
        try:
            await self._ledger.broadcast(request.prepared_transaction)
        except AdmissionError as error:
            name = common_pb2.Status.Name(error.status)
            words = f"received unsuccessful response from orderer: status={name}, info={error.info}"
            raise RpcError(grpc.StatusCode.ABORTED, words) from error
        return gateway_pb2.SubmitResponse()

    @aborting
    async def CommitStatus(  # noqa: N802  # the name on the wire
        self, request: gateway_pb2.SignedCommitStatusRequest, context: _Context
    ) -> gateway_pb2.CommitStatusResponse:
        """Wait until a transaction is committed, valid or not; only the client's deadline ends the wait."""
        del context
        asked = _commit_status_request(request)
        channel = self._peer.channels.get(asked.channel_id)
        if channel is None:
            words = f"Failed to get policy manager for channel [{asked.channel_id}]"
            raise RpcError(grpc.StatusCode.PERMISSION_DENIED, words)
        signed = SignedData(asked.identity, request.request, request.signature)
        try:
            check_access("gateway/CommitStatus", signed, channel.rules)
        except AccessError as error:
            raise RpcError(grpc.StatusCode.PERMISSION_DENIED, str(error)) from error
        while (place := channel.transaction_place(asked.transaction_id)) is None:
            await channel.wait_for_height(channel.height)
        return gateway_pb2.CommitStatusResponse(result=place.code, block_number=place.block_number)

    # --- asking peers

    async def _ask(
        self, peer: Peer, signed: proposal_pb2.SignedProposal
    ) -> proposal_response_pb2.ProposalResponse | _EndorserFailure:
        """Ask a peer to endorse; another peer's failures arrive as those of a call."""
        try:
            answer = await peer.process_proposal(signed)
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
            peer = self._peer_at(asked.address)
            result = await self._ask(peer, signed)
            if isinstance(result, _EndorserFailure):
                details.append(ErrorDetail(peer.node.address, peer.node.msp_id, result.message))
            elif plan.credit(asked, result.payload, _endorsement(result)):
                return
            else:
                words = "ProposalResponsePayloads do not match"
                details.append(ErrorDetail(peer.node.address, peer.node.msp_id, words))
            asked = plan.replacement(asked)

    def _peer_at(self, address: str) -> Peer:
        return next(peer for peer in self._ledger.peers if peer.node.address == address)

    # --- choosing peers

    def _evaluators(self, proposal: Proposal, organizations: Sequence[str]) -> list[Peer]:
        peers = self._advertising(proposal.channel_id, proposal.planned_chaincode)
        if organizations:
            peers = [peer for peer in peers if peer.node.msp_id in organizations]
        elif proposal.transient:
            peers = [peer for peer in peers if peer.node.msp_id == self._peer.node.msp_id]
            if not peers:
                words = (
                    f"{_PROTECT.format('target')}: no peers available to evaluate chaincode "
                    f"{proposal.planned_chaincode} in channel {proposal.channel_id}"
                )
                raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, words)
        return peers

    def _advertising(self, channel_id: str, chaincode: str) -> list[Peer]:
        """Give the peers that run a chaincode: the own organisation's first, then by height, this one before others."""
        peers = [peer for peer in self._ledger.peers if _runs(peer, channel_id, chaincode)]
        return sorted(
            peers,
            key=lambda peer: (
                peer.node.msp_id != self._peer.node.msp_id,
                -peer.channels[channel_id].height,
                peer is not self._peer,
            ),
        )

    def _plan_for_organizations(self, proposal: Proposal, organizations: Iterable[str]) -> EndorsementPlan:
        """Plan one peer of each organisation named; whether that satisfies the policy is the client's affair."""
        peers = self._advertising(proposal.channel_id, proposal.planned_chaincode)
        groups = {name: [peer for peer in peers if peer.node.msp_id == name] for name in organizations}
        missing = [name for name, found in groups.items() if not found]
        if missing:
            words = f"failed to find any endorsing peers for org(s): {', '.join(missing)}"
            raise RpcError(grpc.StatusCode.UNAVAILABLE, words)
        candidates = [[_candidate(peer, proposal) for peer in found] for found in groups.values()]
        return EndorsementPlan(candidates, [dict.fromkeys(range(len(candidates)), 1)])

    async def _plan_from_first(self, proposal: Proposal, signed: proposal_pb2.SignedProposal) -> EndorsementPlan:
        """Get a first endorsement, and plan the others by what it says the transaction touches."""
        first, answer = await self._first_endorsement(proposal, signed)
        interest = decode_interest(answer.interest) or (ChaincodeCall(proposal.planned_chaincode),)
        combinations = self._combinations(proposal, interest)
        groups = list(combinations.groups)
        # The layouts with the group of the first endorser come first, in any order among themselves.
        own = next((number for number, group in enumerate(groups) if first in group), None)
        layouts = list(combinations.layouts)
        self._chance.shuffle(layouts)
        layouts.sort(key=lambda layout: own not in layout)
        plan = EndorsementPlan(groups, layouts)
        plan.credit(first, answer.payload, _endorsement(answer))
        return plan

    async def _first_endorsement(
        self, proposal: Proposal, signed: proposal_pb2.SignedProposal
    ) -> tuple[Candidate, proposal_response_pb2.ProposalResponse]:
        peers = self._advertising(proposal.channel_id, proposal.planned_chaincode)
        own = [peer for peer in peers if peer.node.msp_id == self._peer.node.msp_id]
        if not own and proposal.transient:
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, _PROTECT.format("endorsing"))
        if not own and not peers and proposal.channel_id in self._peer.channels:
            words = "no combination of peers can be derived which satisfy the endorsement policy: No metadata was found"
            why = f"{words} for chaincode {proposal.planned_chaincode} in channel {proposal.channel_id}"
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, why)
        details = []
        # Without a peer that runs the chaincode this one says why.
        for peer in own or peers or [self._peer]:
            result = await self._ask(peer, signed)
            if isinstance(result, proposal_response_pb2.ProposalResponse):
                return _candidate(peer, proposal), result
            details.append(ErrorDetail(peer.node.address, peer.node.msp_id, result.message))
        message = f"failed to endorse transaction, {_SEE_DETAILS}"
        raise RpcError(grpc.StatusCode.ABORTED, message, details)

    def _combinations(self, proposal: Proposal, interest: tuple[ChaincodeCall, ...]) -> Combinations:
        try:
            # Whoever is asked sees the transient data, so only those who may see all that is touched are asked.
            return self._satisfying(proposal, interest, protects=bool(proposal.transient))
        except PlanError as error:
            if proposal.transient:
                collections = sorted({name for call in interest for name in call.collections})
                self._raise_protected(proposal, interest, collections)
            words = f"no combination of peers can be derived which satisfy the endorsement policy: {error}"
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, words) from error

    def _raise_protected(
        self, proposal: Proposal, interest: tuple[ChaincodeCall, ...], collections: Sequence[str]
    ) -> None:
        """Raise RpcError when only the protection of transient data stands in the way."""
        try:
            self._satisfying(proposal, interest, protects=False)
        except PlanError:
            return
        words = (
            "requires endorsement from organisation(s) that are not in the distribution policy of the private data "
            f"collection(s): [{' '.join(collections)}]; retry specifying trusted endorsing organizations to protect "
            "transient data"
        )
        raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, words)

    def _satisfying(self, proposal: Proposal, interest: tuple[ChaincodeCall, ...], *, protects: bool) -> Combinations:
        """Find the combinations of peers that satisfy every call; raises PlanError."""
        channel = self._peer.channels[proposal.channel_id]
        policies = [policy for call in interest for policy in _policies(channel, call)]
        chaincodes = [call.chaincode for call in interest]
        candidates = []
        for peer in self._ledger.peers:
            if proposal.channel_id not in peer.channels:
                continue
            if not all(_may_see(peer, channel, call) for call in interest if protects or not call.no_private_reads):
                continue
            runs = all(_runs(peer, proposal.channel_id, chaincode) for chaincode in chaincodes)
            candidates.append(_candidate(peer, proposal)._replace(has_chaincodes=runs))
        candidates.sort(key=lambda candidate: -self._peer_at(candidate.address).channels[proposal.channel_id].height)
        return combinations_of(candidates, policies, channel.rules.msps)


def _policies(channel: PeerChannel, call: ChaincodeCall) -> list[Policy]:
    """Give the policies that one call has to satisfy; raises PlanError."""
    rules = channel.rules
    definition = channel.definition(call.chaincode)
    contents = [signature_policy(policy) for policy in call.key_policies]
    own = rules.chaincode_policy(call.chaincode, definition)
    if own is None:
        raise PlanError(f"No metadata was found for chaincode {call.chaincode} in channel {channel.channel_id}")
    if call.collections:
        try:
            contents += [rules.collection_policy(name, definition, own) for name in call.collections]
        except ConfigurationError as error:
            words = f"collection {call.collections[0]} doesn't exist in collection config for chaincode"
            raise PlanError(f"{words} {call.chaincode}") from error
    elif not call.disregard_namespace_policy:
        contents.append(own)
    policies = []
    for content in contents:
        policy = rules.policy(content)
        if policy is None:
            raise PlanError("policy not found")
        policies.append(policy)
    return policies


def _may_see(peer: Peer, channel: PeerChannel, call: ChaincodeCall) -> bool:
    """Tell whether a peer is a member of every collection of a call."""
    for name in call.collections:
        config = channel.collection(call.chaincode, name)
        if config is None or not is_member(config, peer.identity_in(channel), channel.rules.msps):
            return False
    return True


def _runs(peer: Peer, channel_id: str, chaincode: str) -> bool:
    channel = peer.channels.get(channel_id)
    if channel is None:
        return False
    if chaincode in SYSTEM_CHAINCODES:
        return True
    try:
        peer.endorsable(channel, chaincode)
    except (NotEndorsableError, DecodeError):
        return False
    return True


def _candidate(peer: Peer, proposal: Proposal) -> Candidate:
    channel = peer.channels[proposal.channel_id]
    return Candidate(peer.node.address, peer.node.msp_id, peer.identity_in(channel))


def _endorsement(answer: proposal_response_pb2.ProposalResponse) -> Endorsement:
    return Endorsement(answer.endorsement.endorser, answer.endorsement.signature)


def _result(answer: proposal_response_pb2.ProposalResponse) -> proposal_response_pb2.Response:
    """Give what the chaincode answered, from what was signed where something was."""
    if not answer.payload:
        return answer.response
    payload = parse(proposal_response_pb2.ProposalResponsePayload, answer.payload, "ProposalResponsePayload")
    return parse(proposal_pb2.ChaincodeAction, payload.extension, "ChaincodeAction").response


def _unpack(signed: proposal_pb2.SignedProposal) -> Proposal:
    failed = "failed to unpack transaction proposal: "
    if not signed.proposal_bytes:
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"{failed}a signed proposal is required")
    try:
        proposal = decode_proposal(signed.SerializeToString())
    except ProposalError as error:
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"{failed}{error}") from error
    if not proposal.channel_id:
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"{failed}no channel id provided")
    if not proposal.planned_chaincode:
        words = f"{failed}no chaincode name is provided, channel id [{proposal.channel_id}]"
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, words)
    return proposal


def _decoded(signed: proposal_pb2.SignedProposal) -> Proposal:
    try:
        return decode_proposal(signed.SerializeToString())
    except ProposalError as error:
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error


def _commit_status_request(signed: gateway_pb2.SignedCommitStatusRequest) -> gateway_pb2.CommitStatusRequest:
    if not signed.request:
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "a commit status request is required")
    try:
        request = parse(gateway_pb2.CommitStatusRequest, signed.request, "CommitStatusRequest")
    except DecodeError as error:
        raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, f"invalid status request: {error}") from error
    for value, words in (
        (request.identity, "no identity provided"),
        (request.channel_id, "no channel ID provided"),
        (request.transaction_id, "transaction ID should not be empty"),
    ):
        if not value:
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, words)
    return request
