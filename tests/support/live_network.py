"""Networks that tests run on: embedded always, native where Fabric's programs are found; the same code on both.

What is asked of a network's peers goes through the client that the product ships. Networks are shared by the tests of a
session, so every test names its records anew (`LiveNetwork.name`).
"""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from fabric_protos.common import ledger_pb2

from gateway.client.blocks import BlockStream, Stop
from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.contract import Contract
from gateway.client.endorser import Endorser
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork, read_network
from network.errors import BinaryError
from network.native.binary import Binaries, find_binaries
from network.operation import destroy
from network.protocol.block import SLOT_TRANSACTIONS_FILTER, Block
from network.protocol.decode import decode_block
from network.protocol.validation_code import validation_code_name
from network.running.process import ProcessTable
from network.running.root import NetworkKind, NetworkRoot
from network.topology.topology_file import shipped_topology
from tests.support import requirement
from tests.support.command import kvr

CHANNEL: Final = "consortium"
SERVICE, BILLING, FIELD, CUSTOMER = "ServiceMSP", "BillingMSP", "FieldMSP", "CustomerMSP"
PEERS: Final = (SERVICE, BILLING, FIELD, CUSTOMER)
PROBE: Final = "probe"
POLL_SECONDS: Final = 0.05
START_SECONDS: Final = 150.0
"""How long a network may take to come up on a machine that does other things as well."""
_PROBE_FOLDER: Final = "KVR_TEST_PROBE_FOLDER"
_CONTRACTS: Final = Path(__file__).parent / "contracts"
_PROBE_CHAINCODE: Final = """\
      - name: probe
        version: "1.0"
        sequence: 1
        served_by: probe_contract:contract
        endorsement: AND('CustomerMSP.peer', OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer', 'FieldMSP.peer'))
        collections:
          - name: pair
            members: OR('ServiceMSP.member', 'BillingMSP.member')
            endorsement: AND('ServiceMSP.peer', 'BillingMSP.peer')
            max_peer_count: 1
"""
T = TypeVar("T")


class NetworkName(StrEnum):
    """A network that tests may ask for: how its nodes run, and what orders."""

    EMBEDDED = "embedded"
    EMBEDDED_BFT = "embedded-bft"
    NATIVE = "native"
    NATIVE_BFT = "native-bft"
    NATIVE_LTS = "native-lts"

    @property
    def kind(self) -> NetworkKind:
        """How its nodes run."""
        return NetworkKind.EMBEDDED if self.value.startswith("embedded") else NetworkKind.NATIVE

    @property
    def topology(self) -> str:
        """The shipped topology it is made from."""
        return "bft" if self.is_bft else "lts" if self is NetworkName.NATIVE_LTS else "dev"

    @property
    def is_bft(self) -> bool:
        """Whether BFT orders."""
        return self in (NetworkName.EMBEDDED_BFT, NetworkName.NATIVE_BFT)

    @property
    def release(self) -> tuple[int, int] | None:
        """The release its programs have to be of, where that matters."""
        return (2, 5) if self is NetworkName.NATIVE_LTS else None

    @property
    def prerequisite(self) -> str:
        """What `KVR_REQUIRE` calls the programs it needs."""
        return "fabric-lts" if self.release else "fabric"


