"""Streams of blocks while things change: who may read, whether the node is sure of its blocks, what it can read."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2

from network.embedded.services.deliver import (
    BAD_REQUEST,
    FORBIDDEN,
    SERVICE_UNAVAILABLE,
    SUCCESS,
    Answer,
    DeliveredBlock,
    answers,
)
from network.errors import LedgerError
from network.protocol.policy import SignedData

NOW = 1_800_000_000.0
ENDLESS = 2**64 - 1


class ScriptedChain:
    """Blocks of a node whose facts a test changes; it counts how often it was asked who may read."""

    def __init__(self, height: int = 3) -> None:
        self.height = height
        self.config_sequence = 1
        self.readers = {b"reader"}
        self.expired: set[bytes] = set()
        self.damaged: set[int] = set()
        self.failed = asyncio.Event()
        self.asked = 0
        self._grown = asyncio.Condition()

    def block(self, number: int) -> bytes:
        if number in self.damaged:
            raise LedgerError(f"block {number} is damaged")
        return bytes(common_pb2.Block(header=common_pb2.BlockHeader(number=number)).SerializeToString())

    async def wait_for_height(self, above: int) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: self.height > above)

    def may_read(self, signed: SignedData) -> bool:
        self.asked += 1
        return signed.identity in self.readers

    def has_expired(self, identity: bytes) -> bool:
        return identity in self.expired

    async def grow(self) -> None:
        async with self._grown:
            self.height += 1
            self._grown.notify_all()


def request(start: int, stop: int, **fields: Any) -> Any:
    header = common_pb2.ChannelHeader(type=5, channel_id="ch")
    header.timestamp.seconds = int(NOW)
    signature_header = common_pb2.SignatureHeader(creator=b"reader", nonce=secrets.token_bytes(8))
    first, last = (ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=number)) for number in (start, stop))
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
        ),
        data=ab_pb2.SeekInfo(start=first, stop=last, **fields).SerializeToString(),
    )
    return common_pb2.Envelope(payload=payload.SerializeToString(), signature=b"s")


BEST_EFFORT = {"error_response": ab_pb2.SeekInfo.BEST_EFFORT}
HEADERS = {"content_type": ab_pb2.SeekInfo.HEADER_WITH_SIG}


def stream(chain: ScriptedChain, *requests: Any, **settings: Any) -> AsyncIterator[Answer]:
    async def envelopes() -> AsyncIterator[Any]:
        for envelope in requests:
            yield envelope

    return answers(envelopes(), lambda _: chain, lambda: NOW, **settings)


async def told(found: AsyncIterator[Answer], count: int = 100) -> list[int | str]:
    """Give the next answers: blocks as text, statuses as numbers."""
    got: list[int | str] = []
    async with asyncio.timeout(10):
        async for answer in found:
            got.append(f"block {answer.number}" if isinstance(answer, DeliveredBlock) else answer)
            if len(got) == count:
                break
    return got


def test_who_reads_is_asked_once_and_again_when_the_configuration_grew() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        found = stream(chain, request(0, ENDLESS))
        assert await told(found, 3) == ["block 0", "block 1", "block 2"]
        assert chain.asked == 1

        chain.config_sequence += 1
        await chain.grow()
        assert await told(found, 1) == ["block 3"]
        assert chain.asked == 2

        await chain.grow()
        assert await told(found, 1) == ["block 4"]
        assert chain.asked == 2

        chain.config_sequence += 1
        chain.readers.clear()
        await chain.grow()
        assert await told(found) == [FORBIDDEN]

    asyncio.run(story())


def test_without_a_new_configuration_nobody_is_shut_out() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        found = stream(chain, request(0, 2))
        assert await told(found, 1) == ["block 0"]
        chain.readers.clear()
        assert await told(found) == ["block 1", "block 2", SUCCESS]

    asyncio.run(story())


def test_expiry_is_looked_at_before_each_block() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        found = stream(chain, request(0, 2))
        assert await told(found, 1) == ["block 0"]
        chain.expired.add(b"reader")
        assert await told(found) == [FORBIDDEN]

    asyncio.run(story())


def test_a_block_that_cannot_be_read_makes_the_service_unavailable() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        chain.damaged.add(1)
        assert await told(stream(chain, request(0, 2), request(0, 0))) == ["block 0", SERVICE_UNAVAILABLE]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fields", "got"), [({}, [SERVICE_UNAVAILABLE]), (BEST_EFFORT, ["block 0", SUCCESS])], ids=["strict", "best effort"]
)
def test_a_node_in_trouble_gives_blocks_to_the_best_effort_alone(fields: dict[str, int], got: list[int | str]) -> None:
    async def story() -> None:
        chain = ScriptedChain()
        chain.failed.set()
        assert await told(stream(chain, request(0, 0, **fields))) == got

    asyncio.run(story())


def test_trouble_ends_a_wait_unless_the_best_effort_was_asked_for() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        strict, best = (stream(chain, request(2, ENDLESS, **fields)) for fields in ({}, BEST_EFFORT))
        assert await told(strict, 1) == await told(best, 1) == ["block 2"]
        waiting = [asyncio.create_task(told(found, 1)) for found in (strict, best)]
        await asyncio.sleep(0)

        chain.failed.set()
        assert await waiting[0] == [SERVICE_UNAVAILABLE]
        await chain.grow()
        assert await waiting[1] == ["block 3"]

    asyncio.run(story())


def test_trouble_is_noticed_between_blocks() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        found = stream(chain, request(0, 2))
        assert await told(found, 1) == ["block 0"]
        chain.failed.set()
        assert await told(found) == [SERVICE_UNAVAILABLE]

    asyncio.run(story())


def test_headers_alone_are_refused_where_a_real_peer_would_end() -> None:
    async def story() -> None:
        chain = ScriptedChain()
        assert await told(stream(chain, request(0, 0, **HEADERS), allows_header_only=False)) == [BAD_REQUEST]
        assert await told(stream(chain, request(0, 0, **HEADERS))) == ["block 0", SUCCESS]

    asyncio.run(story())
