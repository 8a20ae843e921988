"""The events of a block as the Gateway service gives them. Pure.

Rules: `internal/pkg/gateway/event/{block,transaction,chaincodeiterator}.go`, `internal/pkg/gateway/chaincodeevents.go`.
"""

from collections.abc import Iterator
from typing import TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import Message

from network.protocol.block import SLOT_TRANSACTIONS_FILTER
from network.protocol.errors import DecodeError
from network.protocol.transaction import HEADER_ENDORSER_TRANSACTION
from network.protocol.validation_code import VALID
from network.protocol.wire import parse_in_words_of_go

M = TypeVar("M", bound=Message)


def block_events(block: common_pb2.Block) -> list[chaincode_event_pb2.ChaincodeEvent]:
    """Give the events of a block's valid transactions, in their order.

    Raises DecodeError, in Go's words, when the headers of any transaction cannot be read, valid or not: a real peer's
    stream ends there.
    """
    flags = block.metadata.metadata[SLOT_TRANSACTIONS_FILTER]
    headers = [_headed(content) for content in block.data.data]
    events: list[chaincode_event_pb2.ChaincodeEvent] = []
    for number, (header, data) in enumerate(headers):
        if header.type == HEADER_ENDORSER_TRANSACTION and flags[number] == VALID:
            for action in parse_in_words_of_go(transaction_pb2.Transaction, data).actions:
                events.extend(_action_events(action.payload))
    return events


def _headed(content: bytes) -> tuple[common_pb2.ChannelHeader, bytes]:
    envelope = parse_in_words_of_go(common_pb2.Envelope, content)
    payload = parse_in_words_of_go(common_pb2.Payload, envelope.payload)
    return parse_in_words_of_go(common_pb2.ChannelHeader, payload.header.channel_header), payload.data


def _action_events(content: bytes) -> Iterator[chaincode_event_pb2.ChaincodeEvent]:
    try:
        payload = parse_in_words_of_go(transaction_pb2.ChaincodeActionPayload, content)
        response = parse_in_words_of_go(
            proposal_response_pb2.ProposalResponsePayload, payload.action.proposal_response_payload
        )
        action = parse_in_words_of_go(proposal_pb2.ChaincodeAction, response.extension)
        event = parse_in_words_of_go(chaincode_event_pb2.ChaincodeEvent, action.events)
    except DecodeError:
        return
    if event.chaincode_id and event.event_name and event.tx_id:
        yield event


class EventFilter:
    """Lets the events of one chaincode pass; with `after`, those behind the event of that transaction.

    Until an event of that transaction comes, of any chaincode, nothing passes: one that set no event, or is invalid,
    keeps the stream silent for ever.
    """

    def __init__(self, chaincode: str, after: str) -> None:
        self._chaincode = chaincode
        self._after = after

    def passes(self, event: chaincode_event_pb2.ChaincodeEvent) -> bool:
        """Tell whether an event is wanted; to be asked of every event in order."""
        if self._after:
            if event.tx_id == self._after:
                self._after = ""
            return False
        return bool(event.chaincode_id == self._chaincode)
