"""The blocks of a channel from a peer, in order, byte for byte as they came (`peer/events.proto` Deliver).

Blocks are not decoded here: their bytes are cut out of the response, so what is hashed later is what was received.
Less than blocks: witnesses (hashes and verdicts, for comparing peers), and outlines (ids and verdicts, for those who
may see no more).
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
from fabric_protos.peer import events_pb2

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
from network.protocol.block import SLOT_COMMIT_HASH, SLOT_TRANSACTIONS_FILTER, BlockHeader, header_hash
from network.protocol.errors import DecodeError
from network.protocol.proposal import encode_envelope
from network.protocol.validation_code import validation_code_name
from network.protocol.wire import parse, read_varint, scan_fields

_ENDLESS: Final = 2**64 - 1
_BYTES: Final = 2
_STATUS, _BLOCK_AND_PRIVATE_DATA = 1, 4
_FIELDS: Final = {"Deliver": 2, "DeliverFiltered": 3, "DeliverWithPrivateData": _BLOCK_AND_PRIVATE_DATA}
"""Which field of a response the blocks of a method are in."""
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


class Witness(NamedTuple):
    """What one peer says of a block. `flags`: a validation code per transaction; `commit_hash` None: it gives none."""

    number: int
    header_hash: bytes
    previous_hash: bytes
    flags: bytes
    commit_hash: bytes | None


class TransactionOutline(NamedTuple):
    """A transaction by id, verdict (name of its validation code) and the names of its events by chaincode."""

    tx_id: str
    code: str
    events: tuple[tuple[str, str], ...]


class BlockOutline(NamedTuple):
    """A block's transactions, valid or not, configurations too."""

    number: int
    transactions: tuple[TransactionOutline, ...]


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
        method = "DeliverWithPrivateData" if private_data else "Deliver"
        async with aclosing(self._received(method, start, stop, idle_seconds)) as received:
            async for block in received:
                yield block

    async def newest(self, *, idle_seconds: float | None = None) -> bytes:
        """Give the newest block the peer has, serialised; raises BlockStreamError's classes (`next_block` is -1)."""
        async with aclosing(self._received("Deliver", _FROM_NEWEST, Stop.NEWEST, idle_seconds)) as received:
            async for block in received:
                return block.content
        raise BlocksUnavailableError("the peer gave no newest block", _FROM_NEWEST)

    async def witnesses(
        self, start: int, *, stop: int | Stop = Stop.NEVER, idle_seconds: float | None = None
    ) -> AsyncGenerator[Witness, None]:
        """Give what the peer says of the blocks from `start` to `stop`, without their transactions: some 2 kB each.

        Peers of one channel that agree give equal witnesses. Nothing is verified: header hash and commit hash are the
        peer's word until they are compared. Raises as `blocks` does, and BlockStreamError for a block that is another
        than asked for or none.
        """
        async with aclosing(self._received("Deliver", start, stop, idle_seconds, header_only=True)) as received:
            async for block in received:
                yield _read_witness(block)

    async def outlines(
        self, start: int, *, stop: int | Stop = Stop.NEVER, idle_seconds: float | None = None
    ) -> AsyncGenerator[BlockOutline, None]:
        """Give the blocks from `start` to `stop` in outline: every transaction by id and verdict, events by name.

        It takes access to `event/FilteredBlock` alone. Nothing is verified. Raises as `witnesses` does. Of a block with
        a transaction that cannot be read, which any writer of the channel can make, no peer gives an outline: it ends
        in BlocksBadRequestError there. Read that block with `blocks`, and go on behind it.
        """
        async with aclosing(self._received("DeliverFiltered", start, stop, idle_seconds)) as received:
            async for block in received:
                yield _read_outline(block)

    async def _received(
        self,
        method: str,
        start: int,
        stop: int | Stop,
        idle_seconds: float | None,
        *,
        header_only: bool = False,
    ) -> AsyncGenerator[ReceivedBlock, None]:
        # No deserialiser: the bytes are taken as they came.
        deliver: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self.channel.grpc.stream_stream(
            f"/protos.Deliver/{method}"
        )
        call = deliver()
        number = start
        try:
            await call.write(self._request(start, stop, header_only=header_only))
            while True:
                try:
                    async with asyncio.timeout(idle_seconds):
                        content = await call.read()
                except TimeoutError:
                    raise BlocksStalledError(f"nothing came for {idle_seconds} seconds", number) from None
                if not isinstance(content, bytes):  # the end of the stream
                    raise BlocksUnavailableError("the stream ended", number)
                block = _read_response(content, number, _FIELDS[method])
                if block is None:
                    return
                yield block
                number += 1
        except grpc.aio.AioRpcError as error:
            raise BlocksUnavailableError(f"{error.code().name} {error.details()}", number) from error
        finally:
            call.cancel()

    def _request(self, start: int, stop: int | Stop, *, header_only: bool) -> bytes:
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
            data=ab_pb2.SeekInfo(
                start=first,
                stop=last,
                behavior=behavior,
                content_type=ab_pb2.SeekInfo.HEADER_WITH_SIG if header_only else ab_pb2.SeekInfo.BLOCK,
            ).SerializeToString(),
        ).SerializeToString()
        return encode_envelope(payload, self.identity.sign(payload))


