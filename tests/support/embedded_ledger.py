"""The ledger of the embedded network: all nodes in one process, no sockets, and time that nobody has to wait for.

Time stands still while anything can run and jumps to the next thing that waits when nothing can; where everything waits
for something that will not come, the test fails at once. One seed gives one chain.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from shutil import copytree
from typing import Any, Final, NamedTuple, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    chaincode_shim_pb2,
    proposal_pb2,
    proposal_response_pb2,
)
from fabric_protos.peer.lifecycle import lifecycle_pb2

from gateway.client.identity import SigningIdentity
from network.channel.update_file import sign_update, update_envelope
from network.embedded.ledger.chaincode import ChaincodeCall, ChaincodeResult, Conversation, RequestRefusedError
from network.embedded.ledger.network import EmbeddedLedger
from network.embedded.ledger.ordering import Orderer
from network.embedded.ledger.package_store import PackageStore
from network.embedded.ledger.peer import Node, Peer
from network.embedded.ledger.peer_channel import PeerChannel
from network.embedded.local_msp import read_local_msp
from network.protocol.collection import CollectionConfig, encode_collections
from network.protocol.config_group import ConfigGroup
from network.protocol.config_update import SignedUpdate, compute_update, encode_update
from network.protocol.lifecycle import ChaincodeDefinition, signature_policy
from network.protocol.package import build_service_package
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import Proposal, build_proposal, encode_envelope, prepared_transaction
from network.protocol.transaction import Endorsement
from network.protocol.validation_code import VALID
from network.topology.topology_file import read_topology, shipped_topology
from tests.support.generated_network import START, GeneratedNetwork, generate_network

CHANNEL: Final = "consortium"
SECOND: Final = "second"
CHAINCODE: Final = "asset"
SERVICE, BILLING, FIELD, CUSTOMER = "peer0.service", "peer0.billing", "peer0.field", "peer0.customer"
PEERS: Final = (SERVICE, BILLING, FIELD, CUSTOMER)
BOTH: Final = (SERVICE, CUSTOMER)
"""Peers whose endorsements satisfy the policies of the chaincodes here."""
AGENT: Final = ("ServiceMSP", "agent")
ADMINS: Final = (("CustomerMSP", "admin"), ("ServiceMSP", "admin"), ("OrdererMSP", "admin"))
"""Who together may change anything that is not an organisation's own."""
POLICY: Final = "AND('CustomerMSP.peer', OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer', 'FieldMSP.peer'))"
_Kind: Final = chaincode_shim_pb2.ChaincodeMessage

T = TypeVar("T")


# --- time


class _JumpingSelector(selectors.SelectSelector):
    """Where a loop would wait, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("everything waits, and nothing will come")
            self.now += max(timeout, 0)
        return found


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """The clock of the loop that runs, from the moment the credentials were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.offset = 60.0

    def now(self) -> float:
        return START.timestamp() + self.offset + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# --- contracts


