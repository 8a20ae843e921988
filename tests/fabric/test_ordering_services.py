"""What orderers answer to those who send envelopes, and what a gateway makes of it.

Measured on orderers of 3.1.5; sources: orderer/common/broadcast/broadcast.go,
orderer/common/multichannel/registrar.go, orderer/common/msgprocessor/*.go, internal/pkg/gateway/submit.go.
"""

import asyncio
from typing import Any, Final

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2_grpc

from tests.support.expiring_identity import expiring_identity, whole_second
from tests.support.live_network import CHANNEL, SERVICE, LiveNetwork
from tests.support.service_request import (
    ENDORSER_TRANSACTION,
    GARBAGE,
    NO_TEXT,
    UNREADABLE,
    EnvelopeParts,
    Refused,
    answers_of,
    called,
    signed_envelope,
    words_of,
)

CONFIG, ORDERER_TRANSACTION = 1, 4
MAX_BYTES: Final = 10 * 1024 * 1024
UNDETERMINED: Final = "could not determine channel ID: "
NO_WRITER: Final = (
    "implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the 'Writers' "
    "sub-policies to be satisfied: permission denied"
)


def replaced(**layers: Any) -> Any:
    def change(parts: EnvelopeParts) -> None:
        for name, content in layers.items():
            setattr(parts, name, content)

    return change


def created_by_nobody(parts: EnvelopeParts) -> None:
    parts.signature_header.creator = b"nobody"


REFUSED: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "no header": ({"change": replaced(header=None)}, "BAD_REQUEST", f"{UNDETERMINED}header not set"),
    "an empty channel header": (
        {"change": replaced(channel_header=b"")},
        "BAD_REQUEST",
        f"{UNDETERMINED}channel header not set",
    ),
    "no channel header": (
        {"change": replaced(channel_header=GARBAGE)},
        "BAD_REQUEST",
        f"{UNDETERMINED}error unmarshalling channel header: error unmarshalling ChannelHeader: {UNREADABLE}",
    ),
    "a channel that is no text": (
        {"change": replaced(channel_header=b"\x22\x01\xff")},
        "BAD_REQUEST",
        f"{UNDETERMINED}error unmarshalling channel header: error unmarshalling ChannelHeader: {NO_TEXT}",
    ),
    "no signature header": (
        {"change": replaced(signature_header=GARBAGE)},
        "BAD_REQUEST",
        f"could not convert message to signedData: GetSignatureHeaderFromBytes failed, err {UNREADABLE}",
    ),
    "without channel": ({"channel": ""}, "BAD_REQUEST", "channel does not exist"),
    "of a channel that nobody has": ({"channel": "elsewhere"}, "BAD_REQUEST", "channel does not exist"),
    "a configuration": ({"kind": CONFIG}, "BAD_REQUEST", "message is of type that cannot be processed directly"),
    "of a type of old": (
        {"kind": ORDERER_TRANSACTION},
        "BAD_REQUEST",
        "message is of type that is no longer supported",
    ),
    "without signature header": ({"change": replaced(signature_header=b"")}, "FORBIDDEN", NO_WRITER),
    "signed with nothing": ({"signature": b"none"}, "FORBIDDEN", NO_WRITER),
    "unsigned": ({"signature": b""}, "FORBIDDEN", NO_WRITER),
    "of nobody": ({"change": created_by_nobody}, "FORBIDDEN", NO_WRITER),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_envelope_is_refused_with_the_same_status_and_words(network: LiveNetwork, case: str) -> None:
    fields, status, words = REFUSED[case]
    envelope = signed_envelope(
        network.identity(SERVICE, "agent"), b"content", **{"kind": ENDORSER_TRANSACTION, **fields}
    )

    broadcast, submitted = network.run(lambda: refusals(network, envelope))

    assert broadcast == [(status, words), "OK"]
    if envelope.signature:
        assert submitted == Refused(
            "ABORTED", f"received unsuccessful response from orderer: status={status}, info={words}"
        )
    else:
        assert submitted == Refused("INVALID_ARGUMENT", "prepared transaction must be signed")


@pytest.mark.parametrize(
    "envelope", [common_pb2.Envelope(), common_pb2.Envelope(signature=b"s")], ids=["nothing", "a signature alone"]
)
def test_an_envelope_without_payload_has_no_header(network: LiveNetwork, envelope: Any) -> None:
    broadcast, _ = network.run(lambda: refusals(network, envelope))

    assert broadcast == [("BAD_REQUEST", f"{UNDETERMINED}header not set"), "OK"]


