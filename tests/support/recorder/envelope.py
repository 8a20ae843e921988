"""Endorsed transactions taken apart and put together again otherwise, as no honest client or endorser does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Self

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from gateway.client.identity import SigningIdentity
from network.protocol.proposal import encode_envelope


@dataclass
class Parts:
    """The layers of a transaction; bytes may take the place of a message.

    `rehash`: the hash of the proposal is made anew. `colluders`: who endorses anew what stands here, in place of the
    endorsements that are here. `tail` comes after the payload's fields.
    """

    channel_header: Any
    signature_header: Any
    action_header: bytes
    invocation: bytes
    response: Any
    action: Any
    endorsements: list[Any]
    rehash: bool = False
    colluders: Sequence[SigningIdentity] = ()
    actions: int = 1
    data: bytes | None = None
    tail: bytes = b""
    signer: SigningIdentity | None = field(default=None, repr=False)

    @classmethod
    def of(cls, envelope: bytes) -> Self:
        """Take an envelope apart."""
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
        content = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(content.action.proposal_response_payload)
        return cls(
            common_pb2.ChannelHeader.FromString(payload.header.channel_header),
            common_pb2.SignatureHeader.FromString(payload.header.signature_header),
            action.header,
            content.chaincode_proposal_payload,
            response,
            proposal_pb2.ChaincodeAction.FromString(response.extension),
            list(content.action.endorsements),
        )

    def envelope(self, signer: SigningIdentity) -> bytes:
        """Put it together, signed."""
        channel_header = _bytes(self.channel_header)
        if not isinstance(self.response, bytes):
            self.response.extension = _bytes(self.action)
            if self.rehash:
                hashed = channel_header + self.action_header + self.invocation
                self.response.proposal_hash = sha256(hashed).digest()
        content = _bytes(self.response)
        endorsements = [
            proposal_response_pb2.Endorsement(endorser=it.creator, signature=it.sign(content + it.creator))
            for it in self.colluders
        ] or self.endorsements
        endorsed = transaction_pb2.ChaincodeActionPayload(
            chaincode_proposal_payload=self.invocation,
            action=transaction_pb2.ChaincodeEndorsedAction(
                proposal_response_payload=content, endorsements=endorsements
            ),
        )
        action = transaction_pb2.TransactionAction(header=self.action_header, payload=_bytes(endorsed))
        data = self.data
        if data is None:
            data = _bytes(transaction_pb2.Transaction(actions=[action] * self.actions))
        header = common_pb2.Header(channel_header=channel_header, signature_header=_bytes(self.signature_header))
        payload = _bytes(common_pb2.Payload(header=header, data=data)) + self.tail
        return encode_envelope(payload, (self.signer or signer).sign(payload))


Change = Callable[[Parts], None]


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())
