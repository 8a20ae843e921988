"""Which ports a network uses, and what is opened at them: pure, from the topology."""

from collections.abc import Iterator
from typing import NamedTuple

from network.running.root import NetworkKind
from network.topology.definition import Chaincode, Channel, Organization, Topology

SERVICE = "service"
CHAINCODE = "chaincode"
OPERATIONS = "operations"
ADMIN = "admin"


class ServedChaincode(NamedTuple):
    """A chaincode process: one for each chaincode and each member organisation with peers."""

    channel: Channel
    chaincode: Chaincode
    organization: Organization

    @property
    def name(self) -> str:
        """The process's name in the network."""
        return f"{self.chaincode.name}.{self.organization.msp_id}"

    @property
    def label(self) -> str:
        """The label of its package."""
        return f"{self.chaincode.name}_{self.chaincode.version}"


def served_chaincodes(topology: Topology) -> list[ServedChaincode]:
    """Give every chaincode process of a network."""
    return [
        ServedChaincode(channel, chaincode, topology.organization(msp_id))
        for channel in topology.channels
        for chaincode in channel.chaincodes
        for msp_id in channel.members
        if topology.organization(msp_id).nodes
    ]


def wanted_ports(topology: Topology, kind: NetworkKind) -> dict[str, int]:
    """Give the ports of a network by `<node>/<use>`; 0 where the topology leaves the choice."""
    return dict(_wanted(topology, kind))


def _wanted(topology: Topology, kind: NetworkKind) -> Iterator[tuple[str, int]]:
    for organization in topology.all_organizations:
        for node in organization.nodes:
            yield f"{node.name}/{SERVICE}", node.port
            if kind is NetworkKind.NATIVE:
                yield f"{node.name}/{OPERATIONS}", 0
                yield f"{node.name}/{ADMIN if organization.is_orderer else CHAINCODE}", 0
    for served in served_chaincodes(topology):
        yield f"{served.name}/{SERVICE}", 0