class Stub:
    """What a contract may ask: each request is one message of the chaincode protocol. `peer`: where it runs."""

    def __init__(self, call: ChaincodeCall, conversation: Conversation, peer: str = "") -> None:
        self.call = call
        self.peer = peer
        self.event: tuple[str, bytes] | None = None
        self._conversation = conversation

    async def ask(self, name: str, message: Any = b"", answer: Any = None) -> Any:
        """Send a request by its name; parse the answer where a message type is given."""
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        content = await self.request(_Kind.Type.Value(name), payload)
        return content if answer is None else answer.FromString(content)

    async def request(self, kind: int, payload: bytes) -> bytes:
        """Send a request by its number, of any bytes."""
        return await self._conversation.answer(kind, payload)

    async def get(self, key: str, collection: str = "") -> bytes:
        return bytes(await self.ask("GET_STATE", chaincode_shim_pb2.GetState(key=key, collection=collection)))

    async def get_hash(self, key: str, collection: str) -> bytes:
        request = chaincode_shim_pb2.GetState(key=key, collection=collection)
        return bytes(await self.ask("GET_PRIVATE_DATA_HASH", request))

    async def put(self, key: str, value: bytes, collection: str = "") -> None:
        await self.ask("PUT_STATE", chaincode_shim_pb2.PutState(key=key, value=value, collection=collection))

    async def delete(self, key: str, collection: str = "") -> None:
        await self.ask("DEL_STATE", chaincode_shim_pb2.DelState(key=key, collection=collection))

    async def purge(self, key: str, collection: str) -> None:
        await self.ask("PURGE_PRIVATE_DATA", chaincode_shim_pb2.DelState(key=key, collection=collection))

    async def put_metadata(self, key: str, value: bytes, collection: str = "", name: str = "note") -> None:
        metadata = chaincode_shim_pb2.StateMetadata(metakey=name, value=value)
        request = chaincode_shim_pb2.PutStateMetadata(key=key, collection=collection, metadata=metadata)
        await self.ask("PUT_STATE_METADATA", request)

    async def range(
        self, start: str = "", end: str = "", *, collection: str = "", page: int = 0, bookmark: str = ""
    ) -> Any:
        """Open a range; gives the first QueryResponse."""
        metadata = chaincode_shim_pb2.QueryMetadata(pageSize=page, bookmark=bookmark).SerializeToString()
        request = chaincode_shim_pb2.GetStateByRange(
            startKey=start, endKey=end, collection=collection, metadata=metadata
        )
        return await self.ask("GET_STATE_BY_RANGE", request, chaincode_shim_pb2.QueryResponse)

    async def next(self, iterator: str) -> Any:
        request = chaincode_shim_pb2.QueryStateNext(id=iterator)
        return await self.ask("QUERY_STATE_NEXT", request, chaincode_shim_pb2.QueryResponse)

    async def invoke_chaincode(self, name: str, *arguments: bytes, is_init: bool = False) -> Any:
        """Call another chaincode; gives its ChaincodeMessage."""
        called = chaincode_pb2.ChaincodeInput(args=arguments, is_init=is_init)
        request = chaincode_pb2.ChaincodeSpec(chaincode_id=chaincode_pb2.ChaincodeID(name=name), input=called)
        return await self.ask("INVOKE_CHAINCODE", request, _Kind)

    async def call_chaincode(self, name: str, *arguments: bytes) -> Any:
        """Call another chaincode; gives its Response message."""
        message = await self.invoke_chaincode(name, *arguments)
        assert message.type == _Kind.COMPLETED
        return proposal_response_pb2.Response.FromString(message.payload)


Behaviour = Callable[[Stub], Awaitable[bytes | proposal_response_pb2.Response | ChaincodeResult | None]]
"""What a contract does in one transaction; bytes are its payload, None is an empty one, a result any answer at all."""


class Behaviours:
    """Runs contracts in this process: the first argument of a call names what it does."""

    def __init__(self) -> None:
        self._known: dict[bytes, Behaviour] = {}
        self.executed: list[str] = []

    def add(self, behaviour: Behaviour) -> bytes:
        """Give the argument that has it run."""
        name = b"behaviour %d" % len(self._known)
        self._known[name] = behaviour
        return name

    async def execute(
        self, package_id: str, call: ChaincodeCall, conversation: Conversation, peer: str = ""
    ) -> ChaincodeResult:
        self.executed.append(package_id)
        stub = Stub(call, conversation, peer)
        arguments = call.chaincode_input.args
        behaviour = self._known.get(arguments[0]) if arguments else None
        try:
            result = await behaviour(stub) if behaviour else _unknown_behaviour()
        except RequestRefusedError as error:
            result = proposal_response_pb2.Response(status=500, message=str(error))
        if isinstance(result, ChaincodeResult):
            return result
        if not isinstance(result, proposal_response_pb2.Response):
            result = proposal_response_pb2.Response(status=200, payload=result or b"")
        event = None
        if stub.event is not None:
            event = chaincode_event_pb2.ChaincodeEvent(event_name=stub.event[0], payload=stub.event[1])
        return ChaincodeResult(result.SerializeToString(), event)


def _unknown_behaviour() -> proposal_response_pb2.Response:
    return proposal_response_pb2.Response(status=404, message="there is no such behaviour")


@dataclass(frozen=True)
class BehavioursAtPeer:
    """Runs the behaviours that all peers know, and tells them at which one they run."""

    behaviours: Behaviours
    peer: str

    async def execute(self, package_id: str, call: ChaincodeCall, conversation: Conversation) -> ChaincodeResult:
        return await self.behaviours.execute(package_id, call, conversation, self.peer)