def test_a_payload_that_is_none_is_refused(network: LiveNetwork) -> None:
    broadcast, _ = network.run(lambda: refusals(network, common_pb2.Envelope(payload=GARBAGE, signature=b"s")))

    assert broadcast == [("BAD_REQUEST", f"{UNDETERMINED}error unmarshalling Payload: {UNREADABLE}"), "OK"]


def test_readers_do_not_write(network: LiveNetwork) -> None:
    envelope = signed_envelope(network.identity("AuditorMSP", "auditor"), b"content", kind=ENDORSER_TRANSACTION)

    broadcast, submitted = network.run(lambda: refusals(network, envelope))

    assert broadcast == [("FORBIDDEN", NO_WRITER), "OK"]
    assert isinstance(submitted, Refused)


def test_an_expired_writer_is_refused(network: LiveNetwork) -> None:
    over = expiring_identity(network.created, SERVICE, whole_second(-2))

    broadcast, _ = network.run(lambda: refusals(network, signed_envelope(over, b"content", kind=ENDORSER_TRANSACTION)))

    assert broadcast == [("BAD_REQUEST", "broadcast client identity expired"), "OK"]


def test_size_is_looked_at_before_who_wrote(network: LiveNetwork) -> None:
    envelope = signed_envelope(
        network.identity(SERVICE, "agent"), bytes(MAX_BYTES), kind=ENDORSER_TRANSACTION, signature=b"none"
    )
    size = len(envelope.payload) + len(envelope.signature)

    broadcast, submitted = network.run(lambda: refusals(network, envelope))

    words = f"message payload is {size} bytes and exceeds maximum allowed {MAX_BYTES} bytes"
    assert broadcast == [("BAD_REQUEST", words), "OK"]
    assert submitted == Refused(
        "ABORTED", f"received unsuccessful response from orderer: status=BAD_REQUEST, info={words}"
    )


def test_the_first_refusal_ends_the_stream(network: LiveNetwork) -> None:
    identity = network.identity(SERVICE, "agent")
    envelopes = [signed_envelope(identity, b"content", kind=kind) for kind in (CONFIG, ORDERER_TRANSACTION)]

    async def story() -> list[Any]:
        async with network.channel("OrdererMSP") as channel:
            call = ab_pb2_grpc.AtomicBroadcastStub(channel.grpc).Broadcast()
            try:
                await call.write(envelopes[0])
                first = await call.read()
                return [first.info, await call.read() is grpc.aio.EOF]
            finally:
                call.cancel()

    assert network.run(story) == ["message is of type that cannot be processed directly", True]


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        (
            gateway_pb2.SubmitRequest(channel_id=CHANNEL),
            Refused("INVALID_ARGUMENT", "a prepared transaction is required"),
        ),
        (
            gateway_pb2.SubmitRequest(channel_id=CHANNEL, prepared_transaction=common_pb2.Envelope(payload=b"p")),
            Refused("INVALID_ARGUMENT", "prepared transaction must be signed"),
        ),
        *[
            (
                gateway_pb2.SubmitRequest(channel_id=name, prepared_transaction=common_pb2.Envelope(signature=b"s")),
                Refused(
                    "FAILED_PRECONDITION",
                    f"failed to get config for channel [{name}]: could not get last config for channel {name}",
                ),
            )
            for name in ("", "elsewhere")
        ],
    ],
    ids=["nothing", "unsigned", "without channel", "of another channel"],
)
def test_a_gateway_submits_no_further_than_it_can(network: LiveNetwork, request_: Any, refused: Refused) -> None:
    async def story() -> Any:
        async with network.channel(SERVICE) as channel:
            return await called(network, gateway_pb2_grpc.GatewayStub(channel.grpc).Submit(request_, timeout=30))

    assert network.run(story) == refused


async def refusals(network: LiveNetwork, envelope: Any) -> tuple[list[Any], Any]:
    """Give an orderer's answers to an envelope with how its stream ends, and a gateway's."""
    async with network.channel("OrdererMSP") as orderer, network.channel(SERVICE) as peer:
        call = ab_pb2_grpc.AtomicBroadcastStub(orderer.grpc).Broadcast()
        try:
            async with asyncio.timeout(30):
                answers: list[Any] = [
                    (common_pb2.Status.Name(answer.status), words_of(network, answer.info))
                    async for answer in answers_of(call, envelope)
                ]
                answers.append((await call.code()).name)
        finally:
            call.cancel()
        request = gateway_pb2.SubmitRequest(channel_id=CHANNEL, prepared_transaction=envelope)
        return answers, await called(network, gateway_pb2_grpc.GatewayStub(peer.grpc).Submit(request, timeout=30))
