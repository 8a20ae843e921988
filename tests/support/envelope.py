"""Envelopes with other headers than their makers gave them, and what stands inside."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol.wire import scan_fields, varint


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


def change_inside(content: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """Change the bytes of a message nested in others: at each step the first field of that number."""
    if not path:
        return change(content)
    out = b""
    done = False
    for field in scan_fields(content):
        inner = field.content
        if field.number == path[0] and not done:
            inner, done = change_inside(inner, path[1:], change), True
        head = varint(field.number << 3 | field.wire_type)
        out += head + (varint(len(inner)) + inner if field.wire_type == 2 else field.raw)
    assert done
    return out


PLACES: Final = {
    "envelope": (),
    "payload": (1,),
    "header": (1, 1),
    "channel header": (1, 1, 1),
    "timestamp": (1, 1, 1, 3),
    "signature header": (1, 1, 2),
    "transaction": (1, 2),
    "action": (1, 2, 1),
    "action payload": (1, 2, 1, 2),
    "proposal": (1, 2, 1, 2, 1),
    "invocation": (1, 2, 1, 2, 1, 1),
    "chaincode spec": (1, 2, 1, 2, 1, 1, 1),
    "chaincode input": (1, 2, 1, 2, 1, 1, 1, 3),
    "endorsed action": (1, 2, 1, 2, 2),
    "endorsement": (1, 2, 1, 2, 2, 2),
    "response payload": (1, 2, 1, 2, 2, 1),
    "chaincode action": (1, 2, 1, 2, 2, 1, 2),
    "chaincode id": (1, 2, 1, 2, 2, 1, 2, 4),
    "event": (1, 2, 1, 2, 2, 1, 2, 2),
    "results": (1, 2, 1, 2, 2, 1, 2, 1),
    "namespace": (1, 2, 1, 2, 2, 1, 2, 1, 2),
    "public set": (1, 2, 1, 2, 2, 1, 2, 1, 2, 2),
    "read": (1, 2, 1, 2, 2, 1, 2, 1, 2, 2, 1),
    "version": (1, 2, 1, 2, 2, 1, 2, 1, 2, 2, 1, 2),
}
"""Messages of an ordinary envelope: the numbers of the fields that lead there."""

CHANGES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "every field twice": lambda content: content + content,
    "emptied": lambda _: b"",
    "an unknown field": lambda content: content + b"\xfa\x3e\x01x",
    "an unknown field before": lambda content: b"\xfa\x3e\x01x" + content,
    "first field again, empty": lambda content: content + b"\x0a\x00",
    "second field again, empty": lambda content: content + b"\x12\x00",
    "first field again, other": lambda content: content + b"\x0a\x03\x0a\x01z",
    "second field again, other": lambda content: content + b"\x12\x03\x0a\x01z",
    "a group": lambda content: content + b"\xfb\x3e\xfc\x3e",
    "cut": lambda content: content[:-1],
    "not UTF-8": lambda content: content + b"\x0a\x01\xff\x12\x01\xff\x1a\x01\xff",
    "a long varint": lambda content: content + b"\x08\x83\x00",
    "a negative number": lambda content: content + b"\x08\xff\xff\xff\xff\x0f",
}
"""What can be done to a message; most of it leaves it one."""
