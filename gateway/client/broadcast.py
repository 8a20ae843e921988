"""Handing envelopes to an orderer directly (`orderer/ab.proto`): for administration, and peers without a gateway."""

from typing import Final

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2_grpc

from gateway.client.channel import NodeChannel
from gateway.client.errors import BroadcastError

BROADCAST_SECONDS: Final = 30.0


async def broadcast(channel: NodeChannel, envelope: bytes, *, seconds: float = BROADCAST_SECONDS) -> None:
    """Send one signed envelope to one orderer and wait until it is accepted for ordering, which is not yet committed.

    Raises BroadcastError: "not_applied" when this orderer refused it, "unknown" when no answer came.
    """
    message = common_pb2.Envelope.FromString(envelope)
    call = ab_pb2_grpc.AtomicBroadcastStub(channel.grpc).Broadcast(timeout=seconds)
    try:
        await call.write(message)
        response = await call.read()
    except grpc.aio.AioRpcError as error:
        raise BroadcastError(
            channel.address, "", f"{error.code().name} {error.details()}", outcome="unknown"
        ) from error
    finally:
        call.cancel()
    if response is grpc.aio.EOF:
        raise BroadcastError(channel.address, "", "the stream ended without an answer", outcome="unknown")
    if response.status != common_pb2.SUCCESS:
        name = common_pb2.Status.Name(response.status) if response.status in common_pb2.Status.values() else ""
        raise BroadcastError(channel.address, name or str(response.status), response.info, outcome="not_applied")
