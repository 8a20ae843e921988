"""Proposals and what becomes of them: checked and endorsed by peers, prepared as a transaction, signed by the client.

Messages: `peer/proposal.proto`, `peer/proposal_response.proto`, `peer/transaction.proto`. Rules:
`core/endorser/msgvalidation.go` (UnpackProposal, Validate: the order of checks and the texts),
`core/endorser/endorser.go` (what is endorsed), `protoutil/{proputils,txutils}.go` (ids and hashes),
`internal/pkg/gateway/submit.go` (prepareTransaction).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.message import Message

from network.protocol.errors import DecodeError, IdentityError, ProposalError
from network.protocol.identity import Identity, decode_serialized_identity
from network.protocol.interest import ChaincodeCall, encode_interest
from network.protocol.msp import ChannelMsps
from network.protocol.transaction import (
    HEADER_CONFIG,
    HEADER_ENDORSER_TRANSACTION,
    ChaincodeEvent,
    Endorsement,
)
from network.protocol.wire import parse, parse_in_words_of_go

RESPONSE_VERSION = 1
"""Version of an endorsed ProposalResponse; an answer that endorses nothing has none."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal, read or still to be signed; nothing in it is proved.

    `content` and `signature`: the Proposal bytes and their signature as sent (b"": not signed). `payload`:
    ChaincodeProposalPayload bytes without transient data, as they go into the transaction. `channel_id` "": asked of
    the peer itself. `seconds`, `nanos`: the claimed time, None: absent. `chaincode` is the one that is called; the one
    in the call's own specification (`planned_chaincode`, may be empty) is what the Gateway service plans by, and need
    not be the same. `creator`: a serialised identity.
    """

    channel_id: str
    tx_id: str
    header_type: int
    epoch: int
    seconds: int | None
    nanos: int | None
    creator: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    chaincode: str
    planned_chaincode: str
    arguments: tuple[bytes, ...] = field(repr=False)
    is_init: bool
    decorations: Mapping[str, bytes] = field(repr=False)
    transient: Mapping[str, bytes] = field(repr=False)
    channel_header: bytes = field(repr=False)
    signature_header: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    content: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def hash(self) -> bytes:
        """What endorsers sign as the proposal's hash."""
        return proposal_hash(self.channel_header, self.signature_header, self.payload)


class Response(NamedTuple):
    """What a chaincode answered, or a peer in its place."""

    status: int
    message: str
    payload: bytes


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """Give the id of a transaction: hex SHA-256 of nonce and serialised creator, joined."""
    return sha256(nonce + creator).hexdigest()


def without_transient(payload: bytes) -> bytes:
    """Give a ChaincodeProposalPayload as it goes into the transaction: its input alone. Raises DecodeError."""
    message = parse(proposal_pb2.ChaincodeProposalPayload, payload, "ChaincodeProposalPayload")
    return _serialize(proposal_pb2.ChaincodeProposalPayload(input=message.input))


def proposal_hash(channel_header: bytes, signature_header: bytes, payload: bytes) -> bytes:
    """Give the SHA-256 of a proposal, from its serialised parts; transient data in the payload does not count.

    Raises DecodeError when the payload is no ChaincodeProposalPayload.
    """
    return sha256(channel_header + signature_header + without_transient(payload)).digest()


# --- of the client


def build_proposal(
    *,
    channel_id: str,
    chaincode: str,
    arguments: Sequence[bytes],
    creator: bytes,
    nonce: bytes,
    nanoseconds: int,
    transient: Mapping[str, bytes] | None = None,
    is_init: bool = False,
) -> Proposal:
    """Make a proposal that is still to be signed: the creator signs its `content`.

    `nanoseconds` since 1970. No `channel_id`: for the peer itself. Same arguments, same bytes.
    """
    tx_id = transaction_id(nonce, creator)
    chaincode_id = chaincode_pb2.ChaincodeID(name=chaincode)
    channel_header = common_pb2.ChannelHeader(
        type=HEADER_ENDORSER_TRANSACTION,
        channel_id=channel_id,
        tx_id=tx_id,
        extension=_serialize(proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_id)),
    )
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    channel_header.timestamp.seconds, channel_header.timestamp.nanos = seconds, nanos
    header = common_pb2.Header(
        channel_header=_serialize(channel_header),
        signature_header=_serialize(common_pb2.SignatureHeader(creator=creator, nonce=nonce)),
    )
    spec = chaincode_pb2.ChaincodeSpec(
        chaincode_id=chaincode_id, input=chaincode_pb2.ChaincodeInput(args=arguments, is_init=is_init)
    )
    payload = proposal_pb2.ChaincodeProposalPayload(
        input=_serialize(chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=spec))
    )
    endorsed_payload = _serialize(payload)
    payload.TransientMap.update(transient or {})
    return Proposal(
        channel_id=channel_id,
        tx_id=tx_id,
        header_type=HEADER_ENDORSER_TRANSACTION,
        epoch=0,
        seconds=seconds,
        nanos=nanos,
        creator=creator,
        nonce=nonce,
        chaincode=chaincode,
        planned_chaincode=chaincode,
        arguments=tuple(arguments),
        is_init=is_init,
        decorations={},
        transient=dict(transient or {}),
        channel_header=header.channel_header,
        signature_header=header.signature_header,
        payload=endorsed_payload,
        content=_serialize(proposal_pb2.Proposal(header=_serialize(header), payload=_serialize(payload))),
        signature=b"",
    )


