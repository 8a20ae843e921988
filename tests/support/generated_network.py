"""A network made from a topology, as far as a channel's first block: credentials on disk, endpoints, the block."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes
from typing import Final

from network.credentials.credential_folder import CredentialFolder, create_credentials, msp_certificate
from network.genesis import NONCE_BYTES, Endpoint, genesis_block
from network.protocol.configuration import ChannelConfiguration, decode_config_envelope
from network.protocol.decode import decode_block
from network.protocol.identity import SerializedIdentity
from network.topology.definition import Topology
from network.topology.topology_file import read_topology, shipped_topology

START: Final = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
NONCE: Final = bytes(range(NONCE_BYTES))


@dataclass(frozen=True)
class GeneratedNetwork:
    """A topology with its credentials; node number n listens at port 7000 + n."""

    topology: Topology
    credentials: CredentialFolder

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """Where every node listens."""
        nodes = [node for organization in self.topology.all_organizations for node in organization.nodes]
        return {node.name: Endpoint("127.0.0.1", 7000 + number) for number, node in enumerate(nodes)}

    def genesis(self, channel: str = "consortium") -> bytes:
        """Give the first block of a channel."""
        return genesis_block(
            self.topology,
            self.topology.channel(channel),
            self.credentials,
            self.endpoints,
            nonce=NONCE,
            timestamp=START,
        )

    def configuration(self, channel: str = "consortium") -> ChannelConfiguration:
        """Give the configuration in the first block, read by the product."""
        (transaction,) = decode_block(self.genesis(channel)).transactions
        assert transaction.config is not None
        return decode_config_envelope(transaction.config)

    def node(self, msp_id: str, name: str) -> SerializedIdentity:
        """Give the identity of a peer or orderer."""
        return SerializedIdentity(msp_id, self.credentials.node_pem(msp_id, name))

    def user(self, msp_id: str, name: str) -> SerializedIdentity:
        """Give the identity of a user."""
        return SerializedIdentity(msp_id, msp_certificate(self.credentials.user_msp(msp_id, name)).read_bytes())


def generate_network(topology: Topology, folder: Path) -> GeneratedNetwork:
    """Make the credentials of a topology in a folder that does not exist yet."""
    return GeneratedNetwork(topology, create_credentials(topology, folder, start=START, randomness=token_bytes))


def bft_topology(folder: Path) -> Topology:
    """Give the shipped consortium with four BFT orderers in two organisations."""
    raft = re.sub(r"raft_tick: .*\n", "", shipped_topology("dev").read_text())
    second = """\
  - msp_id: SecondOrdererMSP
    domain: orderer.second.test
    orderers: [{name: orderer3}]
    users: [{name: admin, role: admin}]
"""
    text = raft.replace("consensus: raft", "consensus: bft").replace("      BlockValidation: ANY Writers\n", "")
    file = folder / "bft.yaml"
    file.write_text(text.replace("\n# Every department", f"{second}\n# Every department"))
    return read_topology(file)
