"""The servers of the nodes: a port each, TLS on every one."""

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import grpc
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2, peer_pb2

from network.embedded.ledger.network import EmbeddedLedger
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
    return await _start(handlers, address, tls, peer.node.name)


async def serve_orderer(address: str, tls: ServerTls, ledger: EmbeddedLedger, orderer: int) -> grpc.aio.Server:
    """Open the port of an orderer, by its position; raises PortTakenError."""
    broadcast = ab_pb2.DESCRIPTOR.services_by_name["AtomicBroadcast"]
    handlers = (
        service_handler(broadcast, OrdererService(ledger, orderer)),
        health_handler(),
        UnknownServices((broadcast,)),
    )
    return await _start(handlers, address, tls, ledger.orderers[orderer].name)


async def _start(handlers: Sequence[Any], address: str, tls: ServerTls, name: str) -> grpc.aio.Server:
    server = grpc.aio.server(handlers=handlers, options=SERVER_OPTIONS)
    credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)])
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortTakenError(f"{address} of {name} is in use by another process") from error
    await server.start()
    return server


async def stop_servers(servers: Sequence[grpc.aio.Server]) -> None:
    """Close the ports; calls under way get a moment to end."""
    for server in servers:
        await server.stop(STOP_SECONDS)