def sign_proposal(content: bytes, signature: bytes) -> bytes:
    """Give the SignedProposal of Proposal bytes and the creator's signature over them."""
    return _serialize(proposal_pb2.SignedProposal(proposal_bytes=content, signature=signature))


def encode_envelope(payload: bytes, signature: bytes) -> bytes:
    """Give the Envelope of a payload and the creator's signature over it."""
    return _serialize(common_pb2.Envelope(payload=payload, signature=signature))


# --- of the peer


def decode_proposal(content: bytes) -> Proposal:
    """Read a SignedProposal; raises ProposalError with the text a peer gives."""
    signed = _parse(proposal_pb2.SignedProposal, content)
    proposal = _parse(proposal_pb2.Proposal, signed.proposal_bytes)
    header = _parse(common_pb2.Header, proposal.header)
    channel_header = _parse(common_pb2.ChannelHeader, header.channel_header)
    signature_header = _parse(common_pb2.SignatureHeader, header.signature_header)
    extension = _parse(proposal_pb2.ChaincodeHeaderExtension, channel_header.extension)
    if not extension.HasField("chaincode_id"):
        raise ProposalError("ChaincodeHeaderExtension.ChaincodeId is nil")
    if not extension.chaincode_id.name:
        raise ProposalError("ChaincodeHeaderExtension.ChaincodeId.Name is empty")
    payload = _parse(proposal_pb2.ChaincodeProposalPayload, proposal.payload)
    invocation = _parse(chaincode_pb2.ChaincodeInvocationSpec, payload.input)
    if not invocation.HasField("chaincode_spec"):
        raise ProposalError("chaincode invocation spec did not contain chaincode spec")
    spec = invocation.chaincode_spec
    if not spec.HasField("input"):
        raise ProposalError("chaincode input did not contain any input")
    stamped = channel_header.HasField("timestamp")
    return Proposal(
        channel_id=channel_header.channel_id,
        tx_id=channel_header.tx_id,
        header_type=channel_header.type,
        epoch=channel_header.epoch,
        seconds=channel_header.timestamp.seconds if stamped else None,
        nanos=channel_header.timestamp.nanos if stamped else None,
        creator=signature_header.creator,
        nonce=signature_header.nonce,
        chaincode=extension.chaincode_id.name,
        planned_chaincode=spec.chaincode_id.name,
        arguments=tuple(spec.input.args),
        is_init=spec.input.is_init,
        decorations=dict(spec.input.decorations),
        transient=dict(payload.TransientMap),
        channel_header=header.channel_header,
        signature_header=header.signature_header,
        payload=_serialize(proposal_pb2.ChaincodeProposalPayload(input=payload.input)),
        content=signed.proposal_bytes,
        signature=signed.signature,
    )


def check_proposal(proposal: Proposal, msps: ChannelMsps) -> Identity:
    """Check what a peer checks of a proposal by itself, in its order; give the creator.

    `msps`: those of the channel, or the peer's own one for a proposal that names no channel. Not checked: the clock
    (`core/handlers/auth/filter`), that the id is new, and whether the creator may propose at all. Raises ProposalError
    with the text a peer gives; it says no more about a creator than a peer does.
    """
    try:
        return _check_proposal(proposal, msps)
    except ProposalError as error:
        raise ProposalError(f"error validating proposal: {error}") from error.__cause__