@dataclass(frozen=True)
class LiveNetwork:
    """A network that is up. Besides `service` it has the chaincode `probe` (tests/support/contracts)."""

    name: NetworkName
    created: CreatedNetwork
    folder: Path
    settings: Mapping[str, str]
    """The environment of commands that start processes of it."""

    @property
    def root(self) -> NetworkRoot:
        """Where everything of it is."""
        return self.created.root

    @property
    def is_native(self) -> bool:
        """Whether its nodes are real ones."""
        return self.name.kind is NetworkKind.NATIVE

    @property
    def processes(self) -> ProcessTable:
        """Its processes."""
        return ProcessTable(self.root.processes, self.created.state.network_id)

    def fresh(self, prefix: str) -> str:
        """Give a name that no test has used on this network."""
        return f"{prefix}-{secrets.token_hex(6)}"

    def identity(self, msp_id: str, user: str) -> SigningIdentity:
        """Give a user's identity."""
        return SigningIdentity.from_msp_folder(msp_id, self.created.credentials.user_msp(msp_id, user))

    def endpoint(self, msp_id: str) -> Endpoint:
        """Give where the organisation's first peer, or orderer, serves."""
        organization = self.created.topology.organization(msp_id)
        address = self.created.address(organization.nodes[0].name)
        return Endpoint(address, self.created.credentials.tls_ca_pem(msp_id))

    @asynccontextmanager
    async def channel(self, msp_id: str) -> AsyncIterator[NodeChannel]:
        """Open a connection to the organisation's first peer."""
        async with NodeChannel(self.endpoint(msp_id)) as channel:
            await channel.dial()
            yield channel

    @asynccontextmanager
    async def contract(
        self, msp_id: str, user: str = "agent", chaincode: str = "service", *, peer: str = ""
    ) -> AsyncIterator[Contract]:
        """Open a chaincode as one user sees it, at the own organisation's peer unless another one is named."""
        async with self.channel(peer or msp_id) as channel:
            yield Gateway(self.identity(msp_id, user), channel).network(CHANNEL).contract(chaincode)

    @asynccontextmanager
    async def contracts(self, *msp_ids: str, chaincode: str = "service") -> AsyncIterator[list[Contract]]:
        """Open a chaincode as the agents of several organisations see it."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.contract(msp_id, chaincode=chaincode)) for msp_id in msp_ids]

    @asynccontextmanager
    async def endorser(self, msp_id: str, user: str = "admin") -> AsyncIterator[Endorser]:
        """Open the Endorser service of the organisation's first peer."""
        async with self.channel(msp_id) as channel:
            yield Endorser(self.identity(msp_id, user), channel)

    async def height(self, msp_id: str) -> int:
        """Give the number of blocks that an organisation's first peer has."""
        async with self.endorser(msp_id) as endorser:
            return await endorser.height(CHANNEL)

    async def wait_for_block(self, number: int, *msp_ids: str, seconds: float = 60.0) -> None:
        """Wait until the peers of these organisations, or all, have a block."""
        async with asyncio.timeout(seconds):
            waiting = list(msp_ids or PEERS)
            while waiting:
                waiting = [msp_id for msp_id in waiting if await self.height(msp_id) <= number]
                await asyncio.sleep(POLL_SECONDS if waiting else 0)

    async def settled_height(self) -> int:
        """Give the number of blocks of the peer that has most, once all others have them."""
        height = max([await self.height(msp_id) for msp_id in PEERS])
        await self.wait_for_block(height - 1)
        return height

    async def block(self, number: int, msp_id: str = SERVICE) -> Block:
        """Read one block from an organisation's first peer."""
        async with self.channel(msp_id) as channel:
            stream = BlockStream(self.identity(msp_id, "admin"), channel, CHANNEL)
            async for received in stream.blocks(number, stop=number, idle_seconds=30.0):
                return decode_block(received.content)
        raise AssertionError(number)

    async def blocks(self, start: int, msp_id: str = SERVICE) -> list[Block]:
        """Read the blocks from a number to the newest."""
        async with self.channel(msp_id) as channel:
            stream = BlockStream(self.identity(msp_id, "admin"), channel, CHANNEL)
            received = stream.blocks(start, stop=Stop.NEWEST, idle_seconds=30.0)
            return [decode_block(block.content) async for block in received]

    def probed(self, name: str) -> set[str]:
        """Name the organisations whose process of `probe` was called with this name by `note` functions."""
        return {path.name for path in (self.folder / "probe" / name).glob("*")}

    def run(self, story: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a story in a loop of its own."""
        return asyncio.run(story())


def on(*names: NetworkName) -> pytest.MarkDecorator:
    """Have a test run on these networks instead of the usual ones."""
    return pytest.mark.parametrize("network", names, indirect=True, ids=str, scope="session")


def verdicts(block: Block) -> dict[str, list[str]]:
    """Give the names of the validation codes of a block by transaction id; an id may stand there twice."""
    found: dict[str, list[str]] = {}
    flags = block.metadata[SLOT_TRANSACTIONS_FILTER]
    for transaction, code in zip(block.transactions, flags, strict=True):
        found.setdefault(transaction.tx_id, []).append(validation_code_name(code))
    return found


def programs(name: NetworkName) -> Binaries | None:
    """Give the programs that a network needs; ends the test where they are missing."""
    if name.kind is NetworkKind.EMBEDDED:
        return None
    try:
        return find_binaries(name.release)
    except BinaryError as error:
        requirement.missing(name.prerequisite, str(error))


@contextmanager
def live_network(name: NetworkName, folder: Path, *, collections: str = "", **variables: str) -> Iterator[LiveNetwork]:
    """Make a network in an empty folder and bring it up; it is ended, and its files removed, afterwards.

    `collections`: further ones of `probe`, as in a topology file; `variables` are in the environment of its processes.
    """
    binaries = programs(name)
    (folder / "probe").mkdir()
    topology = folder / "topology.yaml"
    text = shipped_topology(name.topology).read_text(encoding="utf-8")
    topology.write_text(text.rstrip("\n") + "\n" + _PROBE_CHAINCODE + collections, encoding="utf-8")
    root = NetworkRoot(folder / "network")
    settings = {"PYTHONPATH": str(_CONTRACTS), _PROBE_FOLDER: str(folder / "probe"), **variables}
    if binaries is not None:
        settings["KVR_FABRIC_BIN"] = str(binaries.peer.parent)
    flags = ["--native"] if binaries is not None else []
    try:
        # As a command, so that its processes are nobody's children here, as they are for users.
        arguments = ("network", "up", "--root", str(root.path), "--topology", str(topology), *flags)
        done = kvr(*arguments, seconds=START_SECONDS, **settings)
        assert done.returncode == 0, done.stderr
        yield LiveNetwork(name, read_network(root), folder, settings)
    finally:
        if root.state_file.exists():
            destroy(root)


# --- what a run tells at its end

FACTS_VARIABLE: Final = "KVR_TEST_NETWORK_FACTS"
"""Names the file to which every network of a run, in whichever process, adds a line at its end."""


def write_facts(network: LiveNetwork) -> None:
    """Add where the chain of a network stands."""
    note_chain(network.name.value, *network.run(lambda: _tip(network)))


def note_chain(name: str, height: int, header_hash: str) -> None:
    """Add where a chain ended."""
    with Path(os.environ[FACTS_VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"network": name, "height": height, "header_hash": header_hash}) + "\n")


async def _tip(network: LiveNetwork) -> tuple[int, str]:
    async with network.endorser(SERVICE) as endorser:
        answer = await endorser.call("qscc", [b"GetChainInfo", CHANNEL.encode()], channel_name=CHANNEL)
    info = ledger_pb2.BlockchainInfo.FromString(answer)
    return info.height, info.currentBlockHash.hex()
