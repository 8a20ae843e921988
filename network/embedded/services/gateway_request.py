"""What the Gateway service is asked, read as a real peer reads it: no further than it needs to choose peers. Pure.

Rules and texts: `internal/pkg/gateway/{evaluate,endorse,commitstatus,chaincodeevents}.go`. Everything here raises
RpcError with INVALID_ARGUMENT.
"""

from typing import Final, NamedTuple, TypeVar

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2
from google.protobuf.message import Message

from network.embedded.services.rpc import RpcError
from network.protocol.errors import DecodeError
from network.protocol.policy import SignedData
from network.protocol.wire import parse_in_words_of_go

M = TypeVar("M", bound=Message)

_SEEK_TYPES: Final = {"oldest": "*orderer.SeekPosition_Oldest", "newest": "*orderer.SeekPosition_Newest"}


class Proposed(NamedTuple):
    """A proposal as far as peers are chosen by it; the rest is the endorsers' to judge.

    `chaincode`: the one in the call's own specification, which need not be the one that is called; may be empty.
    """

    signed: proposal_pb2.SignedProposal
    channel_id: str
    chaincode: str
    has_transient: bool


class EventsWanted(NamedTuple):
    """A request for events. `after`: the id of a transaction whose events, and those before it, are known; or empty."""

    channel_id: str
    chaincode: str
    signed: SignedData
    position: ab_pb2.SeekPosition
    after: str


def read_evaluated(signed: proposal_pb2.SignedProposal) -> Proposed:
    """Read what Evaluate is given."""
    failed = "failed to unpack transaction proposal: "
    if not signed.proposal_bytes:
        raise _invalid(f"{failed}a signed proposal is required")
    try:
        proposed, spec = _read_proposed(signed)
    except DecodeError as error:
        raise _invalid(f"{failed}{error}") from error
    place = f", channel id [{proposed.channel_id}]"
    if not proposed.channel_id:
        raise _invalid(f"{failed}no channel id provided")
    if not spec.HasField("chaincode_spec"):
        raise _invalid(f"{failed}no chaincode spec is provided{place}")
    if not spec.chaincode_spec.HasField("chaincode_id"):
        raise _invalid(f"{failed}no chaincode id is provided{place}")
    if not proposed.chaincode:
        raise _invalid(f"{failed}no chaincode name is provided{place}")
    return proposed


def read_endorsed(signed: proposal_pb2.SignedProposal) -> Proposed:
    """Read what Endorse is given; channel and chaincode may be missing, then nobody endorses it."""
    if not signed.proposal_bytes:
        raise _invalid("the proposed transaction must contain a signed proposal")
    try:
        return _read_proposed(signed)[0]
    except DecodeError as error:
        raise _invalid(str(error)) from error


def _read_proposed(
    signed: proposal_pb2.SignedProposal,
) -> tuple[Proposed, chaincode_pb2.ChaincodeInvocationSpec]:
    proposal = _read(proposal_pb2.Proposal, signed.proposal_bytes)
    header = _read(common_pb2.Header, proposal.header)
    channel_header = _read(common_pb2.ChannelHeader, header.channel_header)
    payload = _read(proposal_pb2.ChaincodeProposalPayload, proposal.payload)
    spec = _read(chaincode_pb2.ChaincodeInvocationSpec, payload.input)
    name = spec.chaincode_spec.chaincode_id.name
    return Proposed(signed, channel_header.channel_id, name, bool(payload.TransientMap)), spec


def read_commit_status(signed: gateway_pb2.SignedCommitStatusRequest) -> gateway_pb2.CommitStatusRequest:
    """Read what CommitStatus is given."""
    if not signed.request:
        raise _invalid("a commit status request is required")
    try:
        request = parse_in_words_of_go(gateway_pb2.CommitStatusRequest, signed.request)
    except DecodeError as error:
        raise _invalid(f"invalid status request: {error}") from error
    for value, words in (
        (request.identity, "no identity provided"),
        (request.channel_id, "no channel ID provided"),
        (request.transaction_id, "transaction ID should not be empty"),
    ):
        if not value:
            raise _invalid(words)
    return request


def read_chaincode_events(signed: gateway_pb2.SignedChaincodeEventsRequest) -> EventsWanted:
    """Read what ChaincodeEvents is given; where it starts is not judged yet."""
    if not signed.request:
        raise _invalid("a chaincode events request is required")
    try:
        request = parse_in_words_of_go(gateway_pb2.ChaincodeEventsRequest, signed.request)
    except DecodeError as error:
        raise _invalid(f"invalid chaincode events request: {error}") from error
    return EventsWanted(
        request.channel_id,
        request.chaincode_id,
        SignedData(request.identity, signed.request, signed.signature),
        request.start_position,
        request.after_transaction_id,
    )


def start_block(position: ab_pb2.SeekPosition, height: int) -> int:
    """Give the first block of a stream of events whose last transaction is not known; only a number or the next one."""
    kind = position.WhichOneof("Type")
    if kind in _SEEK_TYPES:
        raise _invalid(f"invalid start position type: {_SEEK_TYPES[kind]}")
    return int(position.specified.number) if kind == "specified" else height


def _read(kind: type[M], content: bytes) -> M:
    try:
        return parse_in_words_of_go(kind, content)
    except DecodeError as error:
        raise DecodeError(f"error unmarshalling {kind.DESCRIPTOR.name}: {error}") from error


def _invalid(words: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, words)