def _check_proposal(proposal: Proposal, msps: ChannelMsps) -> Identity:
    # A configuration has no business here either; peers let its type pass all the same.
    if proposal.header_type not in (HEADER_ENDORSER_TRANSACTION, HEADER_CONFIG):
        raise ProposalError(f"invalid header type {_header_type_name(proposal.header_type)}")
    if proposal.epoch != 0:
        raise ProposalError("epoch is non-zero")
    if not proposal.nonce:
        raise ProposalError("nonce is empty")
    if not proposal.creator:
        raise ProposalError("creator is empty")
    expected = transaction_id(proposal.nonce, proposal.creator)
    if proposal.tx_id != expected:
        raise ProposalError(f"incorrectly computed txid '{proposal.tx_id}' -- expected '{expected}'")
    if not proposal.signature:
        raise ProposalError("empty signature bytes")
    denied = f"access denied: channel [{proposal.channel_id}] creator org"
    try:
        creator = msps.identity(decode_serialized_identity(proposal.creator))
    except (DecodeError, IdentityError) as error:
        raise ProposalError(f"{denied} unknown, creator is malformed") from error
    try:
        msps.verify_identity(creator)
    except IdentityError as error:
        raise ProposalError(f"{denied} [{creator.msp_id}]") from error
    if not creator.has_signed(proposal.content, proposal.signature):
        raise ProposalError(f"{denied} [{creator.msp_id}]")
    return creator


def _header_type_name(number: int) -> str:
    known = common_pb2.HeaderType.DESCRIPTOR.values_by_number.get(number)
    return str(number) if known is None else str(known.name)


def response_payload(
    proposal: Proposal, *, version: str, response: Response, results: bytes, event: ChaincodeEvent | None
) -> bytes:
    """Write the ProposalResponsePayload that endorsers agree on.

    `version`: of the chaincode's definition (`syscc` for a system chaincode). `results`: TxReadWriteSet bytes.
    """
    action = proposal_pb2.ChaincodeAction(
        results=results,
        response=_encode_response(response),
        chaincode_id=chaincode_pb2.ChaincodeID(name=proposal.chaincode, version=version),
    )
    if event is not None:
        action.events = _serialize(
            chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=event.chaincode, tx_id=event.tx_id, event_name=event.name, payload=event.payload
            )
        )
    return _serialize(
        proposal_response_pb2.ProposalResponsePayload(proposal_hash=proposal.hash, extension=_serialize(action))
    )


def endorsed_bytes(payload: bytes, endorser: bytes) -> bytes:
    """Give what an endorser signs: the ProposalResponsePayload and its own serialised identity."""
    return payload + endorser


def encode_proposal_response(
    response: Response,
    *,
    payload: bytes = b"",
    endorsement: Endorsement | None = None,
    interest: Iterable[ChaincodeCall] | None = None,
) -> bytes:
    """Write a ProposalResponse: endorsed, or an answer alone (`RESPONSE_VERSION`).

    A status of 500 or more without `payload` says that the peer failed, with one that the chaincode did
    (`internal/pkg/gateway/apiutils.go`). Raises DecodeError for an interest in a key policy that is none.
    """
    message = proposal_response_pb2.ProposalResponse(response=_encode_response(response), payload=payload)
    if endorsement is not None:
        message.version = RESPONSE_VERSION
        message.endorsement.endorser, message.endorsement.signature = endorsement
    if interest is not None:
        message.interest.CopyFrom(encode_interest(interest))
    return _serialize(message)


# --- of the gateway


def prepared_transaction(proposal: Proposal, endorsements: Iterable[Endorsement], payload: bytes) -> bytes:
    """Write the Payload that the client signs; `payload`: the ProposalResponsePayload bytes that were endorsed.

    Of two endorsements by the same endorser the first is kept. Raises ProposalError when there is none.
    """
    unique: dict[bytes, Endorsement] = {}
    for endorsement in endorsements:
        unique.setdefault(endorsement.endorser, endorsement)
    if not unique:
        raise ProposalError("no endorsements")
    endorsed = transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=payload)
    for endorser, signature in unique.values():
        endorsed.endorsements.add(endorser=endorser, signature=signature)
    content = transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal.payload, action=endorsed)
    action = transaction_pb2.TransactionAction(header=proposal.signature_header, payload=_serialize(content))
    header = common_pb2.Header(channel_header=proposal.channel_header, signature_header=proposal.signature_header)
    return _serialize(common_pb2.Payload(header=header, data=_serialize(transaction_pb2.Transaction(actions=[action]))))


def _encode_response(response: Response) -> proposal_response_pb2.Response:
    return proposal_response_pb2.Response(status=response.status, message=response.message, payload=response.payload)


def _parse(kind: type[M], content: bytes) -> M:
    try:
        return parse_in_words_of_go(kind, content)
    except DecodeError as error:
        raise ProposalError(f"error unmarshalling {kind.DESCRIPTOR.name}: {error}") from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
