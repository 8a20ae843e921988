"""Envelopes with other headers than their makers gave them."""

from collections.abc import Callable
from typing import Any

from fabric_protos.common import common_pb2


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
