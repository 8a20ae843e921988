"""Starting the process of an embedded network."""

import sys

from network.creation import CreatedNetwork
from network.embedded.nodes import PROCESS_NAME, NodeEntry, write_nodes
from network.running.process import ProcessTable


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
        arguments = [sys.executable, "-P", "-m", "network.embedded.process", str(network.root.path)]
        table.start(PROCESS_NAME, arguments, environment={}, folder=network.root.path)
