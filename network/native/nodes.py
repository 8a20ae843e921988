"""Real nodes of a network: their configuration written, their processes started, their channels joined."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.errors import ClientError, EndorserError
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork
from network.errors import ReadinessError
from network.native.binary import Binaries
from network.native.channel_participation import ClientCredential, join_orderer
from network.native.configuration import (
    NodeFiles,
    OrdererNode,
    PeerNode,
    orderer_configuration,
    peer_configuration,
)
from network.running.atomic_file import write_file
from network.running.plan import ADMIN, CHAINCODE, OPERATIONS, SERVICE
from network.running.ports import LOOPBACK
from network.running.process import ProcessTable
from network.topology.definition import Node, Organization

JOIN_SECONDS = 30.0
LEADER_SECONDS = 30.0
POLL_SECONDS = 0.05
_BUILDER = Path(__file__).parent / "builder" / "bin"
_JOINED = "already exists"


def start_nodes(
    network: CreatedNetwork, binaries: Binaries, table: ProcessTable, names: Collection[str] | None = None
) -> None:
    """Start every node, or those of these names, that does not run; raises ProcessStartError."""
    builder = _write_builder(network.root.builder)
    running = {process.name for process in table.running()}
    for organization in network.topology.all_organizations:
        for node in organization.nodes:
            if node.name in running or (names is not None and node.name not in names):
                continue
            folder = network.root.nodes / node.name
            if organization.is_orderer:
                write_file(folder / "orderer.yaml", _orderer_file(network, organization, node).encode())
                arguments = [str(binaries.orderer)]
            else:
                content = _peer_file(network, organization, node, builder, binaries.version)
                write_file(folder / "core.yaml", content.encode())
                arguments = [str(binaries.peer), "node", "start"]
            environment = {"FABRIC_CFG_PATH": str(folder)}
            table.start(node.name, arguments, environment=environment, folder=folder)


async def join_channels(network: CreatedNetwork) -> None:
    """Have every node join the channels of its organisation; joined already is fine.

    Raises ReadinessError when a node does not answer in time, or refuses.
    """
    for channel in network.topology.channels:
        genesis = network.genesis(channel)
        members = [network.topology.organization(msp_id) for msp_id in channel.members]
        async with _together() as tasks:
            tasks.create_task(_join_orderers(network, channel.name, genesis))
            for member in members:
                for node in member.nodes:
                    tasks.create_task(_join_peer(network, member, node, genesis))


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks side by side; the first that fails ends the others, and its error is the one that counts."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except* ReadinessError as group:
        raise group.exceptions[0] from None


async def _join_orderers(network: CreatedNetwork, channel: str, genesis: bytes) -> None:
    async with _together() as tasks:
        for organization in network.topology.orderer_organizations:
            tls = network.credentials.user_tls(organization.msp_id, organization.admins[0].name)
            for node in organization.nodes:
                address = f"{LOOPBACK}:{network.state.ports[f'{node.name}/{ADMIN}']}"
                tasks.create_task(join_orderer(address, genesis, channel, ClientCredential(*tls)))
    await _wait_for_leader(network, channel)


async def _wait_for_leader(network: CreatedNetwork, channel: str) -> None:
    """Return when one of the orderers leads: before that they refuse every transaction."""
    leads = re.compile(rf'^consensus_\w*is_leader{{channel="{re.escape(channel)}"}} 1$', re.MULTILINE)
    ports = [
        network.state.ports[f"{node.name}/{OPERATIONS}"]
        for organization in network.topology.orderer_organizations
        for node in organization.nodes
    ]
    try:
        async with asyncio.timeout(LEADER_SECONDS), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                for port in ports:
                    answer = await client.get(f"http://{LOOPBACK}:{port}/metrics")
                    if leads.search(answer.text):
                        return
                await asyncio.sleep(POLL_SECONDS)
    except (TimeoutError, httpx2.HTTPError) as error:
        raise ReadinessError(f"the orderers of {channel} found no leader in {LEADER_SECONDS:.0f} s") from error


async def _join_peer(network: CreatedNetwork, organization: Organization, node: Node, genesis: bytes) -> None:
    folder = network.credentials.user_msp(organization.msp_id, organization.admins[0].name)
    admin = SigningIdentity.from_msp_folder(organization.msp_id, folder)
    endpoint = Endpoint(network.address(node.name), network.credentials.tls_ca_pem(organization.msp_id))
    why = "no answer"
    try:
        async with NodeChannel(endpoint) as channel, asyncio.timeout(JOIN_SECONDS):
            while True:
                try:
                    await Endorser(admin, channel).join(genesis)
                except EndorserError as error:
                    if error.status:
                        if _JOINED in error.message:
                            return
                        raise ReadinessError(f"peer {node.name} does not join: {error.message}") from error
                    why = error.message
                    await asyncio.sleep(POLL_SECONDS)
                except ClientError as error:
                    why = str(error)
                    await asyncio.sleep(POLL_SECONDS)
                else:
                    return
    except TimeoutError as error:
        raise ReadinessError(f"peer {node.name} did not join in {JOIN_SECONDS:.0f} s: {why}") from error


def _write_builder(folder: Path) -> Path:
    """Give the folder of our external builder, with its programs as executable files."""
    for program in _BUILDER.iterdir():
        if program.is_file():
            write_file(folder / "bin" / program.name, program.read_bytes(), mode=0o755)
    return folder


def _files(network: CreatedNetwork, organization: Organization, node: Node) -> NodeFiles:
    tls = network.credentials.node_tls(organization.msp_id, node.name)
    others = [
        network.credentials.tls_ca_certificate(other.msp_id)
        for other in network.topology.all_organizations
        if other.msp_id != organization.msp_id
    ]
    data = network.root.nodes / node.name / "data"
    data.mkdir(parents=True, exist_ok=True)
    msp = network.credentials.node_msp(organization.msp_id, node.name)
    return NodeFiles(msp, tls.certificate, tls.key, (tls.ca_certificate, *others), data)


def _peer_file(
    network: CreatedNetwork, organization: Organization, node: Node, builder: Path, version: tuple[int, int, int]
) -> str:
    ports = network.state.ports
    return peer_configuration(
        PeerNode(
            node.name,
            organization.msp_id,
            _files(network, organization, node),
            ports[f"{node.name}/{SERVICE}"],
            ports[f"{node.name}/{CHAINCODE}"],
            ports[f"{node.name}/{OPERATIONS}"],
            network.address(organization.nodes[0].name),
            builder,
            version,
        )
    )


def _orderer_file(network: CreatedNetwork, organization: Organization, node: Node) -> str:
    ports = network.state.ports
    return orderer_configuration(
        OrdererNode(
            node.name,
            organization.msp_id,
            _files(network, organization, node),
            ports[f"{node.name}/{SERVICE}"],
            ports[f"{node.name}/{ADMIN}"],
            ports[f"{node.name}/{OPERATIONS}"],
        )
    )
