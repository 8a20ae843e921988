"""Requests to the services of nodes, right and wrong ones, and what came of them in words that all networks share."""

import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]  # ships no types

from gateway.client.identity import SigningIdentity
from network.protocol.proposal import transaction_id
from tests.support.live_network import CHANNEL, PROBE, LiveNetwork

GARBAGE: Final = b"\xff"
UNREADABLE: Final = "proto: cannot parse invalid wire-format data"
NO_TEXT: Final = "string field contains invalid UTF-8"
ENDORSER_TRANSACTION, SEEK_INFO = 3, 5
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_ID: Final = re.compile(r"[0-9a-f]{64,}")


# --- proposals


@dataclass
class ProposalParts:
    """The layers of a proposal; a change replaces or alters any of them, bytes in place of a message included."""

    channel_header: Any
    signature_header: Any
    extension: Any
    invocation: Any
    transient: dict[str, bytes]
    header: Any = None
    payload: Any = None
    content: Any = None


Change = Callable[[ProposalParts], None]


@dataclass(frozen=True)
class ProposalSpec:
    """What a proposal is of; `change` alters its layers, `signature` or `signer` replace the creator's own."""

    channel: str = CHANNEL
    chaincode: str = PROBE
    arguments: tuple[bytes, ...] = (b"get", b"k")
    transient: Mapping[str, bytes] = field(default_factory=dict)
    nanoseconds: int | None = None
    change: Change = lambda _: None
    signature: bytes | None = None
    signer: SigningIdentity | None = None


def signed_proposal(identity: SigningIdentity, spec: ProposalSpec = ProposalSpec()) -> Any:  # frozen
    """Give a SignedProposal."""
    nonce = secrets.token_bytes(24)
    named = chaincode_pb2.ChaincodeID(name=spec.chaincode)
    parts = ProposalParts(
        common_pb2.ChannelHeader(
            type=ENDORSER_TRANSACTION, channel_id=spec.channel, tx_id=transaction_id(nonce, identity.creator)
        ),
        common_pb2.SignatureHeader(creator=identity.creator, nonce=nonce),
        proposal_pb2.ChaincodeHeaderExtension(chaincode_id=named),
        chaincode_pb2.ChaincodeInvocationSpec(
            chaincode_spec=chaincode_pb2.ChaincodeSpec(
                chaincode_id=named, input=chaincode_pb2.ChaincodeInput(args=spec.arguments)
            )
        ),
        dict(spec.transient),
    )
    _stamp(parts.channel_header, spec.nanoseconds)
    spec.change(parts)
    if not isinstance(parts.channel_header, bytes):
        parts.channel_header.extension = _bytes(parts.extension)
    payload = parts.payload or proposal_pb2.ChaincodeProposalPayload(
        input=_bytes(parts.invocation), TransientMap=parts.transient
    )
    header = parts.header or common_pb2.Header(
        channel_header=_bytes(parts.channel_header), signature_header=_bytes(parts.signature_header)
    )
    content = parts.content
    if content is None:
        content = proposal_pb2.Proposal(header=_bytes(header), payload=_bytes(payload))
    content = _bytes(content)
    signature = (spec.signer or identity).sign(content) if spec.signature is None else spec.signature
    return proposal_pb2.SignedProposal(proposal_bytes=content, signature=signature)


# --- envelopes and seeks


@dataclass
class EnvelopeParts:
    """The layers of an envelope; `header` None: it has none."""

    channel_header: Any
    signature_header: Any
    data: Any
    header: Any = b""