def _read_response(content: bytes, number: int, wanted: int) -> ReceivedBlock | None:
    """Give the block of a DeliverResponse, None for the end; raises BlockStreamError."""
    try:
        answer = _read_field(content, number, wanted)
    except DecodeError as error:
        raise BlockStreamError(f"not a response with a block: {error}", number) from error
    if isinstance(answer, ReceivedBlock):
        return answer
    _check_end(answer, number)
    return None


def _read_field(content: bytes, number: int, wanted: int) -> ReceivedBlock | int:
    """Give the block, or the status that ends the stream; a response has one field."""
    fields = tuple(scan_fields(content))
    if len(fields) != 1:
        raise DecodeError(f"{len(fields)} fields")
    found = fields[0]
    if found.number == _STATUS and found.wire_type == 0:
        return read_varint(found.raw, 0)[0]
    if found.wire_type == _BYTES and found.number == wanted:
        if wanted == _BLOCK_AND_PRIVATE_DATA:
            return _read_block_and_private_data(found.content, number)
        return ReceivedBlock(number, found.content, {})
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


def _read_witness(received: ReceivedBlock) -> Witness:
    try:
        block = parse(common_pb2.Block, received.content, "Block")
        metadata = block.metadata.metadata
        kept = metadata[SLOT_COMMIT_HASH] if len(metadata) > SLOT_COMMIT_HASH else b""
        commit_hash = parse(common_pb2.Metadata, kept, "Metadata").value or None
    except DecodeError as error:
        raise BlockStreamError(f"not a block: {error}", received.number) from error
    header = BlockHeader(block.header.number, block.header.previous_hash, block.header.data_hash)
    _check_number(header.number, received.number)
    flags = metadata[SLOT_TRANSACTIONS_FILTER] if len(metadata) > SLOT_TRANSACTIONS_FILTER else b""
    return Witness(header.number, header_hash(header), header.previous_hash, flags, commit_hash)


def _read_outline(received: ReceivedBlock) -> BlockOutline:
    try:
        block = parse(events_pb2.FilteredBlock, received.content, "FilteredBlock")
    except DecodeError as error:
        raise BlockStreamError(f"not a block in outline: {error}", received.number) from error
    _check_number(block.number, received.number)
    return BlockOutline(
        block.number,
        tuple(
            [
                TransactionOutline(
                    transaction.txid,
                    validation_code_name(transaction.tx_validation_code),
                    tuple(
                        [
                            (action.chaincode_event.chaincode_id, action.chaincode_event.event_name)
                            for action in transaction.transaction_actions.chaincode_actions
                        ]
                    ),
                )
                for transaction in block.filtered_transactions
            ]
        ),
    )


def _check_number(number: int, wanted: int) -> None:
    if number != wanted:
        raise BlockStreamError(f"block {number} came in its place", wanted)
