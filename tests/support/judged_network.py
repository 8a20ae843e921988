"""A network for the judges, and chaincodes on it that any program serves: put there as on a network of strangers.

The transactions of deploying come one after the other, so that the same steps give the same blocks on every network.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.endorser import Endorser
from gateway.client.errors import ClientError
from gateway.client.gateway import Gateway, Network
from gateway.client.identity import SigningIdentity
from network import lifecycle
from network.creation import CreatedNetwork, read_network
from network.operation import destroy
from network.protocol.collection import CollectionConfig, encode_collections
from network.protocol.lifecycle import ChaincodeDefinition, signature_policy, with_defaults
from network.protocol.package import build_service_package, package_id
from network.protocol.policy_expression import encode_policy_expression
from network.running.ports import LOOPBACK, choose_ports
from network.running.root import NetworkRoot
from tests.support.command import kvr
from tests.support.live_network import START_SECONDS, NetworkName, programs
from tests.support.tls_credential import TlsAuthority

TOPOLOGY: Final = Path(__file__).with_name("judged_network.yaml")
CHANNEL: Final = "consortium"
SERVICE, BILLING, CUSTOMER, AUDITOR = "ServiceMSP", "BillingMSP", "CustomerMSP", "AuditorMSP"
ORGANIZATIONS: Final = (SERVICE, BILLING, CUSTOMER)
"""Those with a peer."""
READY_SECONDS: Final = 45.0
POLL_SECONDS: Final = 0.05
PROBE: Final = (b"status", b"200", b"", b"", b"")
"""What every contract of the judges answers."""
_PYTHON: Final = "from chaincode.main import chaincode; chaincode()"
T = TypeVar("T")


class Program(NamedTuple):
    """What serves a chaincode; it reads address, package id and TLS files from its environment (`CHAINCODE_*`).

    Logs of its process are in the network's folder, by the names of chaincode and program.
    """

    name: str
    arguments: Sequence[str]
    folder: Path


def python_program(folder: Path, contract: str, name: str = "python") -> Program:
    """Serve a contract of a folder on our own runtime; under several names it gets several processes."""
    return Program(name, (sys.executable, "-P", "-c", _PYTHON, "serve", contract), folder)


@dataclass(frozen=True)
class Definition:
    """A chaincode to put on the channel.

    `served`: by MSP id what serves the organisation's peer, None for a package at whose address nobody listens, no
    entry for an approval without a package. Organisations with the same program share a process. `endorsement` is an
    expression.
    """

    name: str
    served: Mapping[str, Program | None]
    endorsement: str
    collections: Sequence[CollectionConfig] = ()
    probe: tuple[bytes, ...] = PROBE
    """What it answers when it is there."""


def collection(name: str, members: Sequence[str]) -> CollectionConfig:
    """Define a collection whose members alone endorse what is written to it, all of them."""
    policy = encode_policy_expression(f"OR({', '.join(repr(f'{member}.member') for member in members)})")
    endorsers = encode_policy_expression(f"AND({', '.join(repr(f'{member}.peer') for member in members)})")
    return CollectionConfig(name, policy, 0, 1, 0, True, True, signature_policy(endorsers))


@dataclass(frozen=True)
class JudgedNetwork:
    """A running network; its chaincodes end with it."""

    created: CreatedNetwork
    folder: Path
    addresses: dict[str, str]
    """What stands for an address in comparisons of two networks: a name, by address."""
    running: ExitStack
    """Ends the programs of its chaincodes."""
    packages: dict[str, bytes] = field(default_factory=dict)
    """The package of each chaincode that was deployed; of several the last organisation's."""

    def identity(self, msp_id: str, user: str = "agent") -> SigningIdentity:
        """Give a user of an organisation."""
        return SigningIdentity.from_msp_folder(msp_id, self.created.credentials.user_msp(msp_id, user))

    def endpoint(self, msp_id: str) -> Endpoint:
        """Say where the first node of an organisation listens."""
        node = self.created.topology.organization(msp_id).nodes[0]
        return Endpoint(self.created.address(node.name), self.created.credentials.tls_ca_pem(msp_id))

    @asynccontextmanager
    async def peers(self, user: str = "agent") -> AsyncIterator[dict[str, Endorser]]:
        """Connect to each organisation's peer, as its own user."""
        async with AsyncExitStack() as stack:
            found = {}
            for msp_id in ORGANIZATIONS:
                channel = await stack.enter_async_context(NodeChannel(self.endpoint(msp_id)))
                found[msp_id] = Endorser(self.identity(msp_id, user), channel)
            yield found

    def deploy(self, definition: Definition) -> None:
        """Start the programs, and install, approve and commit the definition; returns when every peer answers."""
        asyncio.run(self._deploy(definition))

    async def _deploy(self, definition: Definition) -> None:
        packages = self._serve(definition)
        wanted = _chaincode_definition(definition)
        async with self.peers("admin") as admins:
            for msp_id, admin in admins.items():
                package = packages.get(msp_id)
                if package is not None:
                    await lifecycle.install(admin, package, definition.name)
                chosen = "" if package is None else package_id(definition.name, package)
                await _trying(partial(lifecycle.approve, _network(admin), msp_id, definition.name, wanted, chosen))
                await self._level(admins.values())
            await _trying(lambda: lifecycle.commit(_network(admins[SERVICE]), definition.name, wanted))
        async with self.peers() as agents:
            for msp_id, agent in agents.items():
                if definition.served.get(msp_id) is not None:
                    await _trying(partial(agent.call, definition.name, definition.probe, channel_name=CHANNEL))
                else:
                    await _trying(partial(_defined, _network(agent), definition.name))

    async def _level(self, peers: Iterable[Endorser]) -> None:
        """Wait until all peers have as many blocks: what is endorsed too early conflicts, and costs a block more."""
        async with asyncio.timeout(READY_SECONDS):
            heights = {await peer.height(CHANNEL) for peer in peers}
            while len(heights) > 1:
                await asyncio.sleep(POLL_SECONDS)
                heights = {await peer.height(CHANNEL) for peer in peers}

    def _serve(self, definition: Definition) -> dict[str, bytes]:
        """Start one process for each program; give each organisation's package."""
        packages: dict[Program | None, bytes] = {}
        for msp_id, program in definition.served.items():
            if program in packages:
                continue
            kind = program.name if program else "nobody"
            (port,) = choose_ports({definition.name: 0}).values()
            address = f"{LOOPBACK}:{port}"
            self.addresses[address] = f"{definition.name}/{kind}"
            authority = TlsAuthority(f"{definition.name} {kind}")
            server, client = authority.issue(definition.name), authority.issue("peers")
            connection = {
                "address": address,
                "dial_timeout": "10s",
                "tls_required": True,
                "client_auth_required": True,
                "root_cert": authority.certificate.decode(),
                "client_key": client.key.decode(),
                "client_cert": client.certificate.decode(),
            }
            packages[program] = self.packages[definition.name] = build_service_package(definition.name, connection)
            if program is not None:
                files = {
                    "CHAINCODE_TLS_KEY": server.key,
                    "CHAINCODE_TLS_CERT": server.certificate,
                    "CHAINCODE_CLIENT_CA_CERT": authority.certificate,
                }
                settings = {
                    "CHAINCODE_ID": package_id(definition.name, packages[program]),
                    "CHAINCODE_SERVER_ADDRESS": address,
                    "CORE_PEER_LOCALMSPID": msp_id,
                }
                self._start(program, self.folder / f"{definition.name}-{kind}", settings, files)
        return {msp_id: packages[program] for msp_id, program in definition.served.items()}

    def _start(self, program: Program, folder: Path, settings: Mapping[str, str], files: Mapping[str, bytes]) -> None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        environment = {**os.environ, **settings, **{name: str(folder / name) for name in files}}
        log = self.running.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            program.arguments, cwd=program.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.running.callback(process.wait)
        self.running.callback(process.kill)