def signed_envelope(
    identity: SigningIdentity,
    data: Any = b"",
    *,
    kind: int = SEEK_INFO,
    channel: str = CHANNEL,
    nanoseconds: int | None = None,
    change: Callable[[EnvelopeParts], None] = lambda _: None,
    signature: bytes | None = None,
    signer: SigningIdentity | None = None,
) -> Any:
    """Give a signed Envelope."""
    parts = EnvelopeParts(
        common_pb2.ChannelHeader(type=kind, channel_id=channel),
        common_pb2.SignatureHeader(creator=identity.creator, nonce=secrets.token_bytes(24)),
        data,
    )
    _stamp(parts.channel_header, nanoseconds)
    change(parts)
    message = common_pb2.Payload(data=_bytes(parts.data))
    if parts.header is not None:
        message.header.channel_header = _bytes(parts.channel_header)
        message.header.signature_header = _bytes(parts.signature_header)
    payload = message.SerializeToString()
    if signature is None:
        signature = (signer or identity).sign(payload)
    return common_pb2.Envelope(payload=payload, signature=signature)


Place = int | str | None


def seek(start: Place, stop: Place, **fields: int) -> Any:
    """Give a SeekInfo; places are numbers, "oldest", "newest", "next_commit", "unset", or None for no field at all."""
    return ab_pb2.SeekInfo(start=position(start), stop=position(stop), **fields)


def position(place: Place) -> Any:
    """Give a SeekPosition."""
    if place is None:
        return None
    if isinstance(place, int):
        return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=place))
    kinds: dict[str, Any] = {
        "oldest": {"oldest": ab_pb2.SeekOldest()},
        "newest": {"newest": ab_pb2.SeekNewest()},
        "next_commit": {"next_commit": ab_pb2.SeekNextCommit()},
        "unset": {},
    }
    return ab_pb2.SeekPosition(**kinds[place])


def _stamp(header: Any, nanoseconds: int | None) -> None:
    moment = time.time_ns() if nanoseconds is None else nanoseconds
    header.timestamp.seconds, header.timestamp.nanos = divmod(moment, 1_000_000_000)


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


# --- what came of it


class Detail(NamedTuple):
    """What one node said, by its name."""

    node: str
    words: str


class Refused(NamedTuple):
    """A call that failed: code, words, and what the nodes said, the first of them first and the others sorted."""

    code: str
    words: str
    details: tuple[Detail, ...] = ()


def words_of(network: LiveNetwork, text: str) -> str:
    """Give a text without what differs from network to network: addresses, times, ids, Go's two kinds of spaces."""
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    for address, (node, _) in _nodes(network).items():
        text = text.replace(address, node)
    return _ID.sub("<id>", _TIME.sub("<time>", text))


async def called(network: LiveNetwork, call: Awaitable[Any]) -> Any:
    """Give the answer of a call, or how it was refused."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return refusal(network, error)


def refusal(network: LiveNetwork, error: grpc.aio.AioRpcError) -> Refused:
    """Read a failed call; what is in the details has to say the same as the status."""
    details: list[Detail] = []
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        status = status_pb2.Status.FromString(value)
        assert (status.code, status.message) == (error.code().value[0], error.details())
        details += _details(network, status.details)
    return Refused(
        error.code().name, words_of(network, error.details() or ""), tuple(details[:1] + sorted(details[1:]))
    )


def _details(network: LiveNetwork, packed: Iterable[Any]) -> Iterable[Detail]:
    for content in packed:
        detail = gateway_pb2.ErrorDetail()
        assert content.Unpack(detail)
        node, msp_id = _nodes(network)[detail.address]
        assert msp_id == detail.msp_id
        yield Detail(node, words_of(network, detail.message))


def _nodes(network: LiveNetwork) -> dict[str, tuple[str, str]]:
    """Give the name and the organisation of each node by its address."""
    return {
        network.created.address(node.name): (node.name, organization.msp_id)
        for organization in network.created.topology.all_organizations
        for node in organization.nodes
    }


async def answers_of(call: Any, *requests: Any) -> AsyncIterator[Any]:
    """Give what a stream answers to requests that are sent at once, to its end; a failure is raised."""
    for request in requests:
        await call.write(request)
    await call.done_writing()
    while (answer := await call.read()) is not grpc.aio.EOF:
        yield answer