def put(key: str, value: bytes, collection: str = "") -> Behaviour:
    """Write one key, without reading."""

    async def behave(stub: Stub) -> None:
        await stub.put(key, value, collection)

    return behave


def get(key: str, collection: str = "") -> Behaviour:
    """Read one key and answer with its value."""

    async def behave(stub: Stub) -> bytes:
        return await stub.get(key, collection)

    return behave


def get_and_put(key: str, value: bytes) -> Behaviour:
    """Read a key, then write it."""

    async def behave(stub: Stub) -> None:
        await stub.get(key)
        await stub.put(key, value)

    return behave


# --- chaincodes


def collection(name: str, *organizations: str, **settings: Any) -> CollectionConfig:
    """Describe a collection of these organisations; its own writes are endorsed by a peer of the first of them."""
    members = ", ".join(f"'{organization}.member'" for organization in organizations)
    chosen = {"maximum_peer_count": 1, **settings}
    policy = signature_policy(encode_policy_expression(f"OR('{organizations[0]}.peer')"))
    return CollectionConfig(name, encode_policy_expression(f"OR({members})"), endorsement_policy=policy, **chosen)


COLLECTIONS: Final = (
    collection("pair", "ServiceMSP", "BillingMSP"),
    collection("pulled", "ServiceMSP", "BillingMSP", maximum_peer_count=0),
    collection("lonely", "ServiceMSP", "BillingMSP", maximum_peer_count=3, required_peer_count=2),
    collection("guarded", "ServiceMSP", "BillingMSP", member_only_read=True, member_only_write=True),
    collection("brief", "ServiceMSP", "BillingMSP", block_to_live=2),
)


def definition(sequence: int = 1, version: str = "1.0", **fields: Any) -> ChaincodeDefinition:
    """Give a definition with the policy of the chaincodes here."""
    return ChaincodeDefinition(
        sequence, version, signature_policy(encode_policy_expression(POLICY)), **{"collections": b"", **fields}
    )


def lifecycle_arguments(kind: Any, name: str, wanted: ChaincodeDefinition, **fields: Any) -> bytes:
    """Write the argument of a function of `_lifecycle`."""
    message = kind(
        name=name,
        sequence=wanted.sequence,
        version=wanted.version,
        endorsement_plugin=wanted.endorsement_plugin,
        validation_plugin=wanted.validation_plugin,
        validation_parameter=wanted.validation_parameter,
        init_required=wanted.init_required,
        **fields,
    )
    if wanted.collections:
        message.collections.MergeFromString(wanted.collections)
    return bytes(message.SerializeToString())


# --- the network


class Endorsed(NamedTuple):
    """A proposal and what its endorsers answered."""

    proposal: Proposal
    responses: list[Any]

    @property
    def payloads(self) -> set[bytes]:
        return {response.payload for response in self.responses}


