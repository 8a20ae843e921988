"""Blocks as a stream, the same way for peers and orderers: which blocks are asked for, who may have them, and when.

Rules: `common/deliver/{deliver,acl}.go`, `common/ledger/blockledger/fileledger/impl.go` (positions),
`core/peer/deliverevents.go` (what peers add). Several requests may follow each other on one stream; anything but
SUCCESS ends it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NamedTuple, Protocol

from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2

from network.errors import BlockNotHeldError, LedgerError
from network.protocol.errors import DecodeError
from network.protocol.policy import SignedData
from network.protocol.transaction import HEADER_CONFIG
from network.protocol.wire import parse

SUCCESS: Final = 200
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
SERVICE_UNAVAILABLE: Final = 503

TIME_WINDOW_SECONDS: Final = 15 * 60


class BlockChain(Protocol):
    """A channel's blocks as one node has them, and who may read them."""

    @property
    def height(self) -> int:
        """Number of the next block."""

    @property
    def config_sequence(self) -> int:
        """Grows with each configuration of the channel: who may read is asked again then."""

    def block(self, number: int) -> bytes:
        """Give a block below the height."""

    async def wait_for_height(self, above: int) -> None:
        """Return when the height is above the number, and all that the block brought is readable."""

    def may_read(self, signed: SignedData) -> bool:
        """Tell whether the signer is a reader of the channel now, and the signature good."""

    def has_expired(self, identity: bytes) -> bool:
        """Tell whether a serialised identity's certificate has expired."""

    @property
    def failed(self) -> asyncio.Event:
        """Set while the node cannot be sure of its blocks; who asked for the best effort gets them all the same."""


class Seek(NamedTuple):
    """A request that was read; `stop` None is a position that is never reached."""

    channel_id: str
    signed: SignedData
    info: Any


class DeliveredBlock(NamedTuple):
    """A block for the one who asked, without data when only its header and signatures were asked for."""

    seek: Seek
    number: int
    content: bytes
    header_only: bool


Answer = DeliveredBlock | int
"""A block, or the status that ends a request."""


async def answers(
    envelopes: AsyncIterator[common_pb2.Envelope],
    chain: Callable[[str], BlockChain | None],
    now: Callable[[], float],
    *,
    allows_header_only: bool = True,
) -> AsyncIterator[Answer]:
    """Answer the requests of one stream. `now` gives seconds since 1970; `chain` the blocks of a channel, if there."""
    async for envelope in envelopes:
        status = SERVICE_UNAVAILABLE
        async for answer in _answer(envelope, chain, now, allows_header_only=allows_header_only):
            yield answer
            if isinstance(answer, int):
                status = answer
        if status != SUCCESS:
            return


async def _answer(
    envelope: common_pb2.Envelope,
    chain_of: Callable[[str], BlockChain | None],
    now: Callable[[], float],
    *,
    allows_header_only: bool,
) -> AsyncIterator[Answer]:
    request = _request(envelope, chain_of, now(), allows_header_only=allows_header_only)
    if isinstance(request, int):
        yield request
        return
    chain, seek, number, stop = request
    sequence = chain.config_sequence
    while True:
        if seek.info.behavior == ab_pb2.SeekInfo.FAIL_IF_NOT_READY and number >= chain.height:
            yield NOT_FOUND
            return
        if not await _is_there(chain, seek, number):
            yield SERVICE_UNAVAILABLE
            return
        refused = chain.has_expired(seek.signed.identity)
        if chain.config_sequence > sequence:
            sequence = chain.config_sequence
            refused = refused or not chain.may_read(seek.signed)
        if refused:
            yield FORBIDDEN
            return
        try:
            content = chain.block(number)
        except BlockNotHeldError:  # as for a block above the height: nothing says which of the two it is
            yield NOT_FOUND
            return
        except LedgerError:
            yield SERVICE_UNAVAILABLE
            return
        header_only = seek.info.content_type == ab_pb2.SeekInfo.HEADER_WITH_SIG
        yield DeliveredBlock(seek, number, content, header_only)
        if number == stop:
            break
        number += 1
    yield SUCCESS


