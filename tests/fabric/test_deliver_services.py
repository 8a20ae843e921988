"""What peers and orderers answer to those who ask for blocks: which blocks, which statuses, and whose private data.

Measured on nodes of 3.1.5; sources: common/deliver/{deliver,acl}.go, core/peer/deliverevents.go,
common/ledger/blockledger/fileledger/impl.go.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.orderer import ab_pb2, ab_pb2_grpc
from fabric_protos.peer import events_pb2_grpc

from gateway.client.blocks import BlockStream, Stop
from gateway.client.retry import ONCE
from network.protocol.block import SLOT_TRANSACTIONS_FILTER, BlockHeader, header_hash
from network.protocol.decode import decode_block
from network.protocol.transaction import HEADER_CONFIG
from network.protocol.validation_code import validation_code_name
from tests.support.expiring_identity import expiring_identity, whole_second
from tests.support.live_network import BILLING, CHANNEL, CUSTOMER, PROBE, SERVICE, LiveNetwork
from tests.support.service_request import (
    GARBAGE,
    EnvelopeParts,
    Place,
    answers_of,
    refusal,
    seek,
    signed_envelope,
)

BLOCKS, OUTLINES, PRIVATE, ORDERER = "Deliver", "DeliverFiltered", "DeliverWithPrivateData", "orderer's Deliver"
SERVICES: Final = (BLOCKS, OUTLINES, PRIVATE, ORDERER)
MINUTE: Final = 60 * 1_000_000_000
ENDLESS: Final = 2**64 - 1
FAIL: Final = {"behavior": ab_pb2.SeekInfo.FAIL_IF_NOT_READY}


class Asked(NamedTuple):
    """The stream of one service, and where the chain stands at its node."""

    open: Callable[[], Any]
    height: int


@asynccontextmanager
async def service(network: LiveNetwork, name: str) -> AsyncIterator[Asked]:
    """Open a service of the service department's peer, or of an orderer."""
    async with network.channel("OrdererMSP" if name == ORDERER else SERVICE) as channel:
        if name == ORDERER:
            open_stream = ab_pb2_grpc.AtomicBroadcastStub(channel.grpc).Deliver
        else:
            open_stream = getattr(events_pb2_grpc.DeliverStub(channel.grpc), name)
        request = signed_envelope(network.identity(SERVICE, "agent"), seek("newest", "newest"))
        newest, status = [read(answer) async for answer in answers_of(open_stream(), request)]
        assert status == "SUCCESS"
        yield Asked(open_stream, int(newest.removeprefix("block ")) + 1)


def read(answer: Any) -> str:
    """Name an answer: a block by its number, or a status."""
    kind = answer.WhichOneof("Type")
    if kind == "status":
        return str(common_pb2.Status.Name(answer.status))
    block = answer.block_and_private_data.block if kind == "block_and_private_data" else getattr(answer, kind)
    return f"block {block.number if kind == 'filtered_block' else block.header.number}"


async def told(network: LiveNetwork, asked: Asked, *requests: Any) -> list[str]:
    """Give what comes of requests, and how the stream ends."""
    call = asked.open()
    found: list[str] = []
    try:
        async with asyncio.timeout(30):
            async for answer in answers_of(call, *requests):
                found.append(read(answer))  # noqa: PERF401  # what came before an error is wanted
            found.append((await call.code()).name)
    except grpc.aio.AioRpcError as error:
        found.append(str(refusal(network, error)))
    finally:
        call.cancel()
    return found


# --- requests that are refused


def replaced(**layers: Any) -> Callable[[EnvelopeParts], None]:
    def change(parts: EnvelopeParts) -> None:
        for name, content in layers.items():
            setattr(parts, name, content)

    return change


def without_time(parts: EnvelopeParts) -> None:
    parts.channel_header.ClearField("timestamp")


def created_by_nobody(parts: EnvelopeParts) -> None:
    parts.signature_header.creator = b"nobody"


