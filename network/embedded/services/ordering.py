"""The services of an orderer: AtomicBroadcast with Broadcast and Deliver, and gRPC's health.

Rules: `orderer/common/broadcast/broadcast.go`, `orderer/common/server/server.go`, `internal/pkg/comm/server.go`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2

from network.embedded.ledger.admission import AdmissionError
from network.embedded.ledger.expiry import has_expired
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.ordering import OrderingService
from network.embedded.services.deliver import SUCCESS, answers, block_content
from network.protocol.errors import PolicyError
from network.protocol.policy import SignedData

READERS: Final = "/Channel/Readers"


class OrdererChain:
    """The blocks of one orderer on one channel."""

    def __init__(self, ledger: EmbeddedLedger, service: OrderingService, orderer: int) -> None:
        self._ledger = ledger
        self._service = service
        self._orderer = orderer

    @property
    def height(self) -> int:
        """Number of the next block."""
        return self._service.height_at(self._orderer)

    @property
    def config_sequence(self) -> int:
        """Grows with each configuration."""
        return self._service.config_sequence

    def block(self, number: int) -> bytes:
        """Give a block as this orderer signed it."""
        return bytes(self._service.block(self._orderer, number).SerializeToString())

    async def wait_for_height(self, above: int) -> None:
        """Return when the height is above the number."""
        await self._service.wait_for_height(above, self._orderer)

    def may_read(self, signed: SignedData) -> bool:
        """Tell whether the signer is a reader of the channel."""
        try:
            self._service.rules.trust.policies.evaluate_signed_data(READERS, (signed,))
        except PolicyError:
            return False
        return True

    def has_expired(self, identity: bytes) -> bool:
        """Tell whether an identity's certificate has expired."""
        return has_expired(identity, self._ledger.clock.now())

    @property
    def failed(self) -> asyncio.Event:
        """Set while the orderer knows no leader."""
        return self._ledger.orderers[self._orderer].lost_leader


class OrdererService:
    """What one orderer answers; `orderer` is its position among the orderers."""

    def __init__(self, ledger: EmbeddedLedger, orderer: int) -> None:
        self._ledger = ledger
        self._orderer = orderer

    async def Broadcast(  # noqa: N802  # the name on the wire
        self, requests: AsyncIterator[common_pb2.Envelope]
    ) -> AsyncIterator[ab_pb2.BroadcastResponse]:
        """Take envelopes until one is refused."""
        async for envelope in requests:
            await self._ledger.orderers[self._orderer].state.wait_until_running()
            try:
                await self._ledger.broadcast(envelope, self._orderer)
            except AdmissionError as error:
                yield ab_pb2.BroadcastResponse(status=error.status, info=error.info)
                return
            yield ab_pb2.BroadcastResponse(status=SUCCESS)

    async def Deliver(  # noqa: N802  # the name on the wire
        self, requests: AsyncIterator[common_pb2.Envelope]
    ) -> AsyncIterator[ab_pb2.DeliverResponse]:
        """Give blocks."""
        async for answer in answers(requests, self._chain, self._ledger.clock.now):
            if isinstance(answer, int):
                yield ab_pb2.DeliverResponse(status=answer)
            else:
                yield ab_pb2.DeliverResponse(block=block_content(answer))

    def _chain(self, channel_id: str) -> OrdererChain | None:
        service = self._ledger.channels.get(channel_id)
        return None if service is None else OrdererChain(self._ledger, service, self._orderer)
