"""A block in outline: its transactions by id, type and verdict, with the names of their events. Pure.

Rules: `core/peer/deliverevents.go` (toFilteredBlock, toFilteredActions).
"""

from typing import Final, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    events_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.message import Message

from network.protocol.block import SLOT_TRANSACTIONS_FILTER
from network.protocol.errors import DecodeError
from network.protocol.transaction import HEADER_ENDORSER_TRANSACTION
from network.protocol.wire import parse

M = TypeVar("M", bound=Message)

_NOT_VALIDATED: Final = 254


def filtered_block(block: common_pb2.Block) -> events_pb2.FilteredBlock:
    """Give a block as DeliverFiltered does: every transaction, valid or not; events without payload.

    What has no header is left out. Raises DecodeError where a real peer gives no outline of the whole block: one
    transaction's layers cannot be read.
    """
    outline = events_pb2.FilteredBlock(number=block.header.number)
    flags = block.metadata.metadata[SLOT_TRANSACTIONS_FILTER]
    for number, content in enumerate(block.data.data):
        try:
            envelope = _read(common_pb2.Envelope, content)
        except DecodeError:
            continue
        payload = _read(common_pb2.Payload, envelope.payload)
        if not payload.HasField("header"):
            continue
        header = _read(common_pb2.ChannelHeader, payload.header.channel_header)
        outline.channel_id = header.channel_id
        code = flags[number] if number < len(flags) else _NOT_VALIDATED
        transaction = outline.filtered_transactions.add(txid=header.tx_id, type=header.type, tx_validation_code=code)
        if header.type == HEADER_ENDORSER_TRANSACTION:
            transaction.transaction_actions.CopyFrom(_actions(payload.data))
    return outline


def _actions(content: bytes) -> events_pb2.FilteredTransactionActions:
    outline = events_pb2.FilteredTransactionActions()
    for action in _read(transaction_pb2.Transaction, content).actions:
        payload = _read(transaction_pb2.ChaincodeActionPayload, action.payload)
        if not payload.HasField("action"):
            continue
        response = _read(proposal_response_pb2.ProposalResponsePayload, payload.action.proposal_response_payload)
        chaincode_action = _read(proposal_pb2.ChaincodeAction, response.extension)
        event = _read(chaincode_event_pb2.ChaincodeEvent, chaincode_action.events)
        if event.chaincode_id:
            known = chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=event.chaincode_id, tx_id=event.tx_id, event_name=event.event_name
            )
            outline.chaincode_actions.add(chaincode_event=known)
    return outline


def _read(kind: type[M], content: bytes) -> M:
    return parse(kind, content, kind.DESCRIPTOR.name)
