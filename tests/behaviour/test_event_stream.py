"""The events of a chaincode as a client follows them: in order, each once, over every kind of interruption."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import chaincode_event_pb2

from gateway.client.errors import (
    EventCheckpointError,
    EventPosition,
    EventsForbiddenError,
    EventsStalledError,
    EventStreamError,
    EventsUnavailableError,
    EventsUnreadableError,
)
from gateway.client.events import Event
from gateway.client.gateway import Gateway
from tests.support.fake_fabric import FakeFabric, RefusalError, connected

CHAIN = {3: ("a", "b", "c"), 5: ("d",), 9: ("e", "f")}
"""Which transactions of which blocks set an event."""


def response(number: int, *tx_ids: str, chaincode: str = "service") -> Any:
    events = [
        chaincode_event_pb2.ChaincodeEvent(
            chaincode_id=chaincode, tx_id=tx_id, event_name="opened", payload=tx_id.encode()
        )
        for tx_id in tx_ids
    ]
    return gateway_pb2.ChaincodeEventsResponse(block_number=number, events=events)


async def chain(asked: Any) -> AsyncIterator[Any]:
    """Answer as a peer does, and be gone at the end of the chain."""
    for number, tx_ids in CHAIN.items():
        if number >= asked.start_position.specified.number:
            yield response(number, *tx_ids)


def test_events_come_in_order_with_where_to_go_on() -> None:
    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = chain

        got, error = await read(gateway, 0)

        assert [(event.block_number, event.tx_id, event.name, event.payload) for event in got] == [
            (number, tx_id, "opened", tx_id.encode()) for number, tx_ids in CHAIN.items() for tx_id in tx_ids
        ]
        assert isinstance(error, EventsUnavailableError)
        assert error.position == got[-1].position == EventPosition(9, "f")

    told(test)


@pytest.mark.parametrize("given", range(7))
def test_behind_each_event_exactly_those_that_follow_come(given: int) -> None:
    everything = [(number, tx_id) for number, tx_ids in CHAIN.items() for tx_id in tx_ids]

    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = chain
        start = EventPosition(*everything[given - 1]) if given else EventPosition(0)

        got, error = await read(gateway, start)

        assert [(event.block_number, event.tx_id) for event in got] == everything[given:]
        assert error.position == EventPosition(*everything[-1])
        # A real peer that is told the transaction would be silent for ever if it had set no event.
        assert fabric.requests("events")[0].after_transaction_id == ""

    told(test)


@pytest.mark.parametrize(
    "start", [EventPosition(4, "d"), EventPosition(5, "x"), EventPosition(3, "d"), EventPosition(9, "a")]
)
def test_a_checkpoint_that_names_no_event_is_an_error_and_never_silence(start: EventPosition) -> None:
    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = chain

        got, error = await read(gateway, start)

        assert got == []
        assert isinstance(error, EventCheckpointError)
        assert error.position == start

    told(test)


@pytest.mark.parametrize(
    ("code", "kind", "is_retryable"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, EventsForbiddenError, False),
        (grpc.StatusCode.ABORTED, EventsUnreadableError, False),
        (grpc.StatusCode.INVALID_ARGUMENT, EventStreamError, False),
        (grpc.StatusCode.UNAVAILABLE, EventsUnavailableError, True),
        (grpc.StatusCode.UNKNOWN, EventsUnavailableError, True),
    ],
)
def test_what_ends_a_stream_is_told_by_its_class(
    code: grpc.StatusCode, kind: type[EventStreamError], is_retryable: bool
) -> None:
    async def ended(asked: Any) -> AsyncIterator[Any]:
        yield response(asked.start_position.specified.number, "a")
        raise RefusalError(code, "the word of the peer")

    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = ended

        got, error = await read(gateway, 7)

        assert [event.tx_id for event in got] == ["a"]
        assert type(error) is kind
        assert (error.grpc_code, error.message, error.retryable) == (code.name, "the word of the peer", is_retryable)
        assert error.position == EventPosition(7, "a")
        assert "the word" not in str(error)

    told(test)


def test_a_silent_peer_is_noticed_and_the_stream_closed() -> None:
    async def silent(asked: Any) -> AsyncIterator[Any]:
        yield response(asked.start_position.specified.number, "a")
        await asyncio.Event().wait()

    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = silent

        got, error = await read(gateway, 2, idle_seconds=2)

        assert len(got) == 1
        assert isinstance(error, EventsStalledError)
        assert error.position == EventPosition(2, "a")
        async with asyncio.timeout(10):
            await fabric.cancelled.wait()

    told(test)


def test_leaving_the_loop_closes_the_stream() -> None:
    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        async def endless(asked: Any) -> AsyncIterator[Any]:
            async for found in chain(asked):
                yield found
            await asyncio.Event().wait()

        fabric.events = endless
        stream = gateway.network("ch").events("service").events(0)
        async for event in stream:
            assert event.tx_id == "a"
            break
        await stream.aclose()
        async with asyncio.timeout(10):
            await fabric.cancelled.wait()

    told(test)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([response(3, "a"), response(3, "b")], "came after the one before 4"),
        ([response(5, "a"), response(4, "b")], "came after the one before 6"),
        ([response(1, "a")], "came after the one before 2"),
        ([response(2, "a", chaincode="other")], "events of another chaincode"),
    ],
    ids=["a block twice", "an earlier block", "before the position", "another chaincode"],
)
def test_a_gateway_that_gives_what_was_not_asked_for_is_not_believed(answers: list[Any], words: str) -> None:
    async def lie(asked: Any) -> AsyncIterator[Any]:
        del asked
        for answer in answers:
            yield answer

    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = lie

        _, error = await read(gateway, 2)

        assert type(error) is EventStreamError
        assert words in str(error)

    told(test)


def test_the_request_is_signed_and_asks_for_a_block() -> None:
    async def test(fabric: FakeFabric, gateway: Gateway) -> None:
        fabric.events = chain

        await read(gateway, EventPosition(3, "a"))

        (asked,) = fabric.requests("events")
        assert (asked.channel_id, asked.chaincode_id) == ("ch", "service")
        assert asked.start_position.specified.number == 3
        assert asked.identity == gateway.identity.creator
        (signed,) = fabric.requests("signed events")
        key = gateway.identity.certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signed.signature, signed.request, ec.ECDSA(hashes.SHA256()))

    told(test)


def test_no_payload_is_in_the_repr_of_an_event() -> None:
    assert "secret" not in repr(Event(1, "tx", "opened", b"secret"))


async def read(
    gateway: Gateway, start: EventPosition | int, *, idle_seconds: float | None = None
) -> tuple[list[Event], EventStreamError]:
    """Give the events up to the error that ends them, and the error."""
    got: list[Event] = []
    try:
        async for event in gateway.network("ch").events("service").events(start, idle_seconds=idle_seconds):
            got.append(event)  # noqa: PERF401  # what came before the error is wanted
    except EventStreamError as error:
        return got, error
    raise AssertionError("the stream ended without an error")


def told(story: Callable[[FakeFabric, Gateway], Any]) -> None:
    async def whole() -> None:
        async with connected() as (fabric, gateway, _):
            await story(fabric, gateway)

    asyncio.run(whole())
