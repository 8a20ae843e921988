"""An organisation that no topology of a network knows: its credentials, and on native networks a peer of its own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes
from typing import Final

import yaml

from gateway.client.channel import Endpoint
from gateway.client.identity import SigningIdentity
from network.credentials.credential_folder import CredentialFolder, create_credentials
from network.native.binary import Binaries
from network.native.configuration import NodeFiles, PeerNode, peer_configuration
from network.protocol.package import build_service_package, package_id
from network.running.ports import LOOPBACK, choose_ports
from network.running.process import ProcessTable
from network.topology.definition import Topology
from network.topology.topology_file import read_topology, shipped_topology
from tests.support.live_network import LiveNetwork

GUEST: Final = "GuestMSP"
PEER: Final = "peer0.guest"
CHAINCODE: Final = "probe.guest"
_ENTRY: Final = "from chaincode.main import chaincode; chaincode()"


@dataclass(frozen=True)
class Guest:
    """The organisation: what it keeps under `folder`, and where its peer serves if it has one."""

    folder: Path
    credentials: CredentialFolder
    ports: dict[str, int]

    @property
    def admin_msp(self) -> Path:
        return self.credentials.user_msp(GUEST, "admin")

    @property
    def profile(self) -> Path:
        return self.folder / "profile.yaml"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"{LOOPBACK}:{self.ports['peer']}", self.credentials.tls_ca_pem(GUEST))

    def identity(self, user: str) -> SigningIdentity:
        return SigningIdentity.from_msp_folder(GUEST, self.credentials.user_msp(GUEST, user))

    def package(self, version: str) -> bytes:
        """Build the package by which its peer reaches its own process of the chaincode `probe`."""
        tls = self.credentials.chaincode_tls(GUEST, "service")
        connection = {
            "address": f"{LOOPBACK}:{self.ports['chaincode process']}",
            "dial_timeout": "10s",
            "tls_required": True,
            "client_auth_required": True,
            "root_cert": tls.client.ca_certificate.read_text(),
            "client_key": tls.client.key.read_text(),
            "client_cert": tls.client.certificate.read_text(),
        }
        return build_service_package(f"probe_{version}", connection)


def make_guest(folder: Path) -> Guest:
    """Make the organisation's credentials: those of a shipped topology with another name."""
    folder.mkdir()
    file = folder / "topology.yaml"
    text = shipped_topology("dev").read_text(encoding="utf-8")
    file.write_text(
        text.replace("FieldMSP", GUEST).replace("field.kvr.test", "guest.kvr.test").replace("peer0.field", PEER),
        encoding="utf-8",
    )
    topology: Topology = read_topology(file)
    credentials = create_credentials(
        topology,
        folder / "credentials",
        start=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        randomness=token_bytes,
    )
    uses = ("peer", "chaincode", "operations", "chaincode process")
    return Guest(folder, credentials, choose_ports(dict.fromkeys(uses, 0)))


@contextmanager
def guest_peer(guest: Guest, network: LiveNetwork, binaries: Binaries) -> Iterator[ProcessTable]:
    """Run a real peer of the organisation, with a profile that names it; it is ended afterwards."""
    tls = guest.credentials.node_tls(GUEST, PEER)
    others = [
        network.created.credentials.tls_ca_certificate(organization.msp_id)
        for organization in network.created.topology.all_organizations
    ]
    folder = guest.folder / PEER
    data = folder / "data"
    data.mkdir(parents=True)
    files = NodeFiles(
        guest.credentials.node_msp(GUEST, PEER), tls.certificate, tls.key, (tls.ca_certificate, *others), data
    )
    ports = guest.ports
    node = PeerNode(
        PEER,
        GUEST,
        files,
        ports["peer"],
        ports["chaincode"],
        ports["operations"],
        f"{LOOPBACK}:{ports['peer']}",
        network.root.builder,
        binaries.version,
    )
    (folder / "core.yaml").write_text(peer_configuration(node), encoding="utf-8")
    _write_profile(guest, network)
    table = ProcessTable(guest.folder / "processes", token_bytes(8).hex())
    try:
        environment = {"FABRIC_CFG_PATH": str(folder)}
        table.start(PEER, [str(binaries.peer), "node", "start"], environment=environment, folder=folder)
        yield table
    finally:
        table.end()


def start_guest_chaincode(guest: Guest, network: LiveNetwork, table: ProcessTable, version: str) -> str:
    """Serve the chaincode `probe` for the organisation's peer; gives the package id."""
    tls = guest.credentials.chaincode_tls(GUEST, "service")
    found = package_id(f"probe_{version}", guest.package(version))
    arguments = [
        *(sys.executable, "-P", "-c", _ENTRY, "serve", "probe_contract:contract"),
        *("--address", f"{LOOPBACK}:{guest.ports['chaincode process']}", "--package-id", found, "--msp-id", GUEST),
        *("--tls-cert", str(tls.server.certificate), "--tls-key", str(tls.server.key)),
        *("--client-ca", str(tls.server.ca_certificate)),
    ]
    environment = {
        "PYTHONPATH": str(Path(__file__).parent / "contracts"),
        "KVR_TEST_PROBE_FOLDER": str(network.folder / "probe"),
        "PATH": os.environ["PATH"],
    }
    table.start(CHAINCODE, arguments, environment=environment, folder=guest.folder)
    return found


def _write_profile(guest: Guest, network: LiveNetwork) -> None:
    """Write a profile that names its own peer first, and the network's orderers."""
    known = yaml.safe_load(network.root.profile("ServiceMSP").read_text(encoding="utf-8"))
    pem = guest.credentials.tls_ca_pem(GUEST).decode()
    known["client"]["organization"] = GUEST
    known["organizations"][GUEST] = {"mspid": GUEST, "peers": [PEER]}
    known["peers"][PEER] = {"url": f"grpcs://{LOOPBACK}:{guest.ports['peer']}", "tlsCACerts": {"pem": pem}}
    guest.profile.write_text(yaml.safe_dump(known), encoding="utf-8")
