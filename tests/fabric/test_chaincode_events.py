"""Chaincode events of a gateway: who gets them, from where on, and what never comes.

Measured on peers of 3.1.5; sources: internal/pkg/gateway/chaincodeevents.go, internal/pkg/gateway/event/*.go.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc

from gateway.client.errors import EventCheckpointError, EventPosition, EventsForbiddenError, EventStreamError
from gateway.client.events import Event
from gateway.client.identity import SigningIdentity
from tests.support.live_network import BILLING, CHANNEL, PROBE, SERVICE, LiveNetwork
from tests.support.service_request import GARBAGE, UNREADABLE, Refused, position, refusal

NO_READER = (
    "Failed evaluating policy on signed data during check policy on channel [consortium] with policy "
    "[/Channel/Application/Readers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
    "policy requires 1 of the 'Readers' sub-policies to be satisfied]"
)


class Emitted(NamedTuple):
    """Transactions in the order of the ledger: an event, none, one that lost a race, two more events."""

    before: int
    first: tuple[str, int]
    silent: tuple[str, int]
    lost: tuple[str, int]
    second: tuple[str, int]
    third: tuple[str, int]


@pytest.fixture(scope="module")
def emitted(network: LiveNetwork) -> Emitted:
    return network.run(lambda: emit(network))


async def emit(network: LiveNetwork) -> Emitted:
    key = network.fresh("event")
    async with network.contract(SERVICE, chaincode=PROBE) as contract:
        before = await network.height(SERVICE)
        first = await contract.submit_transaction("emit", key, "first", "1")
        silent = await contract.submit_transaction("put", network.fresh("key"), "value")
        winner, loser = [await contract.endorse("emit", key, name, "2") for name in ("second", "lost")]
        placed = [await (await transaction.submit()).status() for transaction in (winner, loser)]
        assert [status.code for status in placed] == ["VALID", "MVCC_READ_CONFLICT"]
        third = await contract.submit_transaction("emit", network.fresh("event"), "third", "3")
        await network.wait_for_block(third.status.block_number)
    return Emitted(
        before,
        *[
            (status.tx_id, status.block_number)
            for status in (first.status, silent.status, placed[1], placed[0], third.status)
        ],
    )


# --- the stream as it is on the wire


@asynccontextmanager
async def streaming(network: LiveNetwork, identity: SigningIdentity | None = None, **fields: Any) -> AsyncIterator[Any]:
    """Open a stream; `signature` replaces the identity's own, `creator` what it says of itself."""
    identity = identity or network.identity(SERVICE, "agent")
    signature = fields.pop("signature", None)
    request = gateway_pb2.ChaincodeEventsRequest(
        **{"channel_id": CHANNEL, "chaincode_id": PROBE, "identity": fields.pop("creator", identity.creator), **fields}
    ).SerializeToString()
    signed = gateway_pb2.SignedChaincodeEventsRequest(
        request=request, signature=identity.sign(request) if signature is None else signature
    )
    async with network.channel(SERVICE) as channel:
        call = gateway_pb2_grpc.GatewayStub(channel.grpc).ChaincodeEvents(signed)
        try:
            yield call
        finally:
            call.cancel()


async def refused(network: LiveNetwork, call: Any) -> Refused:
    try:
        async with asyncio.timeout(30):
            answer = await call.read()
    except grpc.aio.AioRpcError as error:
        return refusal(network, error)
    raise AssertionError(answer)


async def names(call: Any, count: int) -> list[tuple[int, str]]:
    """Read events by their name, with their block."""
    found: list[tuple[int, str]] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            answer = await call.read()
            found += [(answer.block_number, event.event_name) for event in answer.events]
    return found


def test_events_come_by_block_of_valid_transactions_with_payload(network: LiveNetwork, emitted: Emitted) -> None:
    async def story() -> list[Any]:
        async with streaming(network, start_position=position(emitted.before)) as call:
            async with asyncio.timeout(30):
                return [await call.read() for _ in range(3)]

    answers = network.run(story)
    assert [answer.block_number for answer in answers] == [emitted.first[1], emitted.second[1], emitted.third[1]]
    events = [event for answer in answers for event in answer.events]
    assert [(it.chaincode_id, it.tx_id, it.event_name, it.payload) for it in events] == [
        (PROBE, emitted.first[0], "first", b"1"),
        (PROBE, emitted.second[0], "second", b"2"),
        (PROBE, emitted.third[0], "third", b"3"),
    ]


