"""What holds for every service of a node: what is no request, what it does not have, how many requests it takes.

Measured on nodes of 3.1.5; sources: internal/peer/node/grpc_limiters.go, google.golang.org/grpc (server.go, health).
"""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc

from tests.support.live_network import BILLING, CHANNEL, CUSTOMER, SERVICE, LiveNetwork, NetworkName, on
from tests.support.service_request import GARBAGE, NO_TEXT, UNREADABLE, Refused, called, refusal

PEER, ORDERER = SERVICE, "OrdererMSP"
TEXT_OF_GARBAGE = b"\x0a\x01\xff"
CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
GATEWAY_REQUESTS = 500


@pytest.mark.parametrize(
    ("method", "content", "words"),
    [
        ("/protos.Endorser/ProcessProposal", GARBAGE, UNREADABLE),
        ("/gateway.Gateway/Evaluate", GARBAGE, UNREADABLE),
        ("/gateway.Gateway/Evaluate", TEXT_OF_GARBAGE, NO_TEXT),
        ("/gateway.Gateway/Endorse", GARBAGE, UNREADABLE),
        ("/gateway.Gateway/Submit", GARBAGE, UNREADABLE),
        ("/gateway.Gateway/CommitStatus", GARBAGE, UNREADABLE),
    ],
)
def test_what_is_no_request_is_said_so(network: LiveNetwork, method: str, content: bytes, words: str) -> None:
    async def story() -> Any:
        async with network.channel(PEER) as channel:
            return await called(network, channel.grpc.unary_unary(method)(content, timeout=30))

    assert network.run(story) == Refused("INTERNAL", f"grpc: error unmarshalling request: {words}")


@pytest.mark.parametrize(
    ("msp_id", "method"),
    [
        (PEER, "/gateway.Gateway/ChaincodeEvents"),
        (PEER, "/protos.Deliver/Deliver"),
        (PEER, "/protos.Deliver/DeliverFiltered"),
        (PEER, "/protos.Deliver/DeliverWithPrivateData"),
        (ORDERER, "/orderer.AtomicBroadcast/Broadcast"),
        (ORDERER, "/orderer.AtomicBroadcast/Deliver"),
    ],
)
def test_what_is_no_message_of_a_stream_is_said_so(network: LiveNetwork, msp_id: str, method: str) -> None:
    found = network.run(lambda: first_of_stream(network, msp_id, method, GARBAGE))

    assert found == Refused("INTERNAL", f"grpc: failed to unmarshal the received message: {UNREADABLE}")


@pytest.mark.parametrize(
    ("msp_id", "method", "words"),
    [
        (PEER, "/protos.Endorser/Nothing", "unknown method Nothing for service protos.Endorser"),
        (PEER, "/protos.ChaincodeSupport/Register", "unknown service protos.ChaincodeSupport"),
        (PEER, "/orderer.AtomicBroadcast/Broadcast", "unknown service orderer.AtomicBroadcast"),
        (PEER, CHECK, "unknown service grpc.health.v1.Health"),
        (ORDERER, "/orderer.AtomicBroadcast/Nothing", "unknown method Nothing for service orderer.AtomicBroadcast"),
        (ORDERER, "/gateway.Gateway/Submit", "unknown service gateway.Gateway"),
    ],
)
def test_what_a_node_does_not_have_is_unimplemented(network: LiveNetwork, msp_id: str, method: str, words: str) -> None:
    assert network.run(lambda: refused_call(network, msp_id, method)) == Refused("UNIMPLEMENTED", words)


@on(NetworkName.EMBEDDED)
@pytest.mark.parametrize(
    ("msp_id", "method"),
    [
        (PEER, "/discovery.Discovery/Discover"),
        (PEER, "/protos.Snapshot/Generate"),
        (ORDERER, "/orderer.Cluster/Step"),
        (ORDERER, "/orderer.ClusterNodeService/Step"),
    ],
)
def test_what_the_embedded_network_leaves_out_is_unimplemented(network: LiveNetwork, msp_id: str, method: str) -> None:
    found = network.run(lambda: refused_call(network, msp_id, method))

    assert found.code == "UNIMPLEMENTED"


def test_an_orderer_tells_its_health(network: LiveNetwork) -> None:
    async def story() -> list[Any]:
        async with network.channel(ORDERER) as channel:
            check = channel.grpc.unary_unary(CHECK)
            watch = channel.grpc.unary_stream("/grpc.health.v1.Health/Watch")
            watching = [watch(content) for content in (b"", b"\x0a\x04none")]
            try:
                return [
                    await called(network, check(content, timeout=30)) for content in (b"", b"\x0a\x04none", GARBAGE)
                ] + [await call.read() for call in watching]
            finally:
                for call in watching:
                    call.cancel()

    assert network.run(story) == [
        SERVING,
        Refused("NOT_FOUND", "unknown service"),
        Refused("INTERNAL", f"grpc: error unmarshalling request: {UNREADABLE}"),
        SERVING,
        b"\x08\x03",
    ]


# --- commit status


