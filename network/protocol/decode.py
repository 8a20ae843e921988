"""Bytes of a block to a `Block`: total, bounded, one malformed transaction never hides the others.

What makes a block undecodable is only what would keep Fabric from handling it at all (`common/common.proto` Block). A
transaction is read as far as it goes, in the order of a peer's checks (`core/common/validation/msgvalidation.go`,
`core/committer/txvalidator/v20/validator.go`), and says where reading had to stop.
"""

from hashlib import sha256
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol import limits
from network.protocol.block import SLOT_COMMIT_HASH, SLOT_TRANSACTIONS_FILTER, Block, BlockFrame, BlockHeader
from network.protocol.envelope_view import view_envelope
from network.protocol.errors import DecodeError, LimitExceededError
from network.protocol.read_write_set import RepeatedField, decode_writes, view_writes
from network.protocol.transaction import (
    HEADER_CONFIG,
    HEADER_ENDORSER_TRANSACTION,
    Action,
    ChaincodeEvent,
    ChaincodeId,
    Defect,
    Endorsement,
    Transaction,
)
from network.protocol.wire import parse

_COMMIT_HASH_BYTES = sha256().digest_size


def decode_block(content: bytes) -> Block:
    """Decode a serialised `common.Block` with everything in it.

    Raises DecodeError when the bytes are no block, LimitExceededError beyond `network.protocol.limits`.
    """
    header, envelopes, metadata, flags, commit_hash = decode_frame(content)
    transactions = tuple([decode_transaction(number, envelope) for number, envelope in enumerate(envelopes)])
    return Block(header, envelopes, metadata, transactions, flags, commit_hash)


def decode_frame(content: bytes) -> BlockFrame:
    """Decode a serialised `common.Block` as far as its envelopes.

    Raises DecodeError when the bytes are no block, LimitExceededError beyond `network.protocol.limits`.
    """
    if len(content) > limits.MAX_BLOCK_BYTES:
        message = f"block of {len(content)} bytes, more than the {limits.MAX_BLOCK_BYTES} a peer can serve"
        raise LimitExceededError(message)
    block = parse(common_pb2.Block, content, "Block")
    if not block.HasField("header"):
        message = "Block: no header"
        raise DecodeError(message)
    header = block.header
    if header.number > limits.MAX_BLOCK_NUMBER:
        message = f"Block: number {header.number} is beyond 63 bits"
        raise LimitExceededError(message)
    envelopes = tuple(block.data.data)
    if len(envelopes) > limits.MAX_TRANSACTIONS_PER_BLOCK:
        message = f"Block {header.number}: {len(envelopes)} envelopes, more than {limits.MAX_TRANSACTIONS_PER_BLOCK}"
        raise LimitExceededError(message)
    metadata = tuple(block.metadata.metadata)
    if len(metadata) > limits.MAX_METADATA_SLOTS:
        message = f"Block {header.number}: {len(metadata)} metadata slots, more than {limits.MAX_METADATA_SLOTS}"
        raise LimitExceededError(message)
    return BlockFrame(
        BlockHeader(header.number, header.previous_hash, header.data_hash),
        envelopes,
        metadata,
        metadata[SLOT_TRANSACTIONS_FILTER] if len(metadata) > SLOT_TRANSACTIONS_FILTER else b"",
        _commit_hash(metadata, header.number),
    )


def _commit_hash(metadata: tuple[bytes, ...], block_number: int) -> bytes | None:
    if len(metadata) <= SLOT_COMMIT_HASH or not metadata[SLOT_COMMIT_HASH]:
        return None
    slot = parse(common_pb2.Metadata, metadata[SLOT_COMMIT_HASH], f"Block {block_number}: commit hash")
    value: bytes = slot.value
    if len(value) != _COMMIT_HASH_BYTES:
        message = f"Block {block_number}: commit hash of {len(value)} bytes"
        raise DecodeError(message)
    return value


def decode_transaction(tx_number: int, envelope: bytes) -> Transaction:
    """Decode one envelope as far as it goes; never raises on any bytes."""
    view = view_envelope(envelope)
    found = None if view is None else _read_view(tx_number, view)
    return decode_by_parts(tx_number, envelope) if found is None else found


