"""The events of a chaincode from a Gateway service, in order, from a position on (`gateway/gateway.proto`).

A peer's own way to go on behind a transaction (`after_transaction_id`) is silent for ever when that transaction set no
event or was invalid (`internal/pkg/gateway/chaincodeevents.go`). So the block of the position is asked for again, and
what was given before is left out here; a position that names no event is an error.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2

from gateway.client.errors import (
    EventCheckpointError,
    EventPosition,
    EventsForbiddenError,
    EventsStalledError,
    EventStreamError,
    EventsUnavailableError,
    EventsUnreadableError,
)

if TYPE_CHECKING:
    from gateway.client.gateway import Gateway

_ERRORS: Final[dict[str, type[EventStreamError]]] = {
    "PERMISSION_DENIED": EventsForbiddenError,
    "ABORTED": EventsUnreadableError,
    "INVALID_ARGUMENT": EventStreamError,
    "UNIMPLEMENTED": EventStreamError,
}


class Event(NamedTuple):
    """An event of a valid transaction, as the peer tells it: nothing here is verified. Its payload is in no repr."""

    block_number: int
    tx_id: str
    name: str
    payload: bytes

    @property
    def position(self) -> EventPosition:
        """Where to go on when this event is dealt with; to be kept together with what it led to."""
        return EventPosition(self.block_number, self.tx_id)

    def __repr__(self) -> str:
        """Name it without content."""
        return f"Event({self.name!r} of {self.tx_id} in block {self.block_number})"


@dataclass(frozen=True, slots=True)
class EventStream:
    """The events of one chaincode on one channel, as one identity sees them."""

    gateway: "Gateway"
    channel_name: str
    chaincode: str

    async def events(
        self, start: EventPosition | int, *, idle_seconds: float | None = None
    ) -> AsyncGenerator[Event, None]:
        """Give the events from a position, or from a block, on; it ends by an error or by being closed.

        Exactly those behind the position come, each once: those of later blocks, and those of its own block that
        follow its transaction's. A block that does not exist yet is waited for; for the events of what is committed
        from now on, start at `Network.height()`. `idle_seconds`: the longest time between two blocks with events.

        Raises EventStreamError's classes with the position to go on from.
        """
        position = EventPosition(start) if isinstance(start, int) else start
        call = self.gateway.service.ChaincodeEvents(self._request(position.block_number))
        skips = bool(position.tx_id)
        first = position.block_number
        try:
            while True:
                response = await _read(call, position, idle_seconds)
                self._check(response, first, position)
                first = response.block_number + 1
                events = list(response.events)
                if skips:
                    events, skips = _behind(position, response.block_number, events), False
                for event in events:
                    found = Event(response.block_number, event.tx_id, event.event_name, event.payload)
                    position = found.position
                    yield found
        except grpc.aio.AioRpcError as error:
            kind = _ERRORS.get(error.code().name, EventsUnavailableError)
            raise kind(error.code().name, position, error.code().name, error.details() or "") from error
        finally:
            call.cancel()

    def _request(self, block_number: int) -> gateway_pb2.SignedChaincodeEventsRequest:
        identity = self.gateway.identity
        content = gateway_pb2.ChaincodeEventsRequest(
            channel_id=self.channel_name,
            chaincode_id=self.chaincode,
            identity=identity.creator,
            start_position=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=block_number)),
        ).SerializeToString()
        return gateway_pb2.SignedChaincodeEventsRequest(request=content, signature=identity.sign(content))

    def _check(self, response: gateway_pb2.ChaincodeEventsResponse, first: int, position: EventPosition) -> None:
        """Refuse blocks out of order and events of others."""
        if response.block_number < first:
            raise EventStreamError(f"block {response.block_number} came after the one before {first}", position)
        if any(event.chaincode_id != self.chaincode for event in response.events):
            raise EventStreamError(f"events of another chaincode in block {response.block_number}", position)


async def _read(
    call: "grpc.aio.UnaryStreamCall[gateway_pb2.SignedChaincodeEventsRequest, gateway_pb2.ChaincodeEventsResponse]",
    position: EventPosition,
    idle_seconds: float | None,
) -> gateway_pb2.ChaincodeEventsResponse:
    try:
        async with asyncio.timeout(idle_seconds):
            response = await call.read()
    except TimeoutError:
        raise EventsStalledError(f"nothing came for {idle_seconds} seconds", position) from None
    if response is grpc.aio.EOF:
        raise EventsUnavailableError("the stream ended", position)
    return response


def _behind(position: EventPosition, block_number: int, events: list[Any]) -> list[Any]:
    """Give the events of the position's own block that follow the one of its transaction."""
    places = [place for place, event in enumerate(events) if event.tx_id == position.tx_id]
    if block_number != position.block_number or not places:
        raise EventCheckpointError("no event of this chaincode is there", position)
    return events[places[-1] + 1 :]
