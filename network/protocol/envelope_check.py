"""What a committing peer checks of one envelope by itself: form, signatures of its creator, ids, hashes.

Rules: `core/common/validation/msgvalidation.go` (ValidateTransaction),
`core/committer/txvalidator/v20/plugindispatcher/dispatcher.go` (Dispatch, up to the namespaces),
`protoutil/{commonutils,proputils,txutils}.go`. The order of the checks decides the code, so it is Fabric's own.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import NamedTuple, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import Message

from network.protocol import limits
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import DecodeError, IdentityError
from network.protocol.identity import decode_serialized_identity
from network.protocol.policy import SignedData
from network.protocol.proposal import transaction_id
from network.protocol.read_write_set import NamespaceSet, decode_read_write_set
from network.protocol.transaction import HEADER_CONFIG, HEADER_CONFIG_UPDATE, HEADER_ENDORSER_TRANSACTION
from network.protocol.validation_code import (
    BAD_COMMON_HEADER,
    BAD_CREATOR_SIGNATURE,
    BAD_HEADER_EXTENSION,
    BAD_PAYLOAD,
    BAD_PROPOSAL_TXID,
    BAD_RESPONSE_PAYLOAD,
    BAD_RWSET,
    ILLEGAL_WRITESET,
    INVALID_CHAINCODE,
    INVALID_CONFIG_TRANSACTION,
    INVALID_ENDORSER_TRANSACTION,
    INVALID_OTHER_REASON,
    UNSUPPORTED_TX_PAYLOAD,
)
from network.protocol.wire import parse

M = TypeVar("M", bound=Message)


class Refusal(NamedTuple):
    """Why a transaction is not valid: its code, and the reason for people, which holds no value of the ledger."""

    code: int
    reason: str


class ConfigTransaction(NamedTuple):
    """A configuration transaction in good form; `config` are ConfigEnvelope bytes."""

    config: bytes


@dataclass(frozen=True)
class EndorserTransaction:
    """An endorser transaction in good form up to its creator's signature and the hash of its proposal.

    `extension`: ChaincodeHeaderExtension bytes of the channel header. `payload`: its ChaincodeActionPayload.
    """

    tx_id: str
    extension: bytes
    payload: transaction_pb2.ChaincodeActionPayload

    @cached_property
    def action(self) -> "EndorsedAction | Refusal":
        """What it does, as far as that can be judged without state."""
        try:
            return _read_action(self)
        except _RefusedError as refused:
            return refused.refusal


class EndorsedAction(NamedTuple):
    """What an endorser transaction does: the chaincode called, what it read and wrote, who signed that."""

    chaincode: str
    read_write_set: tuple[NamespaceSet, ...]
    endorsements: tuple[SignedData, ...]


class EnvelopeCheck(NamedTuple):
    """An envelope's id and what it is.

    `tx_id`: the id it claims (nonce and creator, hashed, where it claims none), "" where that cannot be read; it counts
    as used once the block is committed, whatever becomes of the transaction
    (`common/ledger/blkstorage/block_serialization.go`).
    """

    tx_id: str
    content: EndorserTransaction | ConfigTransaction | Refusal


class _RefusedError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(code, reason)


def check_envelope(content: bytes, rules: ChannelRules) -> EnvelopeCheck:
    """Check one envelope of a block; never raises on any bytes.

    What it comes to depends on nothing else, so peers of one process that share their rules look at it once.
    """
    large = len(content) > limits.MAX_REMEMBERED_ENVELOPE_BYTES
    return (_check_envelope if large else _check_envelope_remembered)(content, rules)


def _check_envelope(content: bytes, rules: ChannelRules) -> EnvelopeCheck:
    tx_id = ""
    try:
        envelope = _parse(common_pb2.Envelope, content, "Envelope", INVALID_OTHER_REASON)
        payload = _parse(common_pb2.Payload, envelope.payload, "Payload", BAD_PAYLOAD)
        tx_id = _claimed_id(payload.header)
        return EnvelopeCheck(tx_id, _check_payload(envelope, payload, rules))
    except _RefusedError as refused:
        return EnvelopeCheck(tx_id, refused.refusal)


_check_envelope_remembered = lru_cache(limits.MAX_REMEMBERED_ENVELOPES)(_check_envelope)


def _parse(kind: type[M], content: bytes, place: str, code: int) -> M:
    try:
        return parse(kind, content, place)
    except DecodeError as error:
        raise _RefusedError(code, str(error)) from None


def _claimed_id(header: common_pb2.Header) -> str:
    try:
        claimed: str = parse(common_pb2.ChannelHeader, header.channel_header, "ChannelHeader").tx_id
        if claimed:
            return claimed
        signature_header = parse(common_pb2.SignatureHeader, header.signature_header, "SignatureHeader")
    except DecodeError:
        return ""
    return transaction_id(signature_header.nonce, signature_header.creator)


def _check_payload(
    envelope: common_pb2.Envelope, payload: common_pb2.Payload, rules: ChannelRules
) -> EndorserTransaction | ConfigTransaction:
    if not payload.HasField("header"):
        raise _RefusedError(BAD_COMMON_HEADER, "Payload: no header")
    channel_header = _parse(common_pb2.ChannelHeader, payload.header.channel_header, "ChannelHeader", BAD_COMMON_HEADER)
    signature_header = _parse(
        common_pb2.SignatureHeader, payload.header.signature_header, "SignatureHeader", BAD_COMMON_HEADER
    )
    if channel_header.type not in (HEADER_ENDORSER_TRANSACTION, HEADER_CONFIG_UPDATE, HEADER_CONFIG):
        raise _RefusedError(BAD_COMMON_HEADER, f"ChannelHeader: type {channel_header.type}")
    if channel_header.epoch != 0:
        raise _RefusedError(BAD_COMMON_HEADER, "ChannelHeader: an epoch other than 0")
    _check_signature_header(signature_header, BAD_COMMON_HEADER)
    # An envelope that names another channel would be judged by that channel's members; no honest orderer puts it here.
    if channel_header.channel_id != rules.channel_id:
        raise _RefusedError(BAD_CREATOR_SIGNATURE, "ChannelHeader: another channel")
    _check_creator(signature_header.creator, envelope, rules)
    if channel_header.type == HEADER_CONFIG:
        if not payload.data:
            raise _RefusedError(INVALID_CONFIG_TRANSACTION, "Payload: no configuration")
        return ConfigTransaction(payload.data)
    if channel_header.type == HEADER_CONFIG_UPDATE:
        raise _RefusedError(UNSUPPORTED_TX_PAYLOAD, "an update of the configuration that no orderer has applied")
    if channel_header.tx_id != transaction_id(signature_header.nonce, signature_header.creator):
        raise _RefusedError(BAD_PROPOSAL_TXID, "ChannelHeader: an id that is not the hash of nonce and creator")
    action_payload = _check_transaction(payload)
    return EndorserTransaction(channel_header.tx_id, channel_header.extension, action_payload)


def _check_signature_header(header: common_pb2.SignatureHeader, code: int) -> None:
    if not header.nonce or not header.creator:
        raise _RefusedError(code, "SignatureHeader: no nonce, or no creator")


def _check_creator(creator: bytes, envelope: common_pb2.Envelope, rules: ChannelRules) -> None:
    try:
        identity = rules.msps.identity(decode_serialized_identity(creator))
        rules.msps.verify_identity(identity)
    except (DecodeError, IdentityError) as error:
        raise _RefusedError(BAD_CREATOR_SIGNATURE, f"creator: {error}") from None
    if not identity.has_signed(envelope.payload, envelope.signature):
        raise _RefusedError(BAD_CREATOR_SIGNATURE, "the signature is not the creator's")


def _check_transaction(payload: common_pb2.Payload) -> transaction_pb2.ChaincodeActionPayload:
    code = INVALID_ENDORSER_TRANSACTION
    transaction = _parse(transaction_pb2.Transaction, payload.data, "Transaction", code)
    if len(transaction.actions) != 1:
        raise _RefusedError(code, f"Transaction: {len(transaction.actions)} actions instead of one")
    action = transaction.actions[0]
    _check_signature_header(_parse(common_pb2.SignatureHeader, action.header, "SignatureHeader", code), code)
    action_payload = _parse(transaction_pb2.ChaincodeActionPayload, action.payload, "ChaincodeActionPayload", code)
    response = _parse(
        proposal_response_pb2.ProposalResponsePayload,
        action_payload.action.proposal_response_payload,
        "ProposalResponsePayload",
        code,
    )
    expected = sha256(payload.header.channel_header + action.header + action_payload.chaincode_proposal_payload)
    if response.proposal_hash != expected.digest():
        raise _RefusedError(code, "ProposalResponsePayload: not the hash of this proposal")
    return action_payload


def read_action(transaction: EndorserTransaction) -> EndorsedAction | Refusal:
    """Read what an endorser transaction does, as far as that can be judged without state; never raises."""
    return transaction.action


def _read_action(transaction: EndorserTransaction) -> EndorsedAction:
    header = _parse(
        proposal_pb2.ChaincodeHeaderExtension, transaction.extension, "ChaincodeHeaderExtension", BAD_HEADER_EXTENSION
    )
    endorsed = transaction.payload.action
    content = endorsed.proposal_response_payload
    response = _parse(
        proposal_response_pb2.ProposalResponsePayload, content, "ProposalResponsePayload", BAD_RESPONSE_PAYLOAD
    )
    if not response.extension:
        raise _RefusedError(BAD_RESPONSE_PAYLOAD, "ProposalResponsePayload: no action")
    action = _parse(proposal_pb2.ChaincodeAction, response.extension, "ChaincodeAction", BAD_RESPONSE_PAYLOAD)
    try:
        read_write_set = decode_read_write_set(action.results)
    except DecodeError as error:
        raise _RefusedError(BAD_RWSET, str(error)) from None
    if not header.HasField("chaincode_id") or not action.HasField("chaincode_id"):
        raise _RefusedError(INVALID_OTHER_REASON, "no chaincode named")
    chaincode: str = header.chaincode_id.name
    if not chaincode or chaincode != action.chaincode_id.name or not action.chaincode_id.version:
        raise _RefusedError(INVALID_CHAINCODE, "chaincode without name or version, or named in two ways")
    if action.events:
        event = _parse(chaincode_event_pb2.ChaincodeEvent, action.events, "ChaincodeEvent", INVALID_OTHER_REASON)
        if event.chaincode_id != chaincode:
            raise _RefusedError(INVALID_OTHER_REASON, "ChaincodeEvent: of another chaincode")
    namespaces = [entry.namespace for entry in read_write_set]
    if len(set(namespaces)) < len(namespaces):
        raise _RefusedError(ILLEGAL_WRITESET, "TxReadWriteSet: a namespace twice")
    endorsements = [
        SignedData(endorsement.endorser, content + endorsement.endorser, endorsement.signature)
        for endorsement in endorsed.endorsements
    ]
    return EndorsedAction(chaincode, read_write_set, tuple(endorsements))