def _read_view(tx_number: int, view: Any) -> Transaction | None:  # noqa: ANN401  as `view_envelope`
    """Read an ordinary endorser transaction; None: it lacks something, and reading it part by part tells what."""
    payload = view.payload
    header = payload.header
    channel_header = header.channel_header
    actions = payload.data.actions
    if channel_header.type != HEADER_ENDORSER_TRANSACTION or len(actions) != 1:
        return None
    timestamp = channel_header.timestamp
    seconds = timestamp.seconds
    action_payload = actions[0].payload
    endorsed = action_payload.action
    action = endorsed.proposal_response_payload.extension
    chaincode = action.chaincode_id
    name = chaincode.name
    event = _event(action.events) if action.HasField("events") else None
    if not seconds or not name or (event and not event.name):
        return None  # perhaps the field is not there at all
    arguments = action_payload.chaincode_proposal_payload.input.chaincode_spec.input.args
    return Transaction(
        tx_number,
        HEADER_ENDORSER_TRANSACTION,
        channel_header.channel_id,
        channel_header.tx_id,
        seconds,
        timestamp.nanos,
        header.signature_header.creator,
        Action(
            ChaincodeId(name, chaincode.version),
            arguments[0] if len(arguments) else None,
            view_writes(action.results),
            event,
            _endorsements(endorsed.endorsements),
        ),
        None,
        None,
    )


def decode_by_parts(tx_number: int, envelope: bytes) -> Transaction:
    """Give what `decode_transaction` gives, by reading one message after the other."""
    empty = Transaction(tx_number, None, "", "", None, None, b"", None, None, None)
    try:
        payload = parse(common_pb2.Payload, parse(common_pb2.Envelope, envelope, "Envelope").payload, "Payload")
        if not payload.HasField("header"):
            return empty._replace(defect=Defect("Payload", "no header"))
        channel_header = parse(common_pb2.ChannelHeader, payload.header.channel_header, "ChannelHeader")
    except DecodeError as error:
        return empty._replace(defect=_defect(error))

    header_type = channel_header.type
    stamped = channel_header.HasField("timestamp")
    seconds, nanos = (channel_header.timestamp.seconds, channel_header.timestamp.nanos) if stamped else (None, None)
    creator = b""
    action = config = defect = None
    try:
        creator = parse(common_pb2.SignatureHeader, payload.header.signature_header, "SignatureHeader").creator
        if header_type == HEADER_ENDORSER_TRANSACTION:
            action = _decode_action(payload.data)
        elif header_type == HEADER_CONFIG:
            config = payload.data
    except DecodeError as error:
        defect = _defect(error)
    return Transaction(
        tx_number,
        header_type,
        channel_header.channel_id,
        channel_header.tx_id,
        seconds,
        nanos,
        creator,
        action,
        config,
        defect,
    )


def _defect(error: DecodeError) -> Defect:
    place, _, reason = str(error).partition(": ")
    return Defect(place, reason)


def _decode_action(content: bytes) -> Action:
    transaction = parse(transaction_pb2.Transaction, content, "Transaction")
    if len(transaction.actions) != 1:
        message = f"Transaction: {len(transaction.actions)} actions instead of one"
        raise DecodeError(message)
    payload = parse(transaction_pb2.ChaincodeActionPayload, transaction.actions[0].payload, "ChaincodeActionPayload")
    endorsed = payload.action
    response = parse(
        proposal_response_pb2.ProposalResponsePayload, endorsed.proposal_response_payload, "ProposalResponsePayload"
    )
    action = parse(proposal_pb2.ChaincodeAction, response.extension, "ChaincodeAction")
    chaincode = None
    if action.HasField("chaincode_id"):
        chaincode = ChaincodeId(action.chaincode_id.name, action.chaincode_id.version)
    return Action(
        chaincode,
        _function(payload.chaincode_proposal_payload),
        decode_writes(action.results),
        _event(parse(chaincode_event_pb2.ChaincodeEvent, action.events, "ChaincodeEvent")) if action.events else None,
        _endorsements(endorsed.endorsements),
    )


def _endorsements(endorsements: RepeatedField[proposal_response_pb2.Endorsement]) -> tuple[Endorsement, ...]:
    found = []
    for index in range(len(endorsements)):
        endorsement = endorsements[index]
        found.append(Endorsement(endorsement.endorser, endorsement.signature))
    return tuple(found)


def _function(content: bytes) -> bytes | None:
    try:
        proposal = parse(proposal_pb2.ChaincodeProposalPayload, content, "ChaincodeProposalPayload")
        invocation = parse(chaincode_pb2.ChaincodeInvocationSpec, proposal.input, "ChaincodeInvocationSpec")
    except DecodeError:
        return None
    arguments = invocation.chaincode_spec.input.args
    return arguments[0] if arguments else None


def _event(event: chaincode_event_pb2.ChaincodeEvent) -> ChaincodeEvent:
    return ChaincodeEvent(event.chaincode_id, event.tx_id, event.event_name, event.payload)