def test_behind_a_transaction_with_an_event_the_next_ones_come(network: LiveNetwork, emitted: Emitted) -> None:
    async def story() -> list[tuple[int, str]]:
        # The transaction is known, so the position does not count.
        async with streaming(network, start_position=position(10**9), after_transaction_id=emitted.first[0]) as call:
            return await names(call, 2)

    assert network.run(story) == [(emitted.second[1], "second"), (emitted.third[1], "third")]


@pytest.mark.parametrize("kind", ["silent", "lost", "unknown"])
def test_behind_a_transaction_that_gave_no_event_nothing_ever_comes(
    network: LiveNetwork, emitted: Emitted, kind: str
) -> None:
    """A second stream shows that what came meanwhile came: the first one was silent all that time."""

    async def story() -> bool:
        tx_id = "0" * 64 if kind == "unknown" else getattr(emitted, kind)[0]
        async with (
            streaming(network, start_position=position(emitted.before), after_transaction_id=tx_id) as silent,
            streaming(network, start_position=position(await network.height(SERVICE))) as live,
        ):
            nothing = asyncio.create_task(silent.read())
            async with network.contract(SERVICE, chaincode=PROBE) as contract:
                await contract.submit_transaction("emit", network.fresh("event"), "live", "4")
            assert (await names(live, 1))[0][1] == "live"
            is_silent = not nothing.done()
            nothing.cancel()
            return is_silent

    assert network.run(story)


@pytest.mark.parametrize("start", [None, "unset", "next_commit", "above"])
def test_what_comes_next_is_waited_for(network: LiveNetwork, emitted: Emitted, start: str | None) -> None:
    async def story() -> tuple[list[str], bool]:
        name = network.fresh("live")
        height = await network.settled_height()
        place = height if start == "above" else start
        async with streaming(network, start_position=position(place)) as call:
            reading = asyncio.create_task(names(call, 1))
            async with network.contract(SERVICE, chaincode=PROBE) as contract:
                for _ in range(20):  # a stream begins when its request has come, which only its first event shows
                    await contract.submit_transaction("emit", network.fresh("event"), name, "5")
                    if reading.done():
                        break
            found = await reading
            return [it[1] for it in found], all(number >= height for number, _ in found)

    names_, are_new = network.run(story)
    assert are_new
    assert names_[0].startswith("live-")
    assert emitted.third[1] > 0


def test_events_of_other_chaincodes_do_not_come(network: LiveNetwork, emitted: Emitted) -> None:
    async def story() -> bool:
        async with (
            streaming(network, chaincode_id="service", start_position=position(emitted.before)) as other,
            streaming(network, chaincode_id="", start_position=position(emitted.before)) as none,
            streaming(network, start_position=position(emitted.before)) as own,
        ):
            reading = [asyncio.create_task(call.read()) for call in (other, none)]
            assert len(await names(own, 3)) >= 3
            is_silent = not any(task.done() for task in reading)
            for task in reading:
                task.cancel()
            return is_silent

    assert network.run(story)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"start_position": position("oldest")},
            Refused("INVALID_ARGUMENT", "invalid start position type: *orderer.SeekPosition_Oldest"),
        ),
        (
            {"start_position": position("newest")},
            Refused("INVALID_ARGUMENT", "invalid start position type: *orderer.SeekPosition_Newest"),
        ),
        (
            {"channel_id": ""},
            Refused(
                "PERMISSION_DENIED",
                "Invalid channel ID name during check policy on signed data. Name must be different from nil.",
            ),
        ),
        (
            {"channel_id": "elsewhere"},
            Refused("PERMISSION_DENIED", "Failed to get policy manager for channel [elsewhere]"),
        ),
        ({"creator": b""}, Refused("PERMISSION_DENIED", NO_READER)),
        ({"creator": b"nobody"}, Refused("PERMISSION_DENIED", NO_READER)),
        ({"signature": b""}, Refused("PERMISSION_DENIED", NO_READER)),
        (
            {"signature": b"none", "start_position": position("oldest")},
            Refused("PERMISSION_DENIED", NO_READER),
        ),
    ],
    ids=["oldest", "newest", "no channel", "another channel", "no creator", "nobody", "unsigned", "badly signed"],
)
def test_a_request_is_refused_in_the_same_words(network: LiveNetwork, fields: Any, expected: Refused) -> None:
    async def story() -> Refused:
        async with streaming(network, **fields) as call:
            return await refused(network, call)

    assert network.run(story) == expected


