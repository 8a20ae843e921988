"""Envelopes with other headers than their makers gave them, and what stands inside."""

from collections.abc import Callable
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2


def change_headers(envelope: bytes, change: Callable[[Any, Any], None]) -> bytes:
    """Give the envelope's bytes after a change to its channel header and signature header; nothing is signed anew."""
    message = common_pb2.Envelope.FromString(envelope)
    payload = common_pb2.Payload.FromString(message.payload)
    channel_header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    signature_header = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
    change(channel_header, signature_header)
    payload.header.channel_header = channel_header.SerializeToString(deterministic=True)
    payload.header.signature_header = signature_header.SerializeToString(deterministic=True)
    message.payload = payload.SerializeToString(deterministic=True)
    return bytes(message.SerializeToString(deterministic=True))


def endorsed_results(envelope: bytes) -> bytes:
    """Give the TxReadWriteSet bytes that an endorser transaction holds."""
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
    (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
    endorsed = transaction_pb2.ChaincodeActionPayload.FromString(action.payload).action.proposal_response_payload
    response = proposal_response_pb2.ProposalResponsePayload.FromString(endorsed)
    return bytes(proposal_pb2.ChaincodeAction.FromString(response.extension).results)
