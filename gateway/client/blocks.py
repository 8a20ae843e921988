"""The blocks of a channel from a peer, in order, byte for byte as they came (`peer/events.proto` Deliver).

Blocks are not decoded here: their bytes are cut out of the response, so what is hashed later is what was received.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2

from gateway.client.channel import NodeChannel
from gateway.client.errors import (
    BlocksBadRequestError,
    BlocksForbiddenError,
    BlocksNotFoundError,
    BlocksStalledError,
    BlockStreamError,
    BlocksUnavailableError,
)
from gateway.client.gateway import Chance
from gateway.client.identity import SigningIdentity
from gateway.client.message import SEEK_INFO, channel_header
from network.protocol.errors import DecodeError
from network.protocol.proposal import encode_envelope
from network.protocol.wire import read_varint, scan_fields

_ENDLESS: Final = 2**64 - 1
_BYTES: Final = 2
_STATUS, _BLOCK, _BLOCK_AND_PRIVATE_DATA = 1, 2, 4
_ERRORS: Final[dict[int, type[BlockStreamError]]] = {
    common_pb2.NOT_FOUND: BlocksNotFoundError,
    common_pb2.FORBIDDEN: BlocksForbiddenError,
    common_pb2.BAD_REQUEST: BlocksBadRequestError,
    common_pb2.SERVICE_UNAVAILABLE: BlocksUnavailableError,
}


class Stop(Enum):
    """Where a stream ends, when not at a number."""

    NEWEST = "newest"
    """At the newest block the peer has when asked; never waits."""
    NEVER = "never"


_FROM_NEWEST: Final = -1


class ReceivedBlock(NamedTuple):
    """A serialised `common.Block` and, when asked for, serialised `TxPvtReadWriteSet` by number of transaction.

    The number is the position counted from the start, not read from the block: nothing here is verified.
    """

    number: int
    content: bytes
    private_data: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class BlockStream:
    """The blocks of one channel, from one peer, read by one identity. The gRPC channel stays the caller's to close."""

    identity: SigningIdentity
    channel: NodeChannel
    channel_name: str
    chance: Chance = field(default_factory=Chance)

    async def blocks(
        self,
        start: int,
        *,
        stop: int | Stop = Stop.NEVER,
        private_data: bool = False,
        idle_seconds: float | None = None,
    ) -> AsyncGenerator[ReceivedBlock, None]:
        """Give the blocks from number `start` to `stop`, that one too.

        At most a few messages are ahead of the reader (flow control of HTTP/2). Leaving the loop and closing the
        iterator, or cancelling, closes the stream. `idle_seconds`: the longest time between two blocks. Raises
        BlockStreamError's classes with the first number not received.
        """
        async with aclosing(
            self._received(start, stop, private_data=private_data, idle_seconds=idle_seconds)
        ) as received:
            async for block in received:
                yield block

    async def newest(self, *, idle_seconds: float | None = None) -> bytes:
        """Give the newest block the peer has, serialised; raises BlockStreamError's classes (`next_block` is -1)."""
        async with aclosing(
            self._received(_FROM_NEWEST, Stop.NEWEST, private_data=False, idle_seconds=idle_seconds)
        ) as received:
            async for block in received:
                return block.content
        raise BlocksUnavailableError("the peer gave no newest block", _FROM_NEWEST)

    async def _received(
        self,
        start: int,
        stop: int | Stop,
        *,
        private_data: bool,
        idle_seconds: float | None,
    ) -> AsyncGenerator[ReceivedBlock, None]:
        method = "DeliverWithPrivateData" if private_data else "Deliver"
        # No deserialiser: the bytes are taken as they came.
        deliver: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self.channel.grpc.stream_stream(
            f"/protos.Deliver/{method}"
        )
        call = deliver()
        number = start
        try:
            await call.write(self._request(start, stop))
            while True:
                try:
                    async with asyncio.timeout(idle_seconds):
                        content = await call.read()
                except TimeoutError:
                    raise BlocksStalledError(f"nothing came for {idle_seconds} seconds", number) from None
                if not isinstance(content, bytes):  # the end of the stream
                    raise BlocksUnavailableError("the stream ended", number)
                block = _read_response(content, number)
                if block is None:
                    return
                yield block
                number += 1
        except grpc.aio.AioRpcError as error:
            raise BlocksUnavailableError(f"{error.code().name} {error.details()}", number) from error
        finally:
            call.cancel()

    def _request(self, start: int, stop: int | Stop) -> bytes:
        first = (
            ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
            if start == _FROM_NEWEST
            else ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=start))
        )
        behavior = ab_pb2.SeekInfo.BLOCK_UNTIL_READY
        if stop is Stop.NEWEST:
            last = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
            behavior = ab_pb2.SeekInfo.FAIL_IF_NOT_READY  # a start above the newest would never end otherwise
        else:
            last = ab_pb2.SeekPosition(
                specified=ab_pb2.SeekSpecified(number=_ENDLESS if isinstance(stop, Stop) else stop)
            )
        header = channel_header(SEEK_INFO, self.channel_name, self.chance.nanoseconds())
        header.tls_cert_hash = self.channel.tls_certificate_hash
        signature_header = common_pb2.SignatureHeader(creator=self.identity.creator, nonce=self.chance.nonce())
        payload = common_pb2.Payload(
            header=common_pb2.Header(
                channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
            ),
            data=ab_pb2.SeekInfo(start=first, stop=last, behavior=behavior).SerializeToString(),
        ).SerializeToString()
        return encode_envelope(payload, self.identity.sign(payload))


