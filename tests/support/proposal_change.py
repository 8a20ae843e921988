"""What can be done to the parts of a proposal before it is put together and signed (`service_request.ProposalSpec`)."""

from typing import Any

from network.protocol.proposal import transaction_id
from tests.support.service_request import Change, ProposalParts


def replaced(**layers: Any) -> Change:
    """Put these in place of whole parts, bytes too."""

    def change(parts: Any) -> None:
        for name, content in layers.items():
            setattr(parts, name, content)

    return change


def header(**fields: Any) -> Change:
    """Set fields of the channel header."""

    def change(parts: ProposalParts) -> None:
        for name, content in fields.items():
            setattr(parts.channel_header, name, content)

    return change


def without_time(parts: ProposalParts) -> None:
    parts.channel_header.ClearField("timestamp")


def without_nonce(parts: ProposalParts) -> None:
    parts.signature_header.nonce = b""


def created_by(creator: bytes) -> Change:
    """Have another creator, with the id that follows from that."""

    def change(parts: ProposalParts) -> None:
        parts.signature_header.creator = creator
        parts.channel_header.tx_id = transaction_id(parts.signature_header.nonce, creator)

    return change


def without_input(parts: ProposalParts) -> None:
    parts.invocation.chaincode_spec.ClearField("input")


def without_id(parts: ProposalParts) -> None:
    parts.invocation.chaincode_spec.ClearField("chaincode_id")


def without_name(parts: ProposalParts) -> None:
    parts.invocation.chaincode_spec.chaincode_id.name = ""


def named_elsewhere(parts: ProposalParts) -> None:
    """Call the same chaincode, whatever the header names: the gateway plans by the one, the peer calls the other."""
    parts.extension.chaincode_id.name = "nowhere"


def as_init(parts: ProposalParts) -> None:
    parts.invocation.chaincode_spec.input.is_init = True
