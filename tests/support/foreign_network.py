"""A network that Fabric's own programs make: certificates by cryptogen, the first block by configtxgen, joined by them.

Nothing of ours decides anything here but the ports and folders of its nodes; what users of existing networks have.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Final

import yaml

from network.native.configuration import NodeFiles, OrdererNode, PeerNode, orderer_configuration, peer_configuration
from network.running.ports import LOOPBACK, choose_ports
from network.running.process import ProcessTable
from tests.support import requirement
from tests.support.evidence import wait_until
from tests.support.live_network import NetworkName, programs

CHANNEL: Final = "othersway"
ORGANIZATIONS: Final = {"ServiceMSP": "service.example.com", "CustomerMSP": "customer.example.com"}
ORDERERS: Final = "orderer.example.com"
TOOLS: Final = ("cryptogen", "configtxgen", "osnadmin", "peer", "orderer")
_BUILDER: Final = Path(__file__).parents[2] / "network" / "native" / "builder"
_WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class ForeignNetwork:
    """One Raft orderer and two organisations with a peer each, on a channel `othersway`."""

    folder: Path
    tools: Path
    version: tuple[int, int, int]
    ports: dict[str, int]
    table: ProcessTable

    def organization(self, domain: str) -> Path:
        kind = "ordererOrganizations" if domain == ORDERERS else "peerOrganizations"
        return self.folder / "crypto" / kind / domain

    def node(self, domain: str) -> Path:
        kind, name = ("orderers", "orderer") if domain == ORDERERS else ("peers", "peer0")
        return self.organization(domain) / kind / f"{name}.{domain}"

    def user(self, domain: str, name: str) -> Path:
        return self.organization(domain) / "users" / f"{name}@{domain}"

    def address(self, use: str) -> str:
        return f"{LOOPBACK}:{self.ports[use]}"

    def profile(self, msp_id: str) -> Path:
        """Write a connection profile as operators write them: one organisation's own peer, certificates by path."""
        domain = ORGANIZATIONS[msp_id]
        file = self.folder / f"connection-{msp_id}.yaml"
        name = f"peer0.{domain}"
        document = {
            "name": "others-network",
            "version": "1.0.0",
            "client": {"organization": domain},
            "organizations": {domain: {"mspid": msp_id, "peers": [name]}},
            "peers": {
                name: {
                    "url": f"grpcs://{self.address(f'{msp_id}/service')}",
                    "tlsCACerts": {"path": str(self.node(domain) / "tls" / "ca.crt")},
                    "grpcOptions": {"ssl-target-name-override": name, "hostnameOverride": name},
                }
            },
        }
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self, tool: str, *arguments: str, **variables: str) -> str:
        """Run a program of Fabric's to its end and give what it printed."""
        done = subprocess.run(
            [str(self.tools / tool), *arguments],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "FABRIC_CFG_PATH": str(self.folder), **variables},
            capture_output=True,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{tool}: {done.stderr}"
        return done.stdout + done.stderr


@contextmanager
def foreign_network(folder: Path) -> Iterator[ForeignNetwork]:
    """Make the network in an empty folder, start it, and have every node join; it is ended afterwards."""
    binaries = programs(NetworkName.NATIVE)
    assert binaries is not None
    tools = binaries.peer.parent
    missing = [name for name in TOOLS if not (tools / name).exists()]
    if missing:
        requirement.missing("fabric", f"{tools} lacks {', '.join(missing)}")
    uses = ["orderer/service", "orderer/admin", "orderer/operations"]
    for msp_id in ORGANIZATIONS:
        uses += [f"{msp_id}/{use}" for use in ("service", "chaincode", "operations", "contract")]
    table = ProcessTable(folder / "processes", token_hex(8))
    network = ForeignNetwork(folder, tools, binaries.version, choose_ports(dict.fromkeys(uses, 0)), table)
    try:
        _make_files(network)
        _start_orderer(network)
        for msp_id, domain in ORGANIZATIONS.items():
            _start_peer(network, msp_id, domain)
        _join(network)
        yield network
    finally:
        table.end()


def _make_files(network: ForeignNetwork) -> None:
    hosts = ["localhost", LOOPBACK]
    crypto = {
        "OrdererOrgs": [
            {
                "Name": "Orderer",
                "Domain": ORDERERS,
                "EnableNodeOUs": True,
                "Specs": [{"Hostname": "orderer", "SANS": hosts}],
            }
        ],
        "PeerOrgs": [
            {
                "Name": msp_id.removesuffix("MSP"),
                "Domain": domain,
                "EnableNodeOUs": True,
                "Template": {"Count": 1, "SANS": hosts},
                "Users": {"Count": 1},
            }
            for msp_id, domain in ORGANIZATIONS.items()
        ],
    }
    (network.folder / "crypto.yaml").write_text(yaml.safe_dump(crypto), encoding="utf-8")
    network.run("cryptogen", "generate", "--config", "crypto.yaml", "--output", "crypto")
    (network.folder / "configtx.yaml").write_text(yaml.safe_dump(_channel(network)), encoding="utf-8")
    network.run("configtxgen", "-profile", "Others", "-channelID", CHANNEL, "-outputBlock", "others.block")