@dataclass
class LedgerNetwork:
    """All nodes of a generated network, open in `folder`; the same folder opened again is the same network."""

    generated: GeneratedNetwork
    folder: Path
    seed: int = 1
    max_skew_seconds: float = 0.0
    behaviours: Behaviours = field(default_factory=Behaviours)

    def __post_init__(self) -> None:
        """Open every node."""
        self._loop = loop = _JumpingLoop()
        self._runner = asyncio.Runner(loop_factory=lambda: loop)
        self.clock = VirtualClock(loop)
        self.ledger = EmbeddedLedger(self.clock, Random(self.seed), self.max_skew_seconds)  # noqa: S311  # no secret
        self._requests = 0
        self._clients: dict[tuple[str, str], SigningIdentity] = {}
        try:
            self._add_nodes()
            for channel in self.generated.topology.channels:
                genesis = common_pb2.Block.FromString(self.generated.genesis(channel.name))
                peers = [peer for peer in self.ledger.peers if peer.node.msp_id in channel.members]
                self.ledger.open_channel(channel.name, genesis, peers)
        except BaseException:
            self.close()
            raise
        self.peers = {peer.node.name: peer for peer in self.ledger.peers}
        self._height = self.ledger.channels[CHANNEL].height

    def _add_nodes(self) -> None:
        credentials, endpoints = self.generated.credentials, self.generated.endpoints
        for organization in self.generated.topology.all_organizations:
            for node in organization.nodes:
                msp = credentials.node_msp(organization.msp_id, node.name)
                identity = self._identity(organization.msp_id, msp)
                folder = self.folder / node.name
                if organization.is_orderer:
                    self.ledger.orderers.append(Orderer(node.name, identity, folder))
                    continue
                address = f"{endpoints[node.name].host}:{endpoints[node.name].port}"
                self.ledger.peers.append(
                    Peer(
                        Node(
                            node.name, organization.msp_id, address, identity, read_local_msp(organization.msp_id, msp)
                        ),
                        folder,
                        runner=BehavioursAtPeer(self.behaviours, node.name),
                        packages=PackageStore(folder / "packages"),
                        distribute=self.ledger.dissemination.distribute,
                        clock=self.clock,
                        joined=self.ledger.joined,
                    )
                )

    def _identity(self, msp_id: str, folder: Path) -> SigningIdentity:
        return SigningIdentity.from_msp_folder(msp_id, folder, clock=START.timestamp)

    def close(self) -> None:
        self.ledger.close()
        self._runner.close()
        self._loop.close()  # a runner that never ran anything does not know it

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """Run a story while the nodes order and commit; raises what either of them raises."""

        async def together() -> T:
            running = asyncio.create_task(self.ledger.run())
            told = asyncio.create_task(story)
            await asyncio.wait((running, told), return_when=asyncio.FIRST_COMPLETED)
            for task in (told, running):
                if task.done():
                    for other in (told, running):
                        other.cancel()
                    await asyncio.gather(told, running, return_exceptions=True)
                    return await task  # type: ignore[return-value]  # the nodes never end but by raising
            raise AssertionError

        return self._runner.run(together())

    def channel(self, peer: str, channel_id: str = CHANNEL) -> PeerChannel:
        return self.peers[peer].channels[channel_id]

    def client(self, msp_id: str, name: str) -> SigningIdentity:
        known = self._clients.get((msp_id, name))
        if known is None:
            known = self._identity(msp_id, self.generated.credentials.user_msp(msp_id, name))
            self._clients[msp_id, name] = known
        return known

    # --- proposals

    def proposal(
        self,
        arguments: Sequence[bytes],
        *,
        chaincode: str = CHAINCODE,
        client: tuple[str, str] = AGENT,
        transient: Mapping[str, bytes] | None = None,
        **fields: Any,
    ) -> Proposal:
        """Make a proposal; the nth of a network that was opened at some height has the nth nonce."""
        self._requests += 1
        fields = {"channel_id": CHANNEL, "nanoseconds": int(self.clock.now() * 1e9), **fields}
        return build_proposal(
            chaincode=chaincode,
            arguments=arguments,
            creator=self.client(*client).creator,
            nonce=sha256(f"{self.folder.name} {self._height} {self._requests}".encode()).digest()[:24],
            transient=transient,
            **fields,
        )

    async def ask(self, peer: str, proposal: Proposal, client: tuple[str, str] = AGENT) -> Any:
        """Have a peer answer a proposal."""
        signature = self.client(*client).sign(proposal.content)
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal.content, signature=signature)
        return await self.peers[peer].process_proposal(signed)

    async def propose(
        self, peer: str, behaviour: Behaviour | Sequence[bytes], *, client: tuple[str, str] = AGENT, **fields: Any
    ) -> Any:
        """Have a peer run a behaviour, or a system chaincode with arguments."""
        arguments = [self.behaviours.add(behaviour)] if callable(behaviour) else behaviour
        return await self.ask(peer, self.proposal(arguments, client=client, **fields), client)

    async def endorse(
        self,
        behaviour: Behaviour | Sequence[bytes],
        peers: Sequence[str] = BOTH,
        *,
        client: tuple[str, str] = AGENT,
        **fields: Any,
    ) -> Endorsed:
        """Have several peers run the same proposal; every one endorses it."""
        arguments = [self.behaviours.add(behaviour)] if callable(behaviour) else behaviour
        proposal = self.proposal(arguments, client=client, **fields)
        responses = [await self.ask(peer, proposal, client) for peer in peers]
        assert all(response.response.status < 400 for response in responses), responses
        return Endorsed(proposal, responses)

    # --- transactions

    def envelope(self, endorsed: Endorsed, client: tuple[str, str] = AGENT) -> Any:
        """Make the transaction that its client signs."""
        endorsements = [
            Endorsement(response.endorsement.endorser, response.endorsement.signature)
            for response in endorsed.responses
        ]
        payload = prepared_transaction(endorsed.proposal, endorsements, endorsed.responses[0].payload)
        content = encode_envelope(payload, self.client(*client).sign(payload))
        return common_pb2.Envelope.FromString(content)

    async def submit(self, behaviour: Behaviour | Sequence[bytes], peers: Sequence[str] = BOTH, **fields: Any) -> str:
        """Endorse and order; gives the transaction id."""
        endorsed = await self.endorse(behaviour, peers, **fields)
        await self.order(endorsed, fields.get("client", AGENT))
        return endorsed.proposal.tx_id

    async def order(self, endorsed: Endorsed, client: tuple[str, str] = AGENT) -> None:
        await self.ledger.broadcast(self.envelope(endorsed, client))

    async def wait(self, tx_id: str, channel_id: str = CHANNEL) -> int:
        """Give the verdict on a transaction, once every peer of the channel has it; all agree."""
        codes = set()
        for channel in [peer.channels[channel_id] for peer in self.ledger.peers if channel_id in peer.channels]:
            while (place := channel.transaction_place(tx_id)) is None:
                await channel.wait_for_height(channel.height)
            codes.add(place.code)
        (code,) = codes
        return code

    async def commit(self, behaviour: Behaviour | Sequence[bytes], peers: Sequence[str] = BOTH, **fields: Any) -> int:
        """Endorse, order and wait; gives the verdict."""
        return await self.wait(await self.submit(behaviour, peers, **fields), fields.get("channel_id", CHANNEL))

    async def evaluate(self, behaviour: Behaviour, peer: str = SERVICE, **fields: Any) -> bytes:
        """Run a behaviour that has to succeed; gives its payload."""
        answer = await self.propose(peer, behaviour, **fields)
        assert answer.response.status == 200, answer.response.message
        return bytes(answer.response.payload)

    async def refusal(self, behaviour: Behaviour, peer: str = SERVICE, **fields: Any) -> str:
        """Run a behaviour that has to fail; gives the words."""
        answer = await self.propose(peer, behaviour, **fields)
        assert answer.response.status == 500, answer
        return str(answer.response.message)

    # --- configurations

    def update(
        self,
        change: Callable[[ConfigGroup], ConfigGroup],
        signers: Sequence[tuple[str, str]] = ADMINS,
        submitter: tuple[str, str] = ("ServiceMSP", "admin"),
    ) -> Any:
        """Make the envelope of an update of the configuration in force."""
        before = self.ledger.channels[CHANNEL].rules.configuration.root
        signed = SignedUpdate(encode_update(compute_update(CHANNEL, before, change(before))), ())
        for signer in signers:
            signed = sign_update(signed, self.client(*signer), bytes(24))
        self._requests += 1
        now = datetime.fromtimestamp(self.clock.now(), UTC)
        nonce = sha256(f"{self._height} {self._requests}".encode()).digest()[:24]
        return update_envelope(CHANNEL, signed, self.client(*submitter), nonce, now)

    async def configure(
        self, change: Callable[[ConfigGroup], ConfigGroup], signers: Sequence[tuple[str, str]] = ADMINS
    ) -> int:
        """Change the configuration and wait until every peer has it; gives the number of its block."""
        service = self.ledger.channels[CHANNEL]
        await self.ledger.broadcast(self.update(change, signers))
        number = service.height - 1
        for peer in self.ledger.peers:
            if peer.state.is_running:
                await peer.channels[CHANNEL].wait_for_height(number)
        return number

    # --- chaincodes

    async def lifecycle(
        self,
        function: str,
        arguments: bytes,
        *,
        peers: Sequence[str],
        client: tuple[str, str],
        channel_id: str = CHANNEL,
    ) -> int:
        """Commit a call of `_lifecycle`."""
        called = [function.encode(), arguments]
        return await self.commit(called, peers, client=client, chaincode=LIFECYCLE_NAMESPACE, channel_id=channel_id)

    async def install(self, peer: str, label: str) -> str:
        """Install a package at a peer; gives its id."""
        package = build_service_package(label, {"address": "127.0.0.1:9999"})
        arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package).SerializeToString()
        admin = (self.peers[peer].node.msp_id, "admin")
        answer = await self.propose(
            peer, [b"InstallChaincode", arguments], client=admin, chaincode=LIFECYCLE_NAMESPACE, channel_id=""
        )
        assert answer.response.status == 200, answer.response.message
        result = lifecycle_pb2.InstallChaincodeResult.FromString(answer.response.payload)
        return str(result.package_id)

    async def approve(
        self, peer: str, name: str, wanted: ChaincodeDefinition, package_id: str = "", channel_id: str = CHANNEL
    ) -> int:
        """Approve a definition for the organisation of a peer."""
        arguments = lifecycle_arguments(lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs, name, wanted)
        message = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs.FromString(arguments)
        message.source.local_package.package_id = package_id
        admin = (self.peers[peer].node.msp_id, "admin")
        return await self.lifecycle(
            "ApproveChaincodeDefinitionForMyOrg",
            message.SerializeToString(),
            peers=(peer,),
            client=admin,
            channel_id=channel_id,
        )

    async def deploy(
        self,
        name: str,
        wanted: ChaincodeDefinition,
        peers: Sequence[str] = (SERVICE, BILLING, CUSTOMER),
        channel_id: str = CHANNEL,
    ) -> None:
        """Have the organisations of these peers install, approve and commit a chaincode."""
        for peer in peers:
            label = f"{name}_{wanted.version}"
            package_id = await self.install(peer, label if channel_id == CHANNEL else f"{label}_{channel_id}")
            assert await self.approve(peer, name, wanted, package_id, channel_id) == VALID
        await self.commit_definition(name, wanted, peers, channel_id)

    async def commit_definition(
        self, name: str, wanted: ChaincodeDefinition, peers: Sequence[str], channel_id: str = CHANNEL
    ) -> None:
        """Commit a definition that the organisations of these peers have approved."""
        arguments = lifecycle_arguments(lifecycle_pb2.CommitChaincodeDefinitionArgs, name, wanted)
        code = await self.lifecycle(
            "CommitChaincodeDefinition", arguments, peers=peers, client=("ServiceMSP", "admin"), channel_id=channel_id
        )
        assert code == VALID


