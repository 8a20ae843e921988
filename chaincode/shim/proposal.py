"""What a peer sends with a transaction: the arguments, and the signed proposal they came in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2
from google.protobuf.message import DecodeError

from chaincode.errors import ShimError

_NANOSECONDS = 1_000_000_000


class ProposalError(ShimError):
    """The peer handed on a proposal that cannot be read."""


@dataclass(frozen=True)
class Proposal:
    """A transaction as proposed; `creator` is a serialised identity, `timestamp` nanoseconds since 1970 (UTC)."""

    channel_id: str
    tx_id: str
    is_init: bool
    # Kept out of repr: what is printed by accident must not show what clients sent.
    arguments: tuple[bytes, ...] = field(repr=False)
    decorations: Mapping[str, bytes] = field(repr=False)
    creator: bytes = field(repr=False)
    transient: Mapping[str, bytes] = field(repr=False)
    timestamp: int
    binding: bytes = field(repr=False)
    signed_proposal: Any = field(repr=False)


def decode_proposal(message: Any) -> Proposal:  # noqa: ANN401  # a ChaincodeMessage, generated without types
    """Read a TRANSACTION or INIT; raises ProposalError."""
    try:
        given = chaincode_pb2.ChaincodeInput.FromString(message.payload)
        proposal = proposal_pb2.Proposal.FromString(message.proposal.proposal_bytes)
        header = common_pb2.Header.FromString(proposal.header)
        channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
        signature_header = common_pb2.SignatureHeader.FromString(header.signature_header)
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    except DecodeError as error:
        raise ProposalError("the proposal cannot be decoded") from error
    creator = bytes(signature_header.creator)
    epoch = channel_header.epoch.to_bytes(8, "little")
    return Proposal(
        channel_id=message.channel_id,
        tx_id=message.txid,
        is_init=given.is_init,
        arguments=tuple(given.args),
        decorations=dict(given.decorations),
        creator=creator,
        transient=dict(payload.TransientMap),
        timestamp=channel_header.timestamp.seconds * _NANOSECONDS + channel_header.timestamp.nanos,
        binding=hashlib.sha256(bytes(signature_header.nonce) + creator + epoch).digest(),
        signed_proposal=message.proposal,
    )