def _channel(network: ForeignNetwork) -> dict[str, object]:
    """Describe the channel as configtxgen reads it: Fabric's usual policies, which are not ours."""
    usual = {
        "Readers": _implicit("ANY Readers"),
        "Writers": _implicit("ANY Writers"),
        "Admins": _implicit("MAJORITY Admins"),
    }
    tls = network.node(ORDERERS) / "tls" / "server.crt"
    consenter = {
        "Host": LOOPBACK,
        "Port": network.ports["orderer/service"],
        "ClientTLSCert": str(tls),
        "ServerTLSCert": str(tls),
    }
    endpoints = [network.address("orderer/service")]
    orderers = _organization(network, "OrdererMSP", ORDERERS) | {"OrdererEndpoints": endpoints}
    return {
        "Profiles": {
            "Others": {
                "Capabilities": {"V3_0": True},
                "Policies": usual,
                "Orderer": {
                    "OrdererType": "etcdraft",
                    "BatchTimeout": "200ms",
                    "BatchSize": {"MaxMessageCount": 20, "AbsoluteMaxBytes": "10 MB", "PreferredMaxBytes": "2 MB"},
                    "EtcdRaft": {"Consenters": [consenter]},
                    "Organizations": [orderers],
                    "Capabilities": {"V2_0": True},
                    "Policies": usual | {"BlockValidation": _implicit("ANY Writers")},
                },
                "Application": {
                    "Organizations": [_organization(network, *entry) for entry in ORGANIZATIONS.items()],
                    "Capabilities": {"V2_5": True},
                    "Policies": usual
                    | {
                        "LifecycleEndorsement": _implicit("MAJORITY Endorsement"),
                        "Endorsement": _implicit("MAJORITY Endorsement"),
                    },
                },
            }
        }
    }


def _implicit(rule: str) -> dict[str, str]:
    return {"Type": "ImplicitMeta", "Rule": rule}


def _organization(network: ForeignNetwork, msp_id: str, domain: str) -> dict[str, object]:
    def signature(*roles: str) -> dict[str, str]:
        principals = ", ".join(f"'{msp_id}.{role}'" for role in roles)
        return {"Type": "Signature", "Rule": f"OR({principals})"}

    policies = {"Readers": signature("member"), "Writers": signature("member"), "Admins": signature("admin")}
    organization: dict[str, object] = {
        "Name": msp_id,
        "ID": msp_id,
        "MSPDir": str(network.organization(domain) / "msp"),
        "Policies": policies,
    }
    if domain != ORDERERS:
        policies["Endorsement"] = signature("peer")
        organization["AnchorPeers"] = [{"Host": LOOPBACK, "Port": network.ports[f"{msp_id}/service"]}]
    return organization


def _files(network: ForeignNetwork, domain: str) -> NodeFiles:
    node = network.node(domain)
    others = [
        network.node(other) / "tls" / "ca.crt" for other in (ORDERERS, *ORGANIZATIONS.values()) if other != domain
    ]
    tls = node / "tls"
    data = network.folder / "data" / domain
    data.mkdir(parents=True)
    return NodeFiles(node / "msp", tls / "server.crt", tls / "server.key", (tls / "ca.crt", *others), data)


def _start_orderer(network: ForeignNetwork) -> None:
    ports = network.ports
    node = OrdererNode(
        "orderer",
        "OrdererMSP",
        _files(network, ORDERERS),
        ports["orderer/service"],
        ports["orderer/admin"],
        ports["orderer/operations"],
    )
    folder = network.folder / "orderer"
    folder.mkdir()
    (folder / "orderer.yaml").write_text(orderer_configuration(node), encoding="utf-8")
    environment = {"FABRIC_CFG_PATH": str(folder)}
    network.table.start("orderer", [str(network.tools / "orderer")], environment=environment, folder=folder)


def _start_peer(network: ForeignNetwork, msp_id: str, domain: str) -> None:
    ports = network.ports
    address = network.address(f"{msp_id}/service")
    node = PeerNode(
        f"peer0.{domain}",
        msp_id,
        _files(network, domain),
        ports[f"{msp_id}/service"],
        ports[f"{msp_id}/chaincode"],
        ports[f"{msp_id}/operations"],
        address,
        _BUILDER,
        network.version,
    )
    folder = network.folder / msp_id
    folder.mkdir()
    (folder / "core.yaml").write_text(peer_configuration(node), encoding="utf-8")
    environment = {"FABRIC_CFG_PATH": str(folder)}
    network.table.start(msp_id, [str(network.tools / "peer"), "node", "start"], environment=environment, folder=folder)


def _join(network: ForeignNetwork) -> None:
    admin = network.user(ORDERERS, "Admin") / "tls"
    arguments = (
        *("channel", "join", "--channelID", CHANNEL, "--config-block", "others.block"),
        *("-o", network.address("orderer/admin"), "--ca-file", str(network.node(ORDERERS) / "tls" / "ca.crt")),
        *("--client-cert", str(admin / "client.crt"), "--client-key", str(admin / "client.key")),
    )
    wait_until(lambda: _answers(network, "osnadmin", *arguments), "the orderer has joined", seconds=_WAIT_SECONDS)
    for msp_id, domain in ORGANIZATIONS.items():
        admin = network.user(domain, "Admin") / "msp"
        variables = {"FABRIC_CFG_PATH": str(network.folder / msp_id), "CORE_PEER_MSPCONFIGPATH": str(admin)}
        join = partial(_answers, network, "peer", "channel", "join", "-b", "others.block", **variables)
        wait_until(join, f"the peer of {msp_id} has joined", seconds=_WAIT_SECONDS)


def _answers(network: ForeignNetwork, tool: str, *arguments: str, **variables: str) -> bool:
    try:
        said = network.run(tool, *arguments, **variables)
    except AssertionError:
        return False
    status = said.partition("Status: ")[2][:3]
    return not status or status == "201"