def _read_response(content: bytes, number: int) -> ReceivedBlock | None:
    """Give the block of a DeliverResponse, None for the end; raises BlockStreamError."""
    try:
        answer = _read_field(content, number)
    except DecodeError as error:
        raise BlockStreamError(f"not a response with a block: {error}", number) from error
    if isinstance(answer, ReceivedBlock):
        return answer
    _check_end(answer, number)
    return None


def _read_field(content: bytes, number: int) -> ReceivedBlock | int:
    """Give the block, or the status that ends the stream; a response has one field."""
    fields = tuple(scan_fields(content))
    if len(fields) != 1:
        raise DecodeError(f"{len(fields)} fields")
    found = fields[0]
    if found.number == _STATUS and found.wire_type == 0:
        return read_varint(found.raw, 0)[0]
    if found.wire_type == _BYTES and found.number == _BLOCK:
        return ReceivedBlock(number, found.content, {})
    if found.wire_type == _BYTES and found.number == _BLOCK_AND_PRIVATE_DATA:
        return _read_block_and_private_data(found.content, number)
    raise DecodeError(f"field {found.number}")


def _check_end(status: int, number: int) -> None:
    if status != common_pb2.SUCCESS:
        kind = _ERRORS.get(status, BlockStreamError)
        name = common_pb2.Status.Name(status) if status in common_pb2.Status.values() else "status"
        raise kind(f"{name} ({status})", number)


def _read_block_and_private_data(content: bytes, number: int) -> ReceivedBlock:
    blocks: list[bytes] = []
    private: dict[int, bytes] = {}
    for found in scan_fields(content):
        if found.wire_type != _BYTES:
            continue
        if found.number == 1:
            blocks.append(found.content)
        elif found.number == 2:
            tx_number, value = _read_entry(found.content)
            private[tx_number] = value
    if len(blocks) != 1:
        raise DecodeError(f"{len(blocks)} blocks")
    return ReceivedBlock(number, blocks[0], private)


def _read_entry(content: bytes) -> tuple[int, bytes]:
    tx_number, value = 0, b""  # proto3 leaves zero out
    for found in scan_fields(content):
        if found.number == 1 and found.wire_type == 0:
            tx_number = read_varint(found.raw, 0)[0]
        elif found.number == 2 and found.wire_type == _BYTES:
            value = found.content
    return tx_number, value
