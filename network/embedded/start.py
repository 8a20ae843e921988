"""Starting the process of an embedded network."""

import asyncio
from contextlib import suppress
from typing import Final

from network.creation import CreatedNetwork
from network.embedded.nodes import PROCESS_NAME, NodeEntry, write_nodes
from network.errors import ReadinessError
from network.running.process import ProcessTable

MODULE: Final = "network.embedded.process"
READY_SECONDS: Final = 45.0
POLL_SECONDS: Final = 0.01


def start_process(network: CreatedNetwork, table: ProcessTable) -> None:
    """Start the process unless it runs; raises ProcessStartError."""
    entries = []
    for organization in network.topology.all_organizations:
        channels = [
            channel.name
            for channel in network.topology.channels
            if organization.is_orderer or organization.msp_id in channel.members
        ]
        for node in organization.nodes:
            tls = network.credentials.node_tls(organization.msp_id, node.name)
            entries.append(
                NodeEntry(
                    node.name,
                    organization.msp_id,
                    network.address(node.name),
                    str(network.credentials.node_msp(organization.msp_id, node.name)),
                    str(tls.certificate),
                    str(tls.key),
                    channels,
                    organization.is_orderer,
                )
            )
    genesis = {channel.name: str(network.root.genesis_block(channel.name)) for channel in network.topology.channels}
    write_nodes(network.root.embedded, entries, genesis)
    if table.recorded(PROCESS_NAME) is None:
        table.start_python(PROCESS_NAME, f"{MODULE}:main", [str(network.root.path)], folder=network.root.path)


async def wait_for_ports(network: CreatedNetwork) -> None:
    """Return when every node listens; raises ReadinessError.

    A client that called earlier would wait longer: gRPC comes back to a refused connection after a tenth of a second.
    """
    nodes = [node.name for organization in network.topology.all_organizations for node in organization.nodes]
    try:
        async with asyncio.timeout(READY_SECONDS):
            for node in nodes:
                await _wait_for_port(network.address(node))
    except TimeoutError as error:
        raise ReadinessError(f"the nodes did not open their ports in {READY_SECONDS:.0f} s") from error


async def _wait_for_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            return
