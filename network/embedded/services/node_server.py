"""The servers of the nodes: a port each, TLS on every one. A node that is paused accepts calls and answers none."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, NamedTuple, TypeAlias

import grpc
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2, peer_pb2

from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.peer import Peer
from network.embedded.services.endorser import EndorserService
from network.embedded.services.gateway import GatewayService
from network.embedded.services.health import health_handler
from network.embedded.services.ordering import OrdererService
from network.embedded.services.peer_deliver import PeerDeliverService
from network.embedded.services.rpc import (
    DELIVER_REQUESTS,
    ENDORSER_REQUESTS,
    GATEWAY_REQUESTS,
    SERVER_OPTIONS,
    UnknownServices,
    service_handler,
)
from network.errors import PortTakenError

STOP_SECONDS = 0.5

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class ServerTls(NamedTuple):
    """Certificate and key of a node, PEM."""

    certificate: bytes
    key: bytes


async def serve_peer(
    address: str, tls: ServerTls, peer: Peer, ledger: EmbeddedLedger, chance: Random
) -> grpc.aio.Server:
    """Open a peer's port; raises PortTakenError."""
    endorser = peer_pb2.DESCRIPTOR.services_by_name["Endorser"]
    gateway = gateway_pb2.DESCRIPTOR.services_by_name["Gateway"]
    deliver = events_pb2.DESCRIPTOR.services_by_name["Deliver"]
    handlers = (
        service_handler(endorser, EndorserService(peer), ENDORSER_REQUESTS),
        service_handler(gateway, GatewayService(peer, ledger, chance), GATEWAY_REQUESTS),
        service_handler(deliver, PeerDeliverService(peer, ledger.clock), DELIVER_REQUESTS),
        UnknownServices((endorser, gateway, deliver)),
    )
    return await _start(handlers, peer.state, address, tls, peer.node.name)


async def serve_orderer(address: str, tls: ServerTls, ledger: EmbeddedLedger, orderer: int) -> grpc.aio.Server:
    """Open the port of an orderer, by its position; raises PortTakenError."""
    broadcast = ab_pb2.DESCRIPTOR.services_by_name["AtomicBroadcast"]
    handlers = (
        service_handler(broadcast, OrdererService(ledger, orderer)),
        health_handler(),
        UnknownServices((broadcast,)),
    )
    served = ledger.orderers[orderer]
    return await _start(handlers, served.state, address, tls, served.name)


class _Gate(grpc.aio.ServerInterceptor):
    """Holds every call until the node runs."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        await self._state.wait_until_running()
        return await continuation(handler_call_details)


async def _start(handlers: Sequence[Any], state: NodeState, address: str, tls: ServerTls, name: str) -> grpc.aio.Server:
    server = grpc.aio.server(handlers=handlers, interceptors=[_Gate(state)], options=SERVER_OPTIONS)
    credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)])
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortTakenError(f"{address} of {name} is in use by another process") from error
    await server.start()
    return server
