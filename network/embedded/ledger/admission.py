"""What an orderer takes: form, size, expiry and signature of an envelope. What is in it, peers judge later.

Rules: `orderer/common/broadcast/broadcast.go`, `orderer/common/multichannel/registrar.go`,
`orderer/common/msgprocessor/{filter,sizefilter,expiration,sigfilter}.go`.
"""

from typing import Final

from fabric_protos.common import common_pb2

from network.embedded.ledger.expiry import has_expired
from network.protocol.endorsement_policy import ChannelRules
from network.protocol.errors import DecodeError, PolicyError
from network.protocol.policy import SignedData
from network.protocol.transaction import HEADER_CONFIG, HEADER_CONFIG_UPDATE
from network.protocol.wire import parse

BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
NOT_IMPLEMENTED: Final = 501

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
    return str(_headers(envelope)[0].channel_id)


def check_envelope(envelope: common_pb2.Envelope, rules: ChannelRules, max_bytes: int, now: float) -> None:
    """Raise AdmissionError unless the envelope may be ordered; `now` in seconds since 1970."""
    header, signature_header = _headers(envelope)
    refused = _TYPE_REFUSALS.get(header.type)
    if refused is not None:
        raise AdmissionError(*refused)
    size = len(envelope.payload) + len(envelope.signature)
    if size > max_bytes:
        words = f"message payload is {size} bytes and exceeds maximum allowed {max_bytes} bytes"
        raise AdmissionError(BAD_REQUEST, words)
    if has_expired(signature_header.creator, now):
        raise AdmissionError(BAD_REQUEST, "broadcast client identity expired")
    signed = SignedData(signature_header.creator, envelope.payload, envelope.signature)
    try:
        rules.trust.policies.evaluate_signed_data(WRITERS, (signed,))
    except PolicyError as error:
        raise AdmissionError(FORBIDDEN, f"{error}: permission denied") from error


def _headers(envelope: common_pb2.Envelope) -> tuple[common_pb2.ChannelHeader, common_pb2.SignatureHeader]:
    try:
        header = parse(common_pb2.Payload, envelope.payload, "Payload").header
        channel_header = parse(common_pb2.ChannelHeader, header.channel_header, "ChannelHeader")
        signature_header = parse(common_pb2.SignatureHeader, header.signature_header, "SignatureHeader")
    except DecodeError as error:
        raise AdmissionError(BAD_REQUEST, f"could not determine channel ID: {error}") from error
    return channel_header, signature_header