async def deploy_all(network: LedgerNetwork) -> None:
    """Deploy what the tests call: `asset` with collections, `other` beside it, `begun` that wants an init."""
    await network.deploy(CHAINCODE, definition(collections=encode_collections(COLLECTIONS)))
    await network.deploy("other", definition())
    await network.deploy("begun", definition(init_required=True))


def generate_dev(folder: Path, topology: str = "dev") -> GeneratedNetwork:
    """Make the credentials of a shipped topology."""
    return generate_network(read_topology(shipped_topology(topology)), folder)


def with_second_channel(generated: GeneratedNetwork) -> GeneratedNetwork:
    """Give the same network with a channel `SECOND` of Service and Customer beside the first."""
    topology = generated.topology
    second = replace(topology.channel(CHANNEL), name=SECOND, members=("ServiceMSP", "CustomerMSP"), chaincodes=())
    return replace(generated, topology=replace(topology, channels=(*topology.channels, second)))


@contextmanager
def deployed(generated: GeneratedNetwork, folder: Path, **settings: Any) -> Iterator[LedgerNetwork]:
    """Give a network with all chaincodes deployed; it is closed afterwards.

    What the same credentials and settings come to is made once, and copied.
    """
    channels = "-".join(channel.name for channel in generated.topology.channels)
    chosen = "-".join(f"{name}-{value}" for name, value in sorted(settings.items()))
    template = generated.credentials.path.parent / f"deployed-{channels}-{chosen}"
    if not template.exists():
        with closing(LedgerNetwork(generated, template, **settings)) as network:
            network.run(deploy_all(network))
    copytree(template, folder)
    with closing(LedgerNetwork(generated, folder, **settings)) as network:
        yield network
