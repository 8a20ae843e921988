"""What a peer looks at before it reads a proposal: whether its sender's certificate is over, and whether it is of now.

Rules and texts: `core/handlers/auth/filter/{expiration,timewindow}.go`, in the order of `peer.handlers.authFilters`.
"""

from datetime import UTC, datetime
from typing import Final, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2
from google.protobuf.message import Message

from network.embedded.ledger.expiry import has_expired
from network.protocol.errors import DecodeError
from network.protocol.wire import parse_in_words_of_go

TIME_WINDOW_SECONDS: Final = 15 * 60

M = TypeVar("M", bound=Message)


class EndorserError(Exception):
    """The call itself fails: the proposal is not answered. The text is Fabric's."""


class RequestFilterError(EndorserError):
    """The proposal is of an expired identity, of another time, or has no headers; nothing else of it was looked at."""


def check_request(content: bytes, now: float) -> None:
    """Raise RequestFilterError unless the Proposal bytes may be looked at; `now` in seconds since 1970."""
    proposal = _read(proposal_pb2.Proposal, content, "proposal")
    header = _read(common_pb2.Header, proposal.header, "header")
    if has_expired(_read(common_pb2.SignatureHeader, header.signature_header, "signature header").creator, now):
        raise RequestFilterError("proposal client identity expired")
    timestamp = _read(common_pb2.ChannelHeader, header.channel_header, "channel header").timestamp
    seconds = timestamp.seconds + timestamp.nanos / 1e9
    if abs(now - seconds) > TIME_WINDOW_SECONDS:
        raise RequestFilterError(
            f"request unauthorized due to incorrect timestamp {_time_text(seconds)}, peer time {_time_text(now)}, "
            "peer.authentication.timewindow 15m0s"
        )


def _read(kind: type[M], content: bytes, what: str) -> M:
    try:
        return parse_in_words_of_go(kind, content)
    except DecodeError as error:
        words = f"failed parsing {what}: error unmarshalling {kind.DESCRIPTOR.name}: {error}"
        raise RequestFilterError(words) from error


def _time_text(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # a year that only Go can write
        return f"{seconds:.0f} seconds after 1970"
