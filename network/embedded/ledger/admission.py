"""What an orderer takes: form, size, expiry and signature of an envelope. What is in it, peers judge later.

Rules: `orderer/common/broadcast/broadcast.go`, `orderer/common/multichannel/registrar.go`,
`orderer/common/msgprocessor/{filter,sizefilter,expiration,sigfilter}.go`.
"""

from typing import Final

from fabric_protos.common import common_pb2

from network.embedded.ledger.access_control import policy_defect
from network.embedded.ledger.expiry import has_expired
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import DecodeError
from network.protocol.policy import SignedData
from network.protocol.transaction import HEADER_CONFIG, HEADER_CONFIG_UPDATE
from network.protocol.wire import parse_in_words_of_go

BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
NOT_IMPLEMENTED: Final = 501
SERVICE_UNAVAILABLE: Final = 503

HEADER_ORDERER_TRANSACTION: Final = 4
WRITERS: Final = "/Channel/Writers"

_TYPE_REFUSALS: Final = {
    HEADER_CONFIG: (BAD_REQUEST, "message is of type that cannot be processed directly"),
    HEADER_ORDERER_TRANSACTION: (BAD_REQUEST, "message is of type that is no longer supported"),
    HEADER_CONFIG_UPDATE: (NOT_IMPLEMENTED, "the embedded network does not change configurations"),
}


class AdmissionError(Exception):
    """The envelope is refused: a status of `common.Status`, and why."""

    def __init__(self, status: int, info: str) -> None:
        super().__init__(info)
        self.status = status
        self.info = info


def read_channel_id(envelope: common_pb2.Envelope) -> str:
    """Give the channel that an envelope is for; raises AdmissionError."""
    return str(_channel_header(envelope).channel_id)


def check_envelope(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    """Raise AdmissionError unless the envelope may be ordered; `now` in seconds since 1970."""
    header = _channel_header(envelope)
    refused = _TYPE_REFUSALS.get(header.type)
    if refused is not None:
        raise AdmissionError(*refused)
    size = len(envelope.payload) + len(envelope.signature)
    if size > max_bytes:
        words = f"message payload is {size} bytes and exceeds maximum allowed {max_bytes} bytes"
        raise AdmissionError(BAD_REQUEST, words)
    creator = _creator(envelope)
    if has_expired(creator, now):
        raise AdmissionError(BAD_REQUEST, "broadcast client identity expired")
    defect = policy_defect(WRITERS, SignedData(creator, envelope.payload, envelope.signature), rules)
    if defect is not None:
        raise AdmissionError(FORBIDDEN, f"{defect}: permission denied")


def _channel_header(envelope: common_pb2.Envelope) -> common_pb2.ChannelHeader:
    undetermined = "could not determine channel ID: "
    try:
        payload = parse_in_words_of_go(common_pb2.Payload, envelope.payload)
    except DecodeError as error:
        raise AdmissionError(BAD_REQUEST, f"{undetermined}error unmarshalling Payload: {error}") from error
    if not payload.HasField("header"):
        raise AdmissionError(BAD_REQUEST, f"{undetermined}header not set")
    if not payload.header.channel_header:
        raise AdmissionError(BAD_REQUEST, f"{undetermined}channel header not set")
    try:
        return parse_in_words_of_go(common_pb2.ChannelHeader, payload.header.channel_header)
    except DecodeError as error:
        words = f"{undetermined}error unmarshalling channel header: error unmarshalling ChannelHeader: {error}"
        raise AdmissionError(BAD_REQUEST, words) from error


def _creator(envelope: common_pb2.Envelope) -> bytes:
    header = parse_in_words_of_go(common_pb2.Payload, envelope.payload).header
    try:
        return bytes(parse_in_words_of_go(common_pb2.SignatureHeader, header.signature_header).creator)
    except DecodeError as error:
        words = f"could not convert message to signedData: GetSignatureHeaderFromBytes failed, err {error}"
        raise AdmissionError(BAD_REQUEST, words) from error
