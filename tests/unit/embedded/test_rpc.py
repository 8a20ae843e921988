"""The edge of every service: what is no message, too many requests at once, and defects of our own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import events_pb2

from network.embedded.services.rpc import ErrorDetail, RpcError, Slots, UnknownServices, service_handler

GATEWAY = gateway_pb2.DESCRIPTOR.services_by_name["Gateway"]
DELIVER = events_pb2.DESCRIPTOR.services_by_name["Deliver"]
CANARY = "the value of a key"


class Service:
    """Of the Gateway service two methods, of Deliver one; what they do a test says."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def Submit(self, request: Any) -> Any:  # noqa: N802
        del request
        self.running.release()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return gateway_pb2.SubmitResponse()

    async def ChaincodeEvents(self, request: Any) -> AsyncIterator[Any]:  # noqa: N802
        del request
        yield gateway_pb2.ChaincodeEventsResponse(block_number=1)
        await self.Submit(None)

    async def Deliver(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:  # noqa: N802
        async for _ in requests:
            yield events_pb2.DeliverResponse(status=200)


async def serving(story: Any, limit: int | None = None) -> None:
    service = Service()
    server = grpc.aio.server(
        handlers=(
            service_handler(GATEWAY, service, limit),
            service_handler(DELIVER, service),
            UnknownServices((GATEWAY, DELIVER)),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            async with asyncio.timeout(20):
                await story(service, channel)
    finally:
        await server.stop(None)


async def failure(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


def test_requests_and_streams_share_the_places_of_a_service() -> None:
    async def story(service: Service, channel: Any) -> None:
        submit = channel.unary_unary("/gateway.Gateway/Submit")
        stream = channel.unary_stream("/gateway.Gateway/ChaincodeEvents")(b"")
        assert await stream.read() == b"\x10\x01"
        held = asyncio.ensure_future(submit(b""))
        for _ in ("the stream", "the request"):
            await service.running.acquire()

        refused = ("UNKNOWN", "too many requests for /gateway.Gateway, exceeding concurrency limit (2)")
        assert await failure(submit(b"")) == refused
        assert await failure(channel.unary_stream("/gateway.Gateway/ChaincodeEvents")(b"").read()) == refused

        stream.cancel()
        service.go_on.set()
        await held
        assert await submit(b"") == b""

    asyncio.run(serving(story, 2))


def test_a_request_that_fails_gives_its_place_back() -> None:
    slots = Slots("gateway.Gateway", 1)

    for _ in range(3):
        with pytest.raises(ValueError, match="mine"), slots.taken():
            raise ValueError("mine")
    with slots.taken(), pytest.raises(RpcError, match="limit"), slots.taken():
        pass


def test_what_is_no_message_is_an_error_of_its_own_kind() -> None:
    async def story(service: Service, channel: Any) -> None:
        del service
        stream = channel.stream_stream("/protos.Deliver/Deliver")()
        for content in (b"", b"\xff"):
            await stream.write(content)

        assert await stream.read() == b"\x08\xc8\x01"
        unreadable = "proto: cannot parse invalid wire-format data"
        assert await failure(stream.read()) == (
            "INTERNAL",
            f"grpc: failed to unmarshal the received message: {unreadable}",
        )
        assert await failure(channel.unary_unary("/gateway.Gateway/Submit")(b"\xff")) == (
            "INTERNAL",
            f"grpc: error unmarshalling request: {unreadable}",
        )

    asyncio.run(serving(story))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("/gateway.Gateway/Evaluate", "unknown method Evaluate for service gateway.Gateway"),
        ("/gateway.Gateway/Nothing", "unknown method Nothing for service gateway.Gateway"),
        ("/some.Thing/Nothing", "unknown service some.Thing"),
    ],
)
def test_what_is_not_there_is_unimplemented(method: str, words: str) -> None:
    async def story(service: Service, channel: Any) -> None:
        del service
        assert await failure(channel.unary_unary(method)(b"")) == ("UNIMPLEMENTED", words)

    asyncio.run(serving(story))


def test_a_defect_ends_one_call_and_tells_nobody_a_value(caplog: pytest.LogCaptureFixture) -> None:
    async def story(service: Service, channel: Any) -> None:
        service.error = KeyError(CANARY)
        service.go_on.set()
        code, words = await failure(channel.unary_unary("/gateway.Gateway/Submit")(b""))
        assert (code, CANARY in words) == ("INTERNAL", False)
        service.error = None
        assert await channel.unary_unary("/gateway.Gateway/Submit")(b"") == b""

    with caplog.at_level(logging.ERROR, "network.embedded"):
        asyncio.run(serving(story))

    (record,) = caplog.records
    assert "request_failed method=gateway.Gateway.Submit error=KeyError place=Service.Submit:" in record.getMessage()
    assert CANARY not in caplog.text


def test_what_each_node_said_travels_in_the_details() -> None:
    async def story(service: Service, channel: Any) -> None:
        service.error = RpcError(grpc.StatusCode.ABORTED, "see details", [ErrorDetail("a:1", "OrgMSP", "no")])
        service.go_on.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/gateway.Gateway/Submit")(b"")
        trailing = dict(caught.value.trailing_metadata() or ())
        assert b"type.googleapis.com/gateway.ErrorDetail" in trailing["grpc-status-details-bin"]

    asyncio.run(serving(story))