async def _is_there(chain: BlockChain, seek: Seek, number: int) -> bool:
    """Wait for a block; False when the node fails meanwhile, unless its best effort was asked for."""
    if _takes_best_effort(seek.info):
        await chain.wait_for_height(number)
        return True
    if chain.height > number:
        return not chain.failed.is_set()
    waits = [asyncio.create_task(chain.wait_for_height(number)), asyncio.create_task(chain.failed.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return not waits[1].done()
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _takes_best_effort(info: ab_pb2.SeekInfo) -> bool:
    return bool(info.error_response == ab_pb2.SeekInfo.BEST_EFFORT)


def _request(
    envelope: common_pb2.Envelope,
    chain_of: Callable[[str], BlockChain | None],
    now: float,
    *,
    allows_header_only: bool,
) -> tuple[BlockChain, Seek, int, int] | int:
    """Judge a request; give the chain, what is asked for, first and last block, or the status that refuses it."""
    try:
        channel_id, signed, content = _opened(envelope, now)
        chain = chain_of(channel_id)
        if chain is None:
            return NOT_FOUND
        info = parse(ab_pb2.SeekInfo, content, "SeekInfo")
    except DecodeError:
        return BAD_REQUEST
    if info.content_type == ab_pb2.SeekInfo.HEADER_WITH_SIG and not allows_header_only:
        return BAD_REQUEST  # a real peer looks as if it ended over this one
    if chain.failed.is_set() and not _takes_best_effort(info):
        return SERVICE_UNAVAILABLE
    if chain.has_expired(signed.identity) or not chain.may_read(signed):
        return FORBIDDEN
    bounds = _bounds(info, chain.height)
    return bounds if isinstance(bounds, int) else (chain, Seek(channel_id, signed, info), *bounds)


def _opened(envelope: common_pb2.Envelope, now: float) -> tuple[str, SignedData, bytes]:
    payload = parse(common_pb2.Payload, envelope.payload, "Payload")
    if not payload.HasField("header"):
        raise DecodeError("Payload: no header")
    header = parse(common_pb2.ChannelHeader, payload.header.channel_header, "ChannelHeader")
    signature_header = parse(common_pb2.SignatureHeader, payload.header.signature_header, "SignatureHeader")
    if not header.HasField("timestamp"):
        raise DecodeError("ChannelHeader: no timestamp")
    if abs(header.timestamp.seconds + header.timestamp.nanos / 1e9 - now) > TIME_WINDOW_SECONDS:
        raise DecodeError("ChannelHeader: timestamp more than 15 minutes off")
    return header.channel_id, SignedData(signature_header.creator, envelope.payload, envelope.signature), payload.data


def _bounds(info: ab_pb2.SeekInfo, height: int) -> tuple[int, int] | int:
    """Give first and last block, or the status that refuses the request."""
    if not info.HasField("start") or not info.HasField("stop"):
        return BAD_REQUEST
    start, stop = info.start.WhichOneof("Type"), info.stop.WhichOneof("Type")
    first = {
        "oldest": 0,
        "newest": height - 1,
        "specified": info.start.specified.number,
        "next_commit": height,
    }.get(start)
    if first is None or first > height:
        return NOT_FOUND  # also for those who would wait
    if stop == "oldest":
        return first, first
    if stop == "newest":
        return first, (first if start == "newest" else height - 1)
    if stop == "specified":
        last = info.stop.specified.number
        return BAD_REQUEST if last < first else (first, last)
    return first, 0  # reached by a request that starts there, and by no other


def block_content(answer: DeliveredBlock) -> common_pb2.Block:
    """Give the block to send; without data where its header was asked for, but a configuration keeps its own."""
    block = common_pb2.Block.FromString(answer.content)
    if answer.header_only and not _is_configuration(block):
        block.ClearField("data")
    return block


def _is_configuration(block: common_pb2.Block) -> bool:
    if len(block.data.data) != 1:
        return False
    try:
        payload = parse(common_pb2.Envelope, block.data.data[0], "Envelope").payload
        header = parse(common_pb2.Payload, payload, "Payload").header
        kind = parse(common_pb2.ChannelHeader, header.channel_header, "ChannelHeader").type
    except DecodeError:
        return False
    return bool(kind == HEADER_CONFIG)
