"""The smallest network there can be, for tests that stop and break networks: each test has one of its own."""

import asyncio
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork, read_network
from network.running.process import MARK
from network.running.root import NetworkRoot
from tests.support.command import kvr
from tests.support.live_network import CHANNEL, START_SECONDS, NetworkName, programs

TOPOLOGY = """\
name: small
consensus: raft
batch: {timeout: 100ms}
orderer_organizations:
  - msp_id: OrdererMSP
    domain: orderer.small.test
    orderers: [{name: orderer0}]
    users: [{name: admin, role: admin}]
organizations:
  - msp_id: ServiceMSP
    domain: one.small.test
    peers: [{name: peer0.one}]
    users: [{name: admin, role: admin}, {name: agent, role: client, attributes: {role: agent}}]
channels:
  - name: consortium
    members: [ServiceMSP]
    chaincodes:
      - name: service
        version: "1.0"
        sequence: 1
        served_by: chaincode.service:contract
        endorsement: OR('ServiceMSP.peer')
"""
EMBEDDED_PROCESSES = {"embedded", "service.ServiceMSP"}
NATIVE_PROCESSES = {"orderer0", "peer0.one", "service.ServiceMSP"}


@dataclass(frozen=True)
class SmallNetwork:
    """A network of one organisation with one peer and one orderer, running or not."""

    name: NetworkName
    folder: Path

    @property
    def root(self) -> NetworkRoot:
        return NetworkRoot(self.folder / "network")

    @property
    def topology(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def up_arguments(self) -> list[str]:
        flags = ["--native"] if self.is_native else []
        return ["network", "up", "--root", str(self.root.path), "--topology", str(self.topology), *flags]

    @property
    def is_native(self) -> bool:
        return self.name is not NetworkName.EMBEDDED

    @property
    def variables(self) -> dict[str, str]:
        binaries = programs(self.name)
        return {} if binaries is None else {"KVR_FABRIC_BIN": str(binaries.peer.parent)}

    @property
    def process_names(self) -> set[str]:
        return NATIVE_PROCESSES if self.is_native else EMBEDDED_PROCESSES

    def up(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return kvr(*self.up_arguments, seconds=START_SECONDS, **{**self.variables, **variables})

    def kvr(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return kvr("network", verb, "--root", str(self.root.path), *arguments)

    def status(self) -> dict[str, object]:
        facts: dict[str, object] = json.loads(self.kvr("status", "--json").stdout)
        return facts

    def processes(self) -> dict[str, psutil.Process]:
        """Find the network's processes by what they carry, whoever started them."""
        found = {}
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(MARK, "")
                if str(self.folder) in " ".join([process.cwd(), *process.cmdline()]) and mark:
                    found[mark.partition("/")[2]] = process
            except psutil.Error:
                continue
        return found

    @property
    def created(self) -> CreatedNetwork:
        return read_network(self.root)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.created.address("peer0.one"), self.created.credentials.tls_ca_pem("ServiceMSP"))

    def identity(self, user: str) -> SigningIdentity:
        return SigningIdentity.from_msp_folder("ServiceMSP", self.created.credentials.user_msp("ServiceMSP", user))

    def height(self) -> int:
        """Ask the peer how many blocks it has."""

        async def asked() -> int:
            async with NodeChannel(self.endpoint) as channel:
                return await Endorser(self.identity("admin"), channel).height(CHANNEL)

        return asyncio.run(asked())
