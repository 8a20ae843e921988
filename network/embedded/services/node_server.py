"""The servers of the nodes: a port each, TLS on every one. A node that is paused accepts calls and answers none."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple, TypeAlias

import grpc
from fabric_protos.gateway import gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2_grpc
from fabric_protos.peer import events_pb2_grpc, peer_pb2_grpc

from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.node_state import NodeState
from network.embedded.ledger.peer import Peer
from network.embedded.services.endorser import EndorserService
from network.embedded.services.gateway import GatewayService
from network.embedded.services.ordering import OrdererService
from network.embedded.services.peer_deliver import PeerDeliverService
from network.embedded.services.rpc import SERVER_OPTIONS
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
    server = _server(peer.state)
    peer_pb2_grpc.add_EndorserServicer_to_server(EndorserService(peer), server)
    gateway_pb2_grpc.add_GatewayServicer_to_server(GatewayService(peer, ledger, chance), server)
    events_pb2_grpc.add_DeliverServicer_to_server(PeerDeliverService(peer, ledger.clock), server)
    await _start(server, address, tls, peer.node.name)
    return server


async def serve_orderer(address: str, tls: ServerTls, ledger: EmbeddedLedger, orderer: int) -> grpc.aio.Server:
    """Open the port of an orderer, by its position; raises PortTakenError."""
    server = _server(ledger.orderers[orderer].state)
    ab_pb2_grpc.add_AtomicBroadcastServicer_to_server(OrdererService(ledger, orderer), server)
    await _start(server, address, tls, ledger.orderers[orderer].name)
    return server


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


def _server(state: NodeState) -> grpc.aio.Server:
    return grpc.aio.server(interceptors=[_Gate(state)], options=SERVER_OPTIONS)


async def _start(server: grpc.aio.Server, address: str, tls: ServerTls, name: str) -> None:
    credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)])
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortTakenError(f"{address} of {name} is in use by another process") from error
    await server.start()
