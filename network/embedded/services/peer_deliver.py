"""The Deliver service of a peer: blocks, blocks in outline, and blocks with the private data that the peer holds.

Rules: `core/peer/deliverevents.go`.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import events_pb2

from network.embedded.ledger.access_control import AccessError, check_access
from network.embedded.ledger.clock import Clock
from network.embedded.ledger.expiry import has_expired
from network.embedded.ledger.peer import Peer
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.services.deliver import BAD_REQUEST, DeliveredBlock, answers, block_content
from network.embedded.services.filtered_block import filtered_block
from network.embedded.services.rpc import RpcError
from network.protocol.collection import is_member
from network.protocol.errors import DecodeError, IdentityError
from network.protocol.identity import decode_serialized_identity
from network.protocol.policy import SignedData

EVENT_BLOCK = "event/Block"
EVENT_FILTERED_BLOCK = "event/FilteredBlock"


class PeerChain:
    """The blocks of one channel at one peer, for those who have access to a resource."""

    def __init__(self, channel: PeerChannel, clock: Clock, resource: str) -> None:
        self._channel = channel
        self._clock = clock
        self._resource = resource
        self.failed = asyncio.Event()  # peers serve what they have, whatever their orderers do

    @property
    def height(self) -> int:
        """Number of the next block."""
        return self._channel.height

    @property
    def config_sequence(self) -> int:
        """Grows with each configuration."""
        return self._channel.rules.configuration.sequence

    def block(self, number: int) -> bytes:
        """Give a block with the peer's flags and commit hash."""
        return self._channel.files.content(number)

    async def wait_for_height(self, above: int) -> None:
        """Return when the height is above the number."""
        await self._channel.wait_for_height(above)

    def may_read(self, signed: SignedData) -> bool:
        """Tell whether the signer may have blocks."""
        try:
            check_access(self._resource, signed, self._channel.rules)
        except AccessError:
            return False
        return True

    def has_expired(self, identity: bytes) -> bool:
        """Tell whether an identity's certificate has expired."""
        return has_expired(identity, self._clock.now())


class PeerDeliverService:
    """Gives blocks of the channels that a peer joined."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock

    async def Deliver(  # noqa: N802  # the name on the wire
        self, requests: AsyncIterator[common_pb2.Envelope]
    ) -> AsyncIterator[events_pb2.DeliverResponse]:
        """Give blocks."""
        async for answer in answers(requests, partial(self._chain, EVENT_BLOCK), self._clock.now):
            if isinstance(answer, int):
                yield events_pb2.DeliverResponse(status=answer)
            else:
                yield events_pb2.DeliverResponse(block=block_content(answer))

    async def DeliverFiltered(  # noqa: N802  # the name on the wire
        self, requests: AsyncIterator[common_pb2.Envelope]
    ) -> AsyncIterator[events_pb2.DeliverResponse]:
        """Give blocks in outline."""
        chain = partial(self._chain, EVENT_FILTERED_BLOCK)
        async for answer in answers(requests, chain, self._clock.now, allows_header_only=False):
            if isinstance(answer, int):
                yield events_pb2.DeliverResponse(status=answer)
                continue
            try:
                outline = filtered_block(common_pb2.Block.FromString(answer.content))
            except DecodeError:
                yield events_pb2.DeliverResponse(status=BAD_REQUEST)  # and on with the next block, as a real peer
            else:
                yield events_pb2.DeliverResponse(filtered_block=outline)

    async def DeliverWithPrivateData(  # noqa: N802  # the name on the wire
        self, requests: AsyncIterator[common_pb2.Envelope]
    ) -> AsyncIterator[events_pb2.DeliverResponse]:
        """Give blocks with the private data that the peer holds and the caller may see."""
        async for answer in answers(requests, partial(self._chain, EVENT_BLOCK), self._clock.now):
            if isinstance(answer, int):
                yield events_pb2.DeliverResponse(status=answer)
                continue
            yield events_pb2.DeliverResponse(
                block_and_private_data=events_pb2.BlockAndPrivateData(
                    block=block_content(answer), private_data_map=self._private_data(answer)
                )
            )

    def _chain(self, resource: str, channel_id: str) -> PeerChain | None:
        channel = self._peer.channels.get(channel_id)
        return None if channel is None else PeerChain(channel, self._clock, resource)

    def _private_data(self, answer: DeliveredBlock) -> dict[int, rwset_pb2.TxPvtReadWriteSet]:
        channel = self._peer.channels[answer.seek.channel_id]
        found: dict[int, rwset_pb2.TxPvtReadWriteSet] = {}
        for writes in channel.private_writes(answer.number):
            config = channel.collection(writes.namespace, writes.collection, answer.number)
            if config is None:
                words = f"no collection config was found for collection {writes.collection} for chaincode"
                raise RpcError(grpc.StatusCode.UNKNOWN, f"{words} {writes.namespace}")
            if config.member_only_read:
                try:
                    creator = channel.rules.msps.identity(decode_serialized_identity(answer.seek.signed.identity))
                except (DecodeError, IdentityError):
                    continue
                if not is_member(config, creator, channel.rules.msps):
                    continue
            message = found.setdefault(writes.tx_number, rwset_pb2.TxPvtReadWriteSet())
            namespace = next((it for it in message.ns_pvt_rwset if it.namespace == writes.namespace), None)
            if namespace is None:
                namespace = message.ns_pvt_rwset.add(namespace=writes.namespace)
            namespace.collection_pvt_rwset.add(collection_name=writes.collection, rwset=writes.content)
        return found
