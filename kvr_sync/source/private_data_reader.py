"""The private data of chosen blocks, read again from one peer: what it has by now."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing

from gateway.client.blocks import BlockStream
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.errors import BlocksNotFoundError, ClientError
from gateway.client.identity import SigningIdentity
from kvr_sync import errors
from kvr_sync.source.block_source import peek_block_number
from kvr_sync.source.peer_source import DEFAULT_PATIENCE, source_failure

TakeSets = Callable[[int, Mapping[int, bytes]], bool]
"""Takes a block's number and its private sets, serialised TxPvtReadWriteSet by number of transaction, as the peer holds
them now; says whether to go on."""


def read_private_sets(
    identity: SigningIdentity,
    endpoint: Endpoint,
    channel: str,
    numbers: Sequence[int],
    take: TakeSets,
    *,
    idle_seconds: float = DEFAULT_PATIENCE.idle_seconds,
) -> None:
    """Read blocks, given by growing numbers, with private data; those that the peer does not hold are passed over.

    One block is held at a time. Nothing is verified. Raises the errors of `PeerSource`, and those of `take`.
    """
    try:
        asyncio.run(_read(identity, endpoint, channel, numbers, take, idle_seconds))
    except (ClientError, errors.SourceError) as error:
        raise source_failure(endpoint, channel, error) from error


async def _read(
    identity: SigningIdentity,
    endpoint: Endpoint,
    channel_name: str,
    numbers: Sequence[int],
    take: TakeSets,
    idle_seconds: float,
) -> None:
    async with NodeChannel(endpoint) as channel:
        stream = BlockStream(identity, channel, channel_name)
        newest = peek_block_number(await stream.newest(idle_seconds=idle_seconds))
        if newest is None:
            message = f"{endpoint.address}: what it gives as its newest block is no block"
            raise errors.SourceUnavailableError(message)
        for first, last in _ranges(number for number in numbers if number <= newest):
            blocks = stream.blocks(first, stop=last, private_data=True, idle_seconds=idle_seconds)
            try:
                async with aclosing(blocks):
                    async for received in blocks:
                        if not take(received.number, received.private_data):
                            return
            except BlocksNotFoundError:
                continue  # a peer that began with a snapshot


def _ranges(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Join numbers that follow each other: each stream costs a round trip."""
    first = last = -1
    for number in numbers:
        if first >= 0 and number == last + 1:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last