def test_orderers_organisations_get_no_events_and_auditors_do(network: LiveNetwork, emitted: Emitted) -> None:
    async def story() -> tuple[Refused, int]:
        async with streaming(network, network.identity("OrdererMSP", "admin")) as call:
            denied = await refused(network, call)
        auditor = network.identity("AuditorMSP", "auditor")
        async with streaming(network, auditor, start_position=position(emitted.before)) as call:
            return denied, len(await names(call, 3))

    denied, count = network.run(story)
    assert denied == Refused("PERMISSION_DENIED", NO_READER)
    assert count >= 3


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"", "a chaincode events request is required"),
        (GARBAGE, f"invalid chaincode events request: {UNREADABLE}"),
    ],
    ids=["nothing", "garbage"],
)
def test_a_request_that_is_none_is_refused(network: LiveNetwork, request_: bytes, words: str) -> None:
    async def story() -> Refused:
        async with network.channel(SERVICE) as channel:
            signed = gateway_pb2.SignedChaincodeEventsRequest(request=request_)
            call = gateway_pb2_grpc.GatewayStub(channel.grpc).ChaincodeEvents(signed)
            return await refused(network, call)

    assert network.run(story) == Refused("INVALID_ARGUMENT", words)


# --- the client


def test_the_client_goes_on_behind_any_event_also_where_a_peer_would_be_silent(
    network: LiveNetwork, emitted: Emitted
) -> None:
    async def story() -> tuple[list[Event], list[list[Event]]]:
        async with network.contract(BILLING, chaincode=PROBE) as contract:
            events = contract.gateway.network(CHANNEL).events(PROBE)
            whole = await take(events.events(emitted.before), 3)
            return whole, [await take(events.events(event.position), 2 - place) for place, event in enumerate(whole)]

    whole, resumed = network.run(story)
    assert [(event.name, event.payload, event.tx_id) for event in whole] == [
        ("first", b"1", emitted.first[0]),
        ("second", b"2", emitted.second[0]),
        ("third", b"3", emitted.third[0]),
    ]
    assert resumed == [whole[1:], whole[2:], []]


@pytest.mark.parametrize("kind", ["silent", "lost"])
def test_the_client_says_that_a_checkpoint_names_no_event(network: LiveNetwork, emitted: Emitted, kind: str) -> None:
    async def story() -> EventStreamError:
        tx_id, block_number = getattr(emitted, kind)
        async with network.contract(SERVICE, chaincode=PROBE) as contract:
            events = contract.gateway.network(CHANNEL).events(PROBE)
            with pytest.raises(EventCheckpointError) as caught:
                await take(events.events(EventPosition(block_number, tx_id), idle_seconds=30), 1)
            return caught.value

    assert network.run(story).position == EventPosition(getattr(emitted, kind)[1], getattr(emitted, kind)[0])


def test_the_client_names_a_denial(network: LiveNetwork) -> None:
    async def story() -> None:
        async with network.contract("OrdererMSP", "admin", PROBE, peer=SERVICE) as contract:
            with pytest.raises(EventsForbiddenError):
                await take(contract.gateway.network(CHANNEL).events(PROBE).events(0), 1)

    network.run(story)


async def take(events: Any, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found.append(await anext(events))
    await events.aclose()
    return found
