"""The AtomicBroadcast service of an orderer: Broadcast and Deliver.

Rules: `orderer/common/broadcast/broadcast.go`, `orderer/common/server/server.go`.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2, ab_pb2_grpc

from network.embedded.ledger.admission import AdmissionError
from network.embedded.ledger.expiry import has_expired
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.ordering import OrderingService
from network.embedded.services.deliver import SUCCESS, answers, block_content
from network.protocol.errors import PolicyError
from network.protocol.policy import SignedData

READERS: Final = "/Channel/Readers"
_Context = grpc.aio.ServicerContext[Any, Any]


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


class OrdererService(ab_pb2_grpc.AtomicBroadcastServicer):  # type: ignore[misc]  # generated without types
    """What one orderer answers; `orderer` is its position among the orderers."""

    def __init__(self, ledger: EmbeddedLedger, orderer: int) -> None:
        self._ledger = ledger
        self._orderer = orderer

    async def Broadcast(  # noqa: N802  # the name on the wire
        self, request_iterator: AsyncIterator[common_pb2.Envelope], context: _Context
    ) -> AsyncIterator[ab_pb2.BroadcastResponse]:
        """Take envelopes until one is refused."""
        del context
        async for envelope in request_iterator:
            await self._ledger.orderers[self._orderer].state.wait_until_running()
            try:
                await self._ledger.broadcast(envelope, self._orderer)
            except AdmissionError as error:
                yield ab_pb2.BroadcastResponse(status=error.status, info=error.info)
                return
            yield ab_pb2.BroadcastResponse(status=SUCCESS)

    async def Deliver(  # noqa: N802  # the name on the wire
        self, request_iterator: AsyncIterator[common_pb2.Envelope], context: _Context
    ) -> AsyncIterator[ab_pb2.DeliverResponse]:
        """Give blocks."""
        del context
        async for answer in answers(request_iterator, self._chain, self._ledger.clock.now):
            if isinstance(answer, int):
                yield ab_pb2.DeliverResponse(status=answer)
            else:
                yield ab_pb2.DeliverResponse(block=block_content(answer))

    def _chain(self, channel_id: str) -> OrdererChain | None:
        service = self._ledger.channels.get(channel_id)
        return None if service is None else OrdererChain(self._ledger, service, self._orderer)
