"""Messages to services, of a moment and a creator that a test chooses."""

from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2


def seek_info(start: int, stop: int) -> bytes:
    """Give a SeekInfo from a number to a number."""
    first, last = (ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=number)) for number in (start, stop))
    return bytes(ab_pb2.SeekInfo(start=first, stop=last).SerializeToString())


def envelope_of(creator: bytes, data: bytes, nanoseconds: int, *, kind: int = 5, channel: str = "consortium") -> bytes:
    """Give the payload of an envelope, which its creator signs."""
    header: Any = common_pb2.ChannelHeader(type=kind, channel_id=channel)
    header.timestamp.seconds, header.timestamp.nanos = divmod(nanoseconds, 1_000_000_000)
    signature_header = common_pb2.SignatureHeader(creator=creator, nonce=b"nonce")
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
        ),
        data=data,
    )
    return bytes(payload.SerializeToString())
