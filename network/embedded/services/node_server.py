"""The servers of the nodes: a port each, TLS on every one."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import grpc
from fabric_protos.gateway import gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2_grpc
from fabric_protos.peer import events_pb2_grpc, peer_pb2_grpc

from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.peer import Peer
from network.embedded.services.endorser import EndorserService
from network.embedded.services.gateway import GatewayService
from network.embedded.services.ordering import OrdererService
from network.embedded.services.peer_deliver import PeerDeliverService
from network.embedded.services.rpc import SERVER_OPTIONS
from network.errors import PortTakenError

STOP_SECONDS = 0.5


class ServerTls(NamedTuple):
    """Certificate and key of a node, PEM."""

    certificate: bytes
    key: bytes


async def serve_peer(
    address: str, tls: ServerTls, peer: Peer, ledger: EmbeddedLedger, chance: Random
) -> grpc.aio.Server:
    """Open a peer's port; raises PortTakenError."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    peer_pb2_grpc.add_EndorserServicer_to_server(EndorserService(peer), server)
    gateway_pb2_grpc.add_GatewayServicer_to_server(GatewayService(peer, ledger, chance), server)
    events_pb2_grpc.add_DeliverServicer_to_server(PeerDeliverService(peer, ledger.clock), server)
    await _start(server, address, tls, peer.node.name)
    return server


async def serve_orderer(address: str, tls: ServerTls, ledger: EmbeddedLedger, orderer: int) -> grpc.aio.Server:
    """Open the port of an orderer, by its position; raises PortTakenError."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    ab_pb2_grpc.add_AtomicBroadcastServicer_to_server(OrdererService(ledger, orderer), server)
    await _start(server, address, tls, ledger.orderers[orderer].name)
    return server


async def _start(server: grpc.aio.Server, address: str, tls: ServerTls, name: str) -> None:
    credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)])
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortTakenError(f"{address} of {name} is in use by another process") from error
    await server.start()


async def stop_servers(servers: Sequence[grpc.aio.Server]) -> None:
    """Close the ports; calls under way get a moment to end."""
    for server in servers:
        await server.stop(STOP_SECONDS)
