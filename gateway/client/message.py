"""What a client checks before it signs: the prepared transaction against its proposal.

Sources: `protoutil/txutils.go`, `core/common/validation/msgvalidation.go`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from network.protocol.errors import DecodeError
from network.protocol.identity import decode_serialized_identity
from network.protocol.proposal import Proposal
from network.protocol.wire import parse

SEEK_INFO: Final = 5
_KEYS_REMEMBERED: Final = 64


class Prepared(NamedTuple):
    """A prepared transaction that is what was asked for."""

    payload: bytes
    result: bytes
    endorsers: tuple[str, ...]


def channel_header(kind: int, channel_name: str, nanoseconds: int) -> common_pb2.ChannelHeader:
    """Start a channel header of what is no proposal."""
    header = common_pb2.ChannelHeader(type=kind, channel_id=channel_name)
    header.timestamp.seconds, header.timestamp.nanos = divmod(nanoseconds, 1_000_000_000)
    return header


def check_prepared(content: bytes, proposal: Proposal, organizations: Sequence[str]) -> Prepared:
    """Read the payload of a prepared transaction, after checking that signing it signs what was proposed.

    Checked: both headers, the payload without transient data, the hash of the proposal and the chaincode inside what
    the endorsers signed, and each endorser's signature under the certificate it gives; with `organizations`, that each
    endorser is of one of them. Not checked: that those certificates are valid on the channel (that needs its
    configuration; committing peers do it). Raises DecodeError.
    """
    payload = parse(common_pb2.Payload, content, "Payload")
    if payload.header.channel_header != proposal.channel_header:
        raise DecodeError("another channel header than proposed")
    if payload.header.signature_header != proposal.signature_header:
        raise DecodeError("another signature header than proposed")
    transaction = parse(transaction_pb2.Transaction, payload.data, "Transaction")
    if len(transaction.actions) != 1:
        raise DecodeError(f"{len(transaction.actions)} actions instead of one")
    if transaction.actions[0].header != proposal.signature_header:
        raise DecodeError("another action header than proposed")
    action = parse(transaction_pb2.ChaincodeActionPayload, transaction.actions[0].payload, "ChaincodeActionPayload")
    if action.chaincode_proposal_payload != proposal.payload:
        raise DecodeError("another proposal payload than proposed")
    endorsed = action.action.proposal_response_payload
    response = parse(proposal_response_pb2.ProposalResponsePayload, endorsed, "ProposalResponsePayload")
    if response.proposal_hash != proposal.hash:
        raise DecodeError("endorsements of another proposal")
    outcome = parse(proposal_pb2.ChaincodeAction, response.extension, "ChaincodeAction")
    if outcome.chaincode_id.name != proposal.chaincode:
        raise DecodeError("endorsements of another chaincode")
    endorsers = tuple(_check_endorsement(e.endorser, e.signature, endorsed) for e in action.action.endorsements)
    if not endorsers:
        raise DecodeError("no endorsement")
    if organizations and not set(endorsers) <= set(organizations):
        raise DecodeError("an endorsement of an organisation that was not named")
    return Prepared(content, outcome.response.payload, endorsers)


def _check_endorsement(endorser: bytes, signature: bytes, endorsed: bytes) -> str:
    identity = decode_serialized_identity(endorser)
    try:
        _endorser_key(identity.id_bytes).verify(signature, endorsed + endorser, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        raise DecodeError("an endorsement that its endorser did not sign") from None
    return identity.msp_id


@lru_cache(_KEYS_REMEMBERED)
def _endorser_key(certificate: bytes) -> ec.EllipticCurvePublicKey:
    """Read the key of a certificate in PEM; raises ValueError, UnsupportedAlgorithm, InvalidVersion, DecodeError."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DecodeError("an endorser's key is not an ECDSA key")
    return key