def test_a_commit_status_is_waited_for_until_the_client_gives_up(network: LiveNetwork) -> None:
    async def story() -> tuple[bool, Any]:
        async with network.channel(PEER) as channel:
            call = gateway_pb2_grpc.GatewayStub(channel.grpc).CommitStatus(status_request(network), timeout=30)
            answered = asyncio.create_task(settled(network, call))
            await asyncio.wait({answered}, timeout=0.5)
            waited = not call.done()
            call.cancel()
            return waited, await answered

    assert network.run(story) == (True, None)


NO_READER = (
    "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
    "[/Channel/Application/Readers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
    "policy requires 1 of the 'Readers' sub-policies to be satisfied]"
)


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"identity": b""}, Refused("INVALID_ARGUMENT", "no identity provided")),
        ({"channel_id": ""}, Refused("INVALID_ARGUMENT", "no channel ID provided")),
        ({"transaction_id": ""}, Refused("INVALID_ARGUMENT", "transaction ID should not be empty")),
        (
            {"channel_id": "elsewhere"},
            Refused("PERMISSION_DENIED", "Failed to get policy manager for channel [elsewhere]"),
        ),
        ({"identity": b"nobody"}, Refused("PERMISSION_DENIED", NO_READER)),
        ({"signature": b"none"}, Refused("PERMISSION_DENIED", NO_READER)),
        ({"request": b""}, Refused("INVALID_ARGUMENT", "a commit status request is required")),
        ({"request": GARBAGE}, Refused("INVALID_ARGUMENT", f"invalid status request: {UNREADABLE}")),
    ],
    ids=["no identity", "no channel", "no id", "another channel", "nobody", "badly signed", "nothing", "garbage"],
)
def test_a_commit_status_is_refused_in_the_same_words(network: LiveNetwork, fields: Any, refused: Refused) -> None:
    async def story() -> Any:
        async with network.channel(PEER) as channel:
            call = gateway_pb2_grpc.GatewayStub(channel.grpc).CommitStatus(
                status_request(network, **fields), timeout=30
            )
            return await called(network, call)

    assert network.run(story) == refused


def status_request(network: LiveNetwork, **fields: Any) -> Any:
    identity = network.identity(SERVICE, "agent")
    signature, content = fields.pop("signature", None), fields.pop("request", None)
    if content is None:
        content = gateway_pb2.CommitStatusRequest(
            **{"channel_id": CHANNEL, "transaction_id": "0" * 64, "identity": identity.creator, **fields}
        ).SerializeToString()
    return gateway_pb2.SignedCommitStatusRequest(
        request=content, signature=identity.sign(content) if signature is None else signature
    )


# --- how many at once


def test_a_gateway_takes_five_hundred_requests_at_once_and_refuses_the_next(network: LiveNetwork) -> None:
    async def story() -> tuple[Any, Any, Any]:
        async with network.channel(CUSTOMER) as channel, network.channel(BILLING) as elsewhere:
            stub = gateway_pb2_grpc.GatewayStub(channel.grpc)
            waiting = [stub.CommitStatus(status_request(network), timeout=120) for _ in range(GATEWAY_REQUESTS + 1)]
            answered = [asyncio.create_task(settled(network, call)) for call in waiting]
            try:
                done, _ = await asyncio.wait(answered, timeout=60, return_when=asyncio.FIRST_COMPLETED)
                (refused,) = [task.result() for task in done]
                other = await called(
                    network, gateway_pb2_grpc.GatewayStub(elsewhere.grpc).CommitStatus(refuses_at_once())
                )
            finally:
                for call in waiting:
                    call.cancel()
                await asyncio.gather(*answered)
            async with asyncio.timeout(60):
                while (later := await called(network, stub.CommitStatus(refuses_at_once()))).code == "UNKNOWN":
                    pass
            return refused, other, later

    refused, other, later = network.run(story)
    assert refused == Refused("UNKNOWN", "too many requests for /gateway.Gateway, exceeding concurrency limit (500)")
    assert other == later == Refused("INVALID_ARGUMENT", "a commit status request is required")


def refuses_at_once() -> Any:
    return gateway_pb2.SignedCommitStatusRequest()


async def settled(network: LiveNetwork, call: Any) -> Any:
    with suppress(asyncio.CancelledError):
        return await called(network, call)
    return None


async def refused_call(network: LiveNetwork, msp_id: str, method: str) -> Any:
    """Call a method in one piece, since its end may come before anything is sent; give how it was refused."""
    async with network.channel(msp_id) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.grpc.unary_unary(method)(b"", timeout=30)
        return refusal(network, caught.value)


async def first_of_stream(network: LiveNetwork, msp_id: str, method: str, content: bytes) -> Any:
    """Send one message of any bytes; give the answer's bytes, or how it was refused."""
    async with network.channel(msp_id) as channel:
        call = channel.grpc.stream_stream(method)()
        try:
            async with asyncio.timeout(30):
                await call.write(content)
                await call.done_writing()
                return await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            error = grpc.aio.AioRpcError(
                await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )
            return refusal(network, error)
        finally:
            call.cancel()
