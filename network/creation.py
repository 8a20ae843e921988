"""What a network is made of before any node runs: ports, certificates, first blocks, profiles, chaincode packages.

The same for every kind of network. Each part is made once and kept; after an interruption the next call makes what is
missing.
"""

import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from network.credentials.credential_folder import CredentialFolder, create_credentials
from network.errors import RootError
from network.genesis import NONCE_BYTES, Endpoint, genesis_block
from network.protocol.package import build_service_package, package_id
from network.running.atomic_file import write_file
from network.running.plan import SERVICE, ServedChaincode, served_chaincodes, wanted_ports
from network.running.ports import LOOPBACK, choose_ports
from network.running.profile import connection_profile
from network.running.root import NetworkKind, NetworkRoot, NetworkState
from network.topology.definition import Channel, Topology
from network.topology.topology_file import read_topology

DIAL_TIMEOUT = "10s"


class BegunNetwork(NamedTuple):
    """A network that has its id, so that processes of it can be found, and its ports."""

    root: NetworkRoot
    topology: Topology
    state: NetworkState


class CreatedNetwork(NamedTuple):
    """A network's files."""

    root: NetworkRoot
    topology: Topology
    state: NetworkState
    credentials: CredentialFolder

    def address(self, node: str) -> str:
        """Give where a node, or a chaincode's process, serves."""
        return f"{LOOPBACK}:{self.state.ports[f'{node}/{SERVICE}']}"

    def genesis(self, channel: Channel) -> bytes:
        """Give the first block of a channel."""
        return self.root.genesis_block(channel.name).read_bytes()

    def package(self, served: ServedChaincode) -> bytes:
        """Give the package that an organisation's peers install to reach its chaincode process."""
        return _package_file(self.root, served).read_bytes()

    def package_id(self, served: ServedChaincode) -> str:
        """Give the id of that package."""
        return package_id(served.label, self.package(served))


def begin_network(root: NetworkRoot, topology_file: Path | None, kind: NetworkKind) -> BegunNetwork:
    """Give a network its id and its ports, or read what is there; its files are `complete_network`'s.

    A network is made of `topology_file`; one that is there has a copy of its own, and None means that one. Raises
    RootError when the root holds something else, TopologyError, PortTakenError.
    """
    state = root.state()
    if state is None:
        if topology_file is None:
            raise RootError(f"{root.path} holds no network; name a topology to make one")
        topology = read_topology(topology_file)
        state = root.create_state(kind, choose_ports(wanted_ports(topology, kind)))
        write_file(root.topology_file, topology_file.read_bytes())
    else:
        topology = _topology_of(root, topology_file)
        if state.kind is not kind:
            raise RootError(f"{root.path} holds an {state.kind.value} network; name another root, or destroy it first")
    return BegunNetwork(root, topology, state)


def complete_network(begun: BegunNetwork, *, now: datetime, randomness: Callable[[int], bytes]) -> CreatedNetwork:
    """Make the files of a network that are not there yet; `now` in UTC. Raises CredentialError."""
    root, topology, state = begun
    credentials = create_credentials(topology, root.credentials, start=now, randomness=randomness)
    network = CreatedNetwork(root, topology, state, credentials)
    for channel in topology.channels:
        _write_once(root.genesis_block(channel.name), partial(_genesis, network, channel, now, randomness))
    for organization in topology.organizations:
        _write_once(root.profile(organization.msp_id), partial(_profile, network, organization.msp_id))
    for served in served_chaincodes(topology):
        _write_once(_package_file(root, served), partial(_package, network, served), mode=0o600)
    return network


def read_network(root: NetworkRoot) -> CreatedNetwork:
    """Read the files of a network that was made here; raises RootError, TopologyError."""
    state = root.state()
    if state is None:
        raise RootError(f"{root.path} holds no network")
    return CreatedNetwork(root, read_topology(root.topology_file), state, CredentialFolder(root.credentials))


def destroy_files(root: NetworkRoot) -> None:
    """Remove everything of a network; raises RootError for a folder that holds none."""
    if root.state() is None:
        raise RootError(f"{root.path} holds no network")
    # Last of all what says that this is a network's folder: an interrupted command can be given again.
    for path in root.path.iterdir():
        if path not in (root.state_file, root.lock_file):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    root.state_file.unlink()


def _topology_of(root: NetworkRoot, topology_file: Path | None) -> Topology:
    if not root.topology_file.exists() and topology_file is not None:
        write_file(root.topology_file, topology_file.read_bytes())  # an interruption came before it
    topology = read_topology(root.topology_file)
    if topology_file is not None and topology_file.exists() and read_topology(topology_file) != topology:
        raise RootError(f"{root.path} holds the network of another topology than {topology_file}")
    return topology


def _write_once(path: Path, content: Callable[[], bytes], *, mode: int = 0o644) -> None:
    if not path.exists():
        write_file(path, content(), mode=mode)


def _endpoints(network: CreatedNetwork) -> Mapping[str, Endpoint]:
    return {
        node.name: Endpoint(LOOPBACK, network.state.ports[f"{node.name}/{SERVICE}"])
        for organization in network.topology.all_organizations
        for node in organization.nodes
    }


def _genesis(network: CreatedNetwork, channel: Channel, now: datetime, randomness: Callable[[int], bytes]) -> bytes:
    nonce = randomness(NONCE_BYTES)
    endpoints = _endpoints(network)
    return genesis_block(network.topology, channel, network.credentials, endpoints, nonce=nonce, timestamp=now)


def _profile(network: CreatedNetwork, msp_id: str) -> bytes:
    roots = {
        organization.msp_id: network.credentials.tls_ca_pem(organization.msp_id).decode()
        for organization in network.topology.all_organizations
    }
    return connection_profile(network.topology, msp_id, dict(network.state.ports), roots).encode()


def _package_file(root: NetworkRoot, served: ServedChaincode) -> Path:
    return root.packages / f"{served.name}-{served.chaincode.version}.tar.gz"


def _package(network: CreatedNetwork, served: ServedChaincode) -> bytes:
    """Build the package by which an organisation's peers reach its own process of a chaincode, with mutual TLS."""
    tls = network.credentials.chaincode_tls(served.organization.msp_id, served.chaincode.name)
    connection = {
        "address": network.address(served.name),
        "dial_timeout": DIAL_TIMEOUT,
        "tls_required": True,
        "client_auth_required": True,
        "root_cert": tls.client.ca_certificate.read_text(),
        "client_key": tls.client.key.read_text(),
        "client_cert": tls.client.certificate.read_text(),
    }
    return build_service_package(served.label, connection)