@contextmanager
def judged_network(name: NetworkName, folder: Path, batch_timeout: str = "50ms") -> Iterator[JudgedNetwork]:
    """Run a network in an empty folder; at the end nothing of it runs. Ends the test where programs are missing."""
    binaries = programs(name)
    root = NetworkRoot(folder / "network")
    topology = folder / "topology.yaml"
    topology.write_text(TOPOLOGY.read_text(encoding="utf-8").replace("timeout: 50ms", f"timeout: {batch_timeout}"))
    native = ["--native"] if binaries is not None else []
    settings = {"KVR_FABRIC_BIN": str(binaries.peer.parent)} if binaries is not None else {}
    try:
        arguments = ("network", "up", "--root", str(root.path), "--topology", str(topology), *native)
        done = kvr(*arguments, seconds=START_SECONDS, **settings)
        assert done.returncode == 0, done.stderr
        created = read_network(root)
        nodes = [node.name for organization in created.topology.all_organizations for node in organization.nodes]
        with ExitStack() as running:
            yield JudgedNetwork(created, folder, {created.address(node): node for node in nodes}, running)
    finally:
        if root.state_file.exists():
            destroy(root)


def _network(endorser: Endorser) -> Network:
    return Gateway(endorser.identity, endorser.channel).network(CHANNEL)


def _chaincode_definition(definition: Definition) -> ChaincodeDefinition:
    policy = signature_policy(encode_policy_expression(definition.endorsement))
    collections = encode_collections(definition.collections) if definition.collections else b""
    return with_defaults(ChaincodeDefinition(1, "1.0", policy, collections, False))


class _NotYetError(ClientError):
    """Asked too early."""


async def _defined(channel: Network, name: str) -> None:
    if await lifecycle.committed_sequence(channel, name) == 0:
        raise _NotYetError(f"{name} is not committed yet")


async def _trying(action: Callable[[], Awaitable[T]]) -> T:
    """Try again while it fails: nodes, and processes of chaincodes, that just started refuse for reasons that pass."""
    last = "no answer"
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    return await action()
                except ClientError as error:
                    last = "; ".join((str(error), getattr(error, "message", "")))
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise AssertionError(f"not done in {READY_SECONDS:.0f} s: {last}") from error