FIRST: Final = seek(0, 0)
REFUSED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no header": ({"change": replaced(header=None)}, "BAD_REQUEST"),
    "no channel header": ({"change": replaced(channel_header=GARBAGE)}, "BAD_REQUEST"),
    "no signature header": ({"change": replaced(signature_header=GARBAGE)}, "BAD_REQUEST"),
    "no time": ({"change": without_time}, "BAD_REQUEST"),
    "of sixteen minutes ago": ({"nanoseconds": -16 * MINUTE}, "BAD_REQUEST"),
    "of sixteen minutes from now": ({"nanoseconds": 16 * MINUTE}, "BAD_REQUEST"),
    "no channel": ({"channel": ""}, "NOT_FOUND"),
    "a channel that nobody has": ({"channel": "elsewhere"}, "NOT_FOUND"),
    "garbage on a channel that nobody has": ({"channel": "elsewhere", "data": GARBAGE}, "NOT_FOUND"),
    "garbage": ({"data": GARBAGE}, "BAD_REQUEST"),
    "garbage of nobody": ({"data": GARBAGE, "signature": b"none"}, "BAD_REQUEST"),
    "signed with nothing": ({"signature": b"none"}, "FORBIDDEN"),
    "unsigned": ({"signature": b""}, "FORBIDDEN"),
    "of nobody": ({"change": created_by_nobody}, "FORBIDDEN"),
    "nothing, of nobody": ({"data": b"", "signature": b"none"}, "FORBIDDEN"),
    "nothing": ({"data": b""}, "BAD_REQUEST"),
    "no start": ({"data": seek(None, 0)}, "BAD_REQUEST"),
    "no stop": ({"data": seek(0, None)}, "BAD_REQUEST"),
    "an unset start": ({"data": seek("unset", 0)}, "NOT_FOUND"),
    "a stop in front of the start": ({"data": seek(2, 1)}, "BAD_REQUEST"),
    "a stop in front of the newest": ({"data": seek("newest", 0)}, "BAD_REQUEST"),
    "a start far above": ({"data": seek(10**9, ENDLESS)}, "NOT_FOUND"),
    "the highest number": ({"data": seek(ENDLESS, ENDLESS)}, "NOT_FOUND"),
    "a start far above, not to wait": ({"data": seek(10**9, ENDLESS, **FAIL)}, "NOT_FOUND"),
    "what comes next, not to wait": ({"data": seek("next_commit", "next_commit", **FAIL)}, "NOT_FOUND"),
}


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_ends_the_stream_with_its_status(network: LiveNetwork, name: str, case: str) -> None:
    fields, status = dict(REFUSED[case][0]), REFUSED[case][1]
    if "nanoseconds" in fields:
        fields["nanoseconds"] += time.time_ns()

    async def story() -> list[str]:
        request = signed_envelope(network.identity(SERVICE, "agent"), fields.pop("data", FIRST), **fields)
        async with service(network, name) as asked:
            return await told(network, asked, request)

    assert network.run(story) == [status, "OK"]


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("envelope", [common_pb2.Envelope(), common_pb2.Envelope(payload=GARBAGE)], ids=["none", "no"])
def test_an_envelope_without_payload_is_a_bad_request(network: LiveNetwork, name: str, envelope: Any) -> None:
    async def story() -> list[str]:
        async with service(network, name) as asked:
            return await told(network, asked, envelope)

    assert network.run(story) == ["BAD_REQUEST", "OK"]


@pytest.mark.parametrize(
    ("msp_id", "user", "name", "ended"),
    [
        ("AuditorMSP", "auditor", BLOCKS, "SUCCESS"),
        ("AuditorMSP", "auditor", ORDERER, "SUCCESS"),
        (BILLING, "agent", OUTLINES, "SUCCESS"),
        ("OrdererMSP", "admin", BLOCKS, "FORBIDDEN"),
        ("OrdererMSP", "admin", OUTLINES, "FORBIDDEN"),
        ("OrdererMSP", "admin", PRIVATE, "FORBIDDEN"),
        ("OrdererMSP", "admin", ORDERER, "SUCCESS"),
    ],
)
def test_peers_serve_readers_of_applications_and_orderers_those_of_the_channel(
    network: LiveNetwork, msp_id: str, user: str, name: str, ended: str
) -> None:
    async def story() -> list[str]:
        async with service(network, name) as asked:
            return await told(network, asked, signed_envelope(network.identity(msp_id, user), FIRST))

    assert network.run(story)[-2:] == [ended, "OK"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_certificate_that_is_over_is_forbidden(network: LiveNetwork, name: str) -> None:
    async def story() -> list[str]:
        over = expiring_identity(network.created, SERVICE, whole_second(-2))
        async with service(network, name) as asked:
            return await told(network, asked, signed_envelope(over, FIRST))

    assert network.run(story) == ["FORBIDDEN", "OK"]


# --- requests that are answered

HEIGHT: Final = -1_000
"""Stands for the height of the chain; `HEIGHT - 1` is the newest block."""


def at(place: Place, height: int) -> Place:
    return height - (HEIGHT - place) if isinstance(place, int) and place <= HEIGHT + 100 and place < 0 else place


ANSWERED: Final[dict[str, tuple[Place, Place, dict[str, int], list[int], str]]] = {
    "one": (1, 1, {}, [1], "SUCCESS"),
    "the first": ("oldest", "oldest", {}, [0], "SUCCESS"),
    "three": (1, 3, {}, [1, 2, 3], "SUCCESS"),
    "the newest": ("newest", "newest", {}, [HEIGHT - 1], "SUCCESS"),
    "the newest as the first of many": ("newest", "oldest", {}, [HEIGHT - 1], "SUCCESS"),
    "the newest by number": (HEIGHT - 1, "newest", {}, [HEIGHT - 1], "SUCCESS"),
    "the last two": (HEIGHT - 2, "newest", {}, [HEIGHT - 2, HEIGHT - 1], "SUCCESS"),
    "to the next, from the first": (0, "next_commit", {}, [0], "SUCCESS"),
    "to nowhere, from the first": (0, "unset", {}, [0], "SUCCESS"),
    "past the end, not to wait": (HEIGHT - 2, HEIGHT + 5, FAIL, [HEIGHT - 2, HEIGHT - 1], "NOT_FOUND"),
    "just above, not to wait": (HEIGHT, HEIGHT, FAIL, [], "NOT_FOUND"),
    "above": (HEIGHT + 1, HEIGHT + 1, {}, [], "NOT_FOUND"),
    "an unknown behaviour": (1, 1, {"behavior": 7}, [1], "SUCCESS"),
    "an unknown content": (1, 1, {"content_type": 7}, [1], "SUCCESS"),
    "the best effort": (1, 1, {"error_response": ab_pb2.SeekInfo.BEST_EFFORT}, [1], "SUCCESS"),
}


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("case", ANSWERED)
def test_positions_name_the_same_blocks(network: LiveNetwork, name: str, case: str) -> None:
    start, stop, fields, blocks, status = ANSWERED[case]

    async def story() -> tuple[list[str], int]:
        async with service(network, name) as asked:
            wanted = seek(at(start, asked.height), at(stop, asked.height), **fields)
            request = signed_envelope(network.identity(SERVICE, "agent"), wanted)
            return await told(network, asked, request), asked.height

    found, height = network.run(story)
    assert found == [*[f"block {at(number, height)}" for number in blocks], status, "OK"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_type_of_the_request_does_not_matter(network: LiveNetwork, name: str) -> None:
    async def story() -> list[list[str]]:
        identity = network.identity(SERVICE, "agent")
        async with service(network, name) as asked:
            return [await told(network, asked, signed_envelope(identity, FIRST, kind=kind)) for kind in (0, 3, 77)]

    assert network.run(story) == [["block 0", "SUCCESS", "OK"]] * 3


@pytest.mark.parametrize("name", SERVICES)
def test_requests_follow_each_other_until_one_is_refused(network: LiveNetwork, name: str) -> None:
    async def story() -> tuple[list[str], list[str]]:
        identity = network.identity(SERVICE, "agent")
        wanted = [signed_envelope(identity, seek(*places)) for places in ((1, 1), (0, 0), (2, 3))]
        refused = signed_envelope(identity, seek(3, 2))
        async with service(network, name) as asked:
            call = asked.open()
            await call.write(wanted[0])
            before = [read(await call.read()) for _ in range(2)]
            await call.write(refused)
            before += [read(await call.read()), str(await call.read() is grpc.aio.EOF)]
            return await told(network, asked, *wanted), before

    several, before = network.run(story)
    assert several == ["block 1", "SUCCESS", "block 0", "SUCCESS", "block 2", "block 3", "SUCCESS", "OK"]
    assert before == ["block 1", "SUCCESS", "BAD_REQUEST", "True"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_stream_without_requests_just_ends(network: LiveNetwork, name: str) -> None:
    async def story() -> list[str]:
        async with service(network, name) as asked:
            return await told(network, asked)

    assert network.run(story) == ["OK"]


WAITING: Final[dict[str, tuple[Place, Place, bool]]] = {
    "by number": (HEIGHT, HEIGHT, True),
    "as what comes next": ("next_commit", ENDLESS, False),
    "as what comes next, and never the end": ("next_commit", "next_commit", False),
    "with the newest as its end": (HEIGHT, "newest", False),
    "behind the newest, to nowhere": (HEIGHT - 1, "unset", False),
}


def test_what_is_not_there_yet_is_waited_for(network: LiveNetwork) -> None:
    async def story() -> dict[tuple[str, str], list[str]]:
        identity = network.identity(SERVICE, "agent")
        found: dict[tuple[str, str], list[str]] = {}
        async with AsyncExitStack() as stack:
            streams = {}
            for name in SERVICES:
                asked = await stack.enter_async_context(service(network, name))
                for case, (start, stop, _) in WAITING.items():
                    call = asked.open()
                    stack.callback(call.cancel)
                    await call.write(signed_envelope(identity, seek(at(start, asked.height), at(stop, asked.height))))
                    streams[name, case] = call, asked.height
                    if start == HEIGHT - 1:
                        assert read(await call.read()) == f"block {asked.height - 1}"
            await commit(network)
            async with asyncio.timeout(30):
                for (name, case), (call, height) in streams.items():
                    first = read(await call.read()).replace(str(height), "next")
                    found[name, case] = [first, *([read(await call.read())] if WAITING[case][2] else [])]
        return found

    assert network.run(story) == {
        (name, case): ["block next", "SUCCESS"] if ends else ["block next"]
        for name in SERVICES
        for case, (_, _, ends) in WAITING.items()
    }


def test_a_certificate_that_ends_meanwhile_is_noticed_at_the_next_block(network: LiveNetwork) -> None:
    async def story() -> dict[str, list[str]]:
        end = whole_second(5)
        identity = expiring_identity(network.created, SERVICE, end)
        found: dict[str, list[str]] = {}
        async with AsyncExitStack() as stack:
            calls = {}
            for name in SERVICES:
                asked = await stack.enter_async_context(service(network, name))
                calls[name] = call = asked.open()
                stack.callback(call.cancel)
                await call.write(signed_envelope(identity, seek(asked.height - 1, ENDLESS)))
                assert read(await call.read()) == f"block {asked.height - 1}"
            await asyncio.sleep(end.timestamp() + 1.1 - time.time())  # what is waited for is the clock
            await commit(network)
            async with asyncio.timeout(30):
                for name, call in calls.items():
                    found[name] = [read(await call.read()), str(await call.read() is grpc.aio.EOF)]
        return found

    assert network.run(story) == {name: ["FORBIDDEN", "True"] for name in SERVICES}


# --- what is in the answers


@pytest.mark.parametrize("name", [BLOCKS, PRIVATE, ORDERER])
def test_headers_come_without_transactions_but_a_configuration_keeps_its_own(network: LiveNetwork, name: str) -> None:
    async def story() -> list[tuple[bytes, bytes, int]]:
        identity = network.identity(SERVICE, "agent")
        wanted = seek(0, 2, content_type=ab_pb2.SeekInfo.HEADER_WITH_SIG)
        async with service(network, name) as asked:
            whole, headers = [
                [
                    answer.block_and_private_data.block if name == PRIVATE else answer.block
                    async for answer in answers_of(asked.open(), signed_envelope(identity, request))
                    if answer.WhichOneof("Type") != "status"
                ]
                for request in (seek(0, 2), wanted)
            ]
            assert [block.header for block in whole] == [block.header for block in headers]
            assert [block.metadata for block in whole] == [block.metadata for block in headers]
            return [(len(full.data.data), len(block.data.data)) for full, block in zip(whole, headers, strict=True)]

    counts = network.run(story)
    assert counts[0] == (1, 1)
    assert [left for _, left in counts[1:]] == [0, 0]
    assert all(full for full, _ in counts)


def test_witnesses_of_two_peers_agree_with_the_blocks(network: LiveNetwork) -> None:
    async def story() -> None:
        height = await network.settled_height()
        streams = []
        async with network.channel(SERVICE) as service, network.channel(CUSTOMER) as customer:
            for channel in (service, customer):
                stream = BlockStream(network.identity(SERVICE, "agent"), channel, CHANNEL)
                streams.append([it async for it in stream.witnesses(0, stop=height - 1, idle_seconds=30)])
            reader = BlockStream(network.identity(SERVICE, "agent"), service, CHANNEL)
            blocks = [common_pb2.Block.FromString(it.content) async for it in reader.blocks(0, stop=height - 1)]
        assert streams[0] == streams[1]
        for witness, block in zip(streams[0], blocks, strict=True):
            header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
            assert witness.header_hash == header_hash(header)
            assert witness.flags == block.metadata.metadata[SLOT_TRANSACTIONS_FILTER]
            assert (witness.commit_hash is None) == (witness.number == 0)

    network.run(story)


def test_an_outline_has_every_transaction_with_its_verdict_and_events_without_content(network: LiveNetwork) -> None:
    async def story() -> None:
        key = network.fresh("event")
        async with network.contract(SERVICE, chaincode=PROBE) as contract:
            first, second = [await contract.endorse("emit", key, "probed", content) for content in ("one", "two")]
            statuses = [await (await transaction.submit()).status() for transaction in (first, second)]
            assert [status.code for status in statuses] == ["VALID", "MVCC_READ_CONFLICT"]
            channel = contract.gateway.channel
            stream = BlockStream(network.identity(SERVICE, "agent"), channel, CHANNEL)
            last = statuses[-1].block_number
            outlines = [it async for it in stream.outlines(0, stop=last, idle_seconds=30)]
            blocks = [decode_block(it.content) async for it in stream.blocks(0, stop=last, idle_seconds=30)]
        for outline, block in zip(outlines, blocks, strict=True):
            flags = block.metadata[SLOT_TRANSACTIONS_FILTER]
            assert [(it.tx_id, it.code) for it in outline.transactions] == [
                (it.tx_id, validation_code_name(code)) for it, code in zip(block.transactions, flags, strict=True)
            ]
        events = {it.tx_id: it.events for outline in outlines for it in outline.transactions}
        assert events[first.tx_id] == events[second.tx_id] == ((PROBE, "probed"),)
        assert outlines[0].transactions[0].events == ()

    network.run(story)


def test_an_outline_says_type_and_channel_and_carries_no_payload(network: LiveNetwork) -> None:
    async def story() -> list[Any]:
        async with network.contract(SERVICE, chaincode=PROBE) as contract:
            status = (await contract.submit_transaction("emit", network.fresh("event"), "probed", "content")).status
        async with service(network, OUTLINES) as asked:
            identity = network.identity(SERVICE, "agent")
            requests = [signed_envelope(identity, seek(n, n)) for n in (0, status.block_number)]
            answers = [answer async for answer in answers_of(asked.open(), *requests)]
        return [answer.filtered_block for answer in answers if answer.WhichOneof("Type") == "filtered_block"]

    genesis, block = network.run(story)
    assert (genesis.channel_id, genesis.filtered_transactions[0].type) == (CHANNEL, HEADER_CONFIG)
    assert genesis.filtered_transactions[0].WhichOneof("Data") is None
    (event,) = [
        action.chaincode_event
        for transaction in block.filtered_transactions
        for action in transaction.transaction_actions.chaincode_actions
    ]
    assert (event.chaincode_id, event.event_name, event.payload) == (PROBE, "probed", b"")
    assert event.tx_id in {transaction.txid for transaction in block.filtered_transactions}


@pytest.mark.parametrize(
    ("peer", "msp_id", "user", "sees"),
    [
        (SERVICE, SERVICE, "agent", True),
        (SERVICE, BILLING, "agent", True),
        (BILLING, SERVICE, "agent", True),
        (SERVICE, CUSTOMER, "agent", False),
        (SERVICE, "AuditorMSP", "auditor", False),
        (CUSTOMER, SERVICE, "agent", False),
    ],
)
def test_private_data_are_given_by_members_to_members(
    network: LiveNetwork, peer: str, msp_id: str, user: str, sees: bool
) -> None:
    async def story() -> dict[str, list[str]]:
        secret = network.fresh("secret")
        async with network.contract(SERVICE, chaincode=PROBE) as contract:
            done = await contract.submit_transaction(
                "note_private",
                secret,
                transient={"secret": secret.encode()},
                endorsing_organizations=[SERVICE, BILLING],
                retry=ONCE,
            )
        number = done.status.block_number
        await network.wait_for_block(number)
        found: dict[str, list[str]] = {}
        async with network.channel(peer) as channel:
            stream = BlockStream(network.identity(msp_id, user), channel, CHANNEL)
            async for block in stream.blocks(number, stop=number, private_data=True, idle_seconds=30):
                for content in block.private_data.values():
                    for name, written in private_writes(content):
                        found.setdefault(name, []).append(written.replace(secret, "<secret>"))
        return found

    assert network.run(story) == ({"pair": ["<secret>=<secret>"]} if sees else {})


def test_approvals_are_given_to_every_reader(network: LiveNetwork) -> None:
    async def story() -> set[str]:
        async with network.channel(SERVICE) as channel:
            stream = BlockStream(network.identity("AuditorMSP", "auditor"), channel, CHANNEL)
            blocks = [it async for it in stream.blocks(1, stop=Stop.NEWEST, private_data=True, idle_seconds=30)]
        return {name for it in blocks for content in it.private_data.values() for name, _ in private_writes(content)}

    assert "_implicit_org_ServiceMSP" in network.run(story)


def private_writes(content: bytes) -> list[tuple[str, str]]:
    return [
        (part.collection_name, f"{write.key}={write.value.decode('utf-8', 'replace')}")
        for namespace in rwset_pb2.TxPvtReadWriteSet.FromString(content).ns_pvt_rwset
        for part in namespace.collection_pvt_rwset
        for write in kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes
    ]


async def commit(network: LiveNetwork) -> None:
    """Write something."""
    async with network.contract(SERVICE, chaincode=PROBE) as contract:
        await contract.submit_transaction("put", network.fresh("key"), "value")
