"""Spoilt requests at every service of the embedded network: refused as real nodes refuse them, and nothing else.

The messages are right ones with one change somewhere in their tree, signed before or after it, and bytes that are no
message at all; seed and number are fixed. Each is answered within the classes that a real node has for it, no defect of
ours comes up, no node writes anything that was not ordered, and time and memory stay within bounds.
"""

import asyncio
import json
import logging
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, NoReturn, Self

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, events_pb2, peer_pb2, proposal_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from gateway.client.identity import SigningIdentity
from network.embedded.ledger.chaincode import ChaincodeCall, ChaincodeError, RequestRefusedError
from network.embedded.services.chaincode_connection import decode_connection
from network.embedded.services.chaincode_stream import ChaincodeLauncher
from network.embedded.services.endorser import EndorserService
from network.embedded.services.gateway import GatewayService
from network.embedded.services.ordering import OrdererService
from network.embedded.services.peer_deliver import PeerDeliverService
from network.embedded.services.rpc import service_handler
from network.protocol.block import SLOT_TRANSACTIONS_FILTER
from network.protocol.errors import DecodeError
from network.protocol.package import build_service_package
from network.protocol.validation_code import VALID
from tests.support.embedded_ledger import (
    AGENT,
    CHAINCODE,
    CHANNEL,
    SERVICE,
    LedgerNetwork,
    Stub,
    definition,
    get,
    lifecycle_arguments,
    put,
)
from tests.support.service_message import envelope_of, seek_info
from tests.support.store_digest import digests
from tests.support.wire_mutation import mutated

SEED: Final = 20_260_102
CASES: Final = 2_500
CONVERSATIONS: Final = 800
CASE_SECONDS: Final = 5.0
"""Of processor time: a message of a few kilobytes takes milliseconds."""
MEMORY_KILOBYTES: Final = 400 * 1024
ENVELOPES: Final = 800
FIRST_BLOCKS: Final = 300
ORDERING: Final = ("orderer.AtomicBroadcast/Broadcast", "gateway.Gateway/Submit")
STATE_TABLES: Final = ("state", "private_state", "history")
WAITS: Final = "waits"
ADMIN: Final = ("ServiceMSP", "admin")
OTHER: Final = ("BillingMSP", "agent")


class Ended(Exception):  # noqa: N818  # it ends a call, as the context of a server does
    """A call was ended with a code and words."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(code, words)
        self.code, self.words = code, words


class Context:
    """What a server hands to its handlers."""

    async def abort(self, code: grpc.StatusCode, words: str, trailing: Any = ()) -> NoReturn:
        assert isinstance(trailing, tuple)
        raise Ended(code, words)


class Case(NamedTuple):
    """A message for a method of a service."""

    method: str
    content: bytes


class Services:
    """The services of one peer and one orderer, called with bytes, without sockets between."""

    def __init__(self, network: LedgerNetwork) -> None:
        peer, ledger = network.peers[SERVICE], network.ledger
        made: dict[Any, Any] = {
            peer_pb2.DESCRIPTOR.services_by_name["Endorser"]: EndorserService(peer),
            gateway_pb2.DESCRIPTOR.services_by_name["Gateway"]: GatewayService(peer, ledger, Random(1)),  # noqa: S311
            events_pb2.DESCRIPTOR.services_by_name["Deliver"]: PeerDeliverService(peer, network.clock),
            ab_pb2.DESCRIPTOR.services_by_name["AtomicBroadcast"]: OrdererService(ledger, 0),
        }
        self.handlers = {
            f"{description.full_name}/{method.name}": service_handler(description, service).service(
                SimpleNamespace(method=f"/{description.full_name}/{method.name}")
            )
            for description, service in made.items()
            for method in description.methods
        }

    async def call(self, case: Case) -> list[Any]:
        """Give the answers to one message, and how the call ended if not well; what only waits is left."""
        handler = self.handlers[case.method]
        request = handler.request_deserializer(case.content)
        found: list[Any] = []
        try:
            async with asyncio.timeout(1):  # of the network's own time, which jumps
                if handler.unary_unary is not None:
                    found.append(await handler.unary_unary(request, Context()))
                else:
                    await self._stream(handler, request, found)
        except TimeoutError:
            found.append(WAITS)
        except Ended as end:
            found.append(end)
        return found

    async def _stream(self, handler: Any, request: Any, found: list[Any]) -> None:
        async def one() -> AsyncIterator[Any]:
            yield request

        answers = (
            handler.unary_stream(request, Context())
            if handler.unary_stream is not None
            else handler.stream_stream(one(), Context())
        )
        try:
            async for answer in answers:
                found.append(answer)  # noqa: PERF401  # what came before an end is wanted
        finally:
            await answers.aclose()


# --- right messages, before they are spoilt


class Originals:
    """Right messages of every kind, and the parts of them that somebody signs."""

    def __init__(self, network: LedgerNetwork) -> None:
        self._network = network
        self._client = network.client(*AGENT)
        self._admin = network.client(*ADMIN)
        package = build_service_package("asset_1.0", {"address": "127.0.0.1:9999"})
        wanted = definition(sequence=2, version="2.0")
        lifecycle = {
            "InstallChaincode": lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package),
            "QueryInstalledChaincode": lifecycle_pb2.QueryInstalledChaincodeArgs(package_id="asset_1.0:00"),
            "QueryInstalledChaincodes": lifecycle_pb2.QueryInstalledChaincodesArgs(),
            "GetInstalledChaincodePackage": lifecycle_pb2.GetInstalledChaincodePackageArgs(package_id="asset_1.0:00"),
            "QueryApprovedChaincodeDefinition": lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name=CHAINCODE),
            "QueryApprovedChaincodeDefinitions": lifecycle_pb2.QueryApprovedChaincodeDefinitionsArgs(),
            "QueryChaincodeDefinition": lifecycle_pb2.QueryChaincodeDefinitionArgs(name=CHAINCODE),
            "QueryChaincodeDefinitions": lifecycle_pb2.QueryChaincodeDefinitionsArgs(),
        }
        calls = {name: message.SerializeToString() for name, message in lifecycle.items()}
        for function in ("ApproveChaincodeDefinitionForMyOrg", "CheckCommitReadiness", "CommitChaincodeDefinition"):
            kind = getattr(lifecycle_pb2, f"{function}Args")
            calls[function] = lifecycle_arguments(kind, CHAINCODE, wanted)
        genesis = network.ledger.channels[CHANNEL].block(0, 0).SerializeToString()
        channel = CHANNEL.encode()
        self._calls: list[tuple[str, list[bytes], str, SigningIdentity]] = [
            (CHAINCODE, [network.behaviours.add(get("key"))], CHANNEL, self._client),
            (CHAINCODE, [network.behaviours.add(put("key", b"value"))], CHANNEL, self._client),
            ("qscc", [b"GetBlockByNumber", channel, b"1"], CHANNEL, self._client),
            ("qscc", [b"GetBlockByHash", channel, b"0" * 32], "", self._client),
            ("qscc", [b"GetTransactionByID", channel, b"0" * 64], CHANNEL, self._client),
            ("cscc", [b"GetConfigBlock", channel], CHANNEL, self._client),
            ("cscc", [b"GetChannels"], "", self._client),
            ("cscc", [b"JoinChain", genesis], "", self._client),  # no admin: nothing is joined, whatever it is
            *[("_lifecycle", [name.encode(), argument], CHANNEL, self._admin) for name, argument in calls.items()],
            *[("_lifecycle", [name.encode(), argument], "", self._admin) for name, argument in calls.items()],
        ]

    async def prepare(self) -> None:
        """Endorse the transaction that is going to be spoilt."""
        network = self._network
        endorsed = await network.endorse(put("spoilt", b"value"))
        self._transaction = network.envelope(endorsed).payload

    def _proposal(self, chance: Random, *, deep: bool) -> tuple[bytes, SigningIdentity]:
        """Give the bytes of a Proposal, of a spoilt argument if it is to be spoilt deep inside, and who signs them."""
        chaincode, arguments, channel, client = chance.choice(self._calls)
        if deep:
            place = chance.randrange(len(arguments))
            arguments = [*arguments[:place], mutated(chance, arguments[place]), *arguments[place + 1 :]]
        proposal = self._network.proposal(
            arguments,
            chaincode=chaincode,
            channel_id=channel,
            client=ADMIN if client is self._admin else AGENT,
            transient={"secret": b"value"} if chance.random() < 0.2 else None,
        )
        return proposal.content, client

    def case(self, chance: Random, method: str) -> Case:
        """Give one spoilt message."""
        if chance.random() < 0.1:
            return Case(method, chance.randbytes(chance.choice((0, 1, 7, 100, 5_000))))
        place = chance.choice(("inside", "inside", "before signing", "after signing"))
        content, client = self._unsigned(chance, method, deep=place == "inside")
        signer = self._network.client(*OTHER) if chance.random() < 0.05 else client
        if place == "after signing":
            return Case(method, mutated(chance, self._wrapped(method, content, signer.sign(content), chance)))
        if place == "before signing":
            content = mutated(chance, content)
        return Case(method, self._wrapped(method, content, signer.sign(content), chance))

    def _unsigned(self, chance: Random, method: str, *, deep: bool) -> tuple[bytes, SigningIdentity]:
        kind = method.rpartition("/")[2]
        if kind in ("ProcessProposal", "Evaluate", "Endorse"):
            return self._proposal(chance, deep=deep)
        if kind in ("Submit", "Broadcast"):
            payload = common_pb2.Payload.FromString(self._transaction)
            if deep:
                payload.data = mutated(chance, payload.data)
            return payload.SerializeToString(), self._client
        if kind == "CommitStatus":
            request = gateway_pb2.CommitStatusRequest(
                transaction_id="0" * 64, channel_id=CHANNEL, identity=self._client.creator
            )
            return request.SerializeToString(), self._client
        if kind == "ChaincodeEvents":
            asked = gateway_pb2.ChaincodeEventsRequest(
                channel_id=CHANNEL,
                chaincode_id=CHAINCODE,
                identity=self._client.creator,
                start_position=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=1)),
                after_transaction_id=chance.choice(("", "0" * 64)),
            )
            return asked.SerializeToString(), self._client
        moment = int(self._network.clock.now() * 1e9)
        wanted = seek_info(chance.choice((0, 1, 10**6)), 3)
        data = mutated(chance, wanted) if deep else wanted
        return envelope_of(self._client.creator, data, moment), self._client

    def _wrapped(self, method: str, content: bytes, signature: bytes, chance: Random) -> bytes:
        kind = method.rpartition("/")[2]
        proposal = proposal_pb2.SignedProposal(proposal_bytes=content, signature=signature)
        envelope = common_pb2.Envelope(payload=content, signature=signature)
        organizations = chance.choice(([], [], ["ServiceMSP"], ["CustomerMSP", "ServiceMSP"], ["NowhereMSP"]))
        message: Any = envelope
        if kind == "ProcessProposal":
            message = proposal
        elif kind == "Evaluate":
            message = gateway_pb2.EvaluateRequest(proposed_transaction=proposal, target_organizations=organizations)
        elif kind == "Endorse":
            message = gateway_pb2.EndorseRequest(proposed_transaction=proposal, endorsing_organizations=organizations)
        elif kind == "Submit":
            message = gateway_pb2.SubmitRequest(channel_id=CHANNEL, prepared_transaction=envelope)
        elif kind == "CommitStatus":
            message = gateway_pb2.SignedCommitStatusRequest(request=content, signature=signature)
        elif kind == "ChaincodeEvents":
            message = gateway_pb2.SignedChaincodeEventsRequest(request=content, signature=signature)
        return bytes(message.SerializeToString())


# --- what real nodes have for each

REFUSALS: Final[dict[str, frozenset[str]]] = {
    "protos.Endorser/ProcessProposal": frozenset(("UNKNOWN",)),
    "gateway.Gateway/Evaluate": frozenset(
        ("INVALID_ARGUMENT", "UNAVAILABLE", "FAILED_PRECONDITION", "ABORTED", "UNKNOWN")
    ),
    "gateway.Gateway/Endorse": frozenset(("INVALID_ARGUMENT", "UNAVAILABLE", "FAILED_PRECONDITION", "ABORTED")),
    "gateway.Gateway/Submit": frozenset(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "ABORTED")),
    "gateway.Gateway/CommitStatus": frozenset(("INVALID_ARGUMENT", "PERMISSION_DENIED")),
    "gateway.Gateway/ChaincodeEvents": frozenset(("INVALID_ARGUMENT", "PERMISSION_DENIED")),
    "protos.Deliver/Deliver": frozenset(),
    "protos.Deliver/DeliverFiltered": frozenset(),
    "protos.Deliver/DeliverWithPrivateData": frozenset(),
    "orderer.AtomicBroadcast/Deliver": frozenset(),
    "orderer.AtomicBroadcast/Broadcast": frozenset(),
}
STATUSES: Final = frozenset((200, 400, 403, 404))
WAITING: Final = frozenset(("CommitStatus", "ChaincodeEvents", "Deliver", "DeliverFiltered", "DeliverWithPrivateData"))


def judge(case: Case, answers: list[Any]) -> str:
    """Check that a real node has such an answer; give its class."""
    last = answers[-1]
    if last == WAITS:
        assert case.method.rpartition("/")[2] in WAITING
        return WAITS
    if isinstance(last, Ended):
        if last.code is grpc.StatusCode.INTERNAL:
            assert last.words.startswith(
                ("grpc: error unmarshalling request: ", "grpc: failed to unmarshal the received message: ")
            )
        else:
            assert last.code.name in REFUSALS[case.method], last
        return last.code.name
    if case.method.endswith("ProcessProposal"):
        status = last.response.status
        assert status in (200, 404, 500), last.response
        assert last.HasField("endorsement") <= (status == 200)
        return str(status)
    if hasattr(last, "status"):
        assert last.status in STATUSES, last
        return str(common_pb2.Status.Name(last.status))
    return "OK"


class Run:
    """Cases of a seed at services, each answered within its bounds; what they came to is counted."""

    def __init__(self, network: LedgerNetwork, methods: list[str], cases: int) -> None:
        self.classes: Counter[tuple[str, str]] = Counter()
        self._network = network
        self._methods = methods
        self._cases = cases
        self._originals = Originals(network)
        self._services = Services(network)

    async def told(self) -> None:
        chance = Random(SEED)  # noqa: S311  # chosen messages, no secret
        await self._originals.prepare()
        for number in range(self._cases):
            case = self._originals.case(chance, self._methods[number % len(self._methods)])
            begun = time.process_time()
            answers = await self._services.call(case)
            assert time.process_time() - begun < CASE_SECONDS, case
            self.classes[case.method, judge(case, answers)] += 1


@pytest.fixture
def no_defects(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when a service logs a defect, or when memory grew beyond what so small messages need."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with caplog.at_level(logging.WARNING, "network.embedded"):
        yield
    assert caplog.records == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY_KILOBYTES


@pytest.mark.usefixtures("no_defects")
def test_a_spoilt_request_is_refused_as_real_nodes_refuse_it_and_nothing_is_written(network: LedgerNetwork) -> None:
    run = Run(network, sorted(set(REFUSALS) - set(ORDERING)), CASES)
    before = digests(network.folder)

    network.run(run.told())

    assert digests(network.folder) == before
    assert_reached(run.classes)


@pytest.mark.usefixtures("no_defects")
def test_of_spoilt_envelopes_those_that_are_ordered_change_no_state(network: LedgerNetwork) -> None:
    """Orderers look at headers, size and signature: what else is spoilt they order, and peers judge."""
    run = Run(network, list(ORDERING), ENVELOPES)
    before = state_of(digests(network.folder))
    height = network.channel(SERVICE).height

    async def story() -> None:
        await run.told()
        await network.ledger.channels[CHANNEL].cut()
        for peer in network.peers.values():
            await peer.channels[CHANNEL].wait_for_height(network.ledger.channels[CHANNEL].height - 1)

    network.run(story())

    channel = network.channel(SERVICE)
    blocks = [channel.files.block(number) for number in range(height, channel.height)]
    ordered = sum(len(block.data.data) for block in blocks)
    flags = [flag for block in blocks for flag in block.metadata.metadata[SLOT_TRANSACTIONS_FILTER]]
    taken = run.classes["orderer.AtomicBroadcast/Broadcast", "SUCCESS"] + run.classes["gateway.Gateway/Submit", "OK"]
    assert ordered == taken > 100
    # A change that Go does not see, such as an unknown field, leaves a transaction what it was: it is valid, once.
    assert flags.count(VALID) <= 1
    after = state_of(digests(network.folder))
    assert flags.count(VALID) or after == before
    for method in ORDERING:
        assert classes_of(run, method) >= {"SUCCESS" if method.endswith("Broadcast") else "OK", "INTERNAL"}
    assert classes_of(run, ORDERING[0]) >= {"BAD_REQUEST", "FORBIDDEN"}
    assert classes_of(run, ORDERING[1]) >= {"INVALID_ARGUMENT", "ABORTED"}


def classes_of(run: Run, method: str) -> set[str]:
    return {name for found, name in run.classes if found == method}


def state_of(found: dict[str, str]) -> dict[str, str]:
    """Give what is the world state's of digests: public, hashed and private values, and their history."""
    return {name: digest for name, digest in found.items() if name.rpartition("/")[2] in STATE_TABLES}


@pytest.mark.usefixtures("no_defects")
def test_a_spoilt_first_block_joins_no_channel_or_one_that_works(network: LedgerNetwork) -> None:
    chance = Random(SEED)  # noqa: S311  # as above
    genesis = network.ledger.channels[CHANNEL].block(0, 0)
    before = digests(network.folder)

    async def story() -> Counter[int]:
        statuses: Counter[int] = Counter()
        for _ in range(FIRST_BLOCKS):
            block = common_pb2.Block.FromString(genesis.SerializeToString())
            envelope = common_pb2.Envelope.FromString(block.data.data[0])
            payload = common_pb2.Payload.FromString(envelope.payload)
            if chance.random() < 0.5:
                payload.data = mutated(chance, payload.data)
                envelope.payload = payload.SerializeToString()
            else:
                envelope.payload = mutated(chance, envelope.payload)
            block.data.data[0] = envelope.SerializeToString()
            content = block.SerializeToString() if chance.random() < 0.8 else mutated(chance, block.SerializeToString())
            answer = await network.propose(
                SERVICE, [b"JoinChain", content], chaincode="cscc", channel_id="", client=ADMIN
            )
            statuses[answer.response.status] += 1
        return statuses

    statuses = network.run(story())

    assert statuses[500] > FIRST_BLOCKS * 0.9
    after = digests(network.folder)
    assert {name: after.get(name) for name in before} == before
    for channel in network.peers[SERVICE].channels.values():
        assert channel.rules.channel_id == channel.channel_id


def assert_reached(classes: Counter[tuple[str, str]]) -> None:
    """Check that the messages got through to every kind of answer, and were not all turned away at the door."""
    for method, kinds in REFUSALS.items():
        if method not in ORDERING:
            assert sum(count for (name, _), count in classes.items() if name == method) > 100
            for kind in (*kinds, "INTERNAL"):
                assert classes[method, kind], (method, kind, classes)
    for status in ("200", "404", "500"):
        assert classes["protos.Endorser/ProcessProposal", status]
    for method in ("protos.Deliver/Deliver", "orderer.AtomicBroadcast/Deliver"):
        for name in ("SUCCESS", "BAD_REQUEST", "FORBIDDEN", "NOT_FOUND"):
            assert classes[method, name], (method, name)


# --- what a contract asks its peer

KEY: Final = "key"
QUERY: Final = chaincode_shim_pb2.QueryMetadata(pageSize=2, bookmark=KEY).SerializeToString()
METADATA: Final = chaincode_shim_pb2.StateMetadata(metakey="VALIDATION_PARAMETER", value=b"policy")
_Kind: Final = chaincode_shim_pb2.ChaincodeMessage
REQUESTS: Final[tuple[tuple[int, Any], ...]] = tuple(
    [
        (kind, message)
        for collection in ("", "pair", "guarded", "none")
        for kind, message in (
            (_Kind.GET_STATE, chaincode_shim_pb2.GetState(key=KEY, collection=collection)),
            (_Kind.GET_STATE_MULTIPLE, chaincode_shim_pb2.GetStateMultiple(keys=[KEY, "b"], collection=collection)),
            (_Kind.PUT_STATE, chaincode_shim_pb2.PutState(key=KEY, value=b"value", collection=collection)),
            (_Kind.DEL_STATE, chaincode_shim_pb2.DelState(key=KEY, collection=collection)),
            (_Kind.PURGE_PRIVATE_DATA, chaincode_shim_pb2.DelState(key=KEY, collection=collection)),
            (_Kind.GET_PRIVATE_DATA_HASH, chaincode_shim_pb2.GetState(key=KEY, collection=collection)),
            (_Kind.GET_STATE_METADATA, chaincode_shim_pb2.GetStateMetadata(key=KEY, collection=collection)),
            (
                _Kind.PUT_STATE_METADATA,
                chaincode_shim_pb2.PutStateMetadata(key=KEY, collection=collection, metadata=METADATA),
            ),
            (
                _Kind.WRITE_BATCH_STATE,
                chaincode_shim_pb2.WriteBatchState(
                    rec=[
                        chaincode_shim_pb2.WriteRecord(key=KEY, value=b"v", collection=collection, type=number)
                        for number in (9, 10)
                    ]
                ),
            ),
            (
                _Kind.GET_STATE_BY_RANGE,
                chaincode_shim_pb2.GetStateByRange(startKey="", endKey="z", collection=collection, metadata=QUERY),
            ),
            (_Kind.GET_QUERY_RESULT, chaincode_shim_pb2.GetQueryResult(query="{}", collection=collection)),
        )
    ]
    + [
        (_Kind.GET_STATE_BY_RANGE, chaincode_shim_pb2.GetStateByRange(startKey="a", endKey="z")),
        (_Kind.GET_HISTORY_FOR_KEY, chaincode_shim_pb2.GetHistoryForKey(key=KEY)),
        (_Kind.QUERY_STATE_NEXT, chaincode_shim_pb2.QueryStateNext(id="1")),
        (_Kind.QUERY_STATE_CLOSE, chaincode_shim_pb2.QueryStateClose(id="1")),
        (
            _Kind.INVOKE_CHAINCODE,
            chaincode_pb2.ChaincodeSpec(
                chaincode_id=chaincode_pb2.ChaincodeID(name="other"),
                input=chaincode_pb2.ChaincodeInput(args=[b"behaviour 0"]),
            ),
        ),
    ]
)


@pytest.mark.usefixtures("no_defects")
def test_a_spoilt_request_of_a_contract_is_answered_or_refused_and_nothing_is_written(network: LedgerNetwork) -> None:
    chance = Random(SEED)  # noqa: S311  # as above
    refused: Counter[bool] = Counter()
    before = digests(network.folder)

    async def ask(stub: Stub) -> None:
        for _ in range(chance.randrange(1, 6)):
            kind, message = chance.choice(REQUESTS)
            content = mutated(chance, message.SerializeToString())
            if chance.random() < 0.05:
                kind, content = chance.randrange(-2, 40), chance.randbytes(chance.randrange(40))
            try:
                await stub.request(kind, content)
            except (RequestRefusedError, DecodeError):
                refused[True] += 1
            else:
                refused[False] += 1

    async def story() -> Counter[int]:
        statuses: Counter[int] = Counter()
        for _ in range(CONVERSATIONS):
            begun = time.process_time()
            answer = await network.propose(SERVICE, ask)
            assert time.process_time() - begun < CASE_SECONDS
            statuses[answer.response.status] += 1
        return statuses

    statuses = network.run(story())

    assert set(statuses) <= {200, 500}
    assert statuses[200] > CONVERSATIONS / 2
    assert min(refused[True], refused[False]) > CONVERSATIONS / 2
    assert digests(network.folder) == before


# --- what a chaincode server says

STREAMS: Final = 120
PACKAGE_ID: Final = "service_1:" + "cd" * 32
EXECUTE_SECONDS: Final = 2.0


class RawChaincode:
    """A chaincode server that says any bytes before it answers a transaction."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self._connect)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("protos.Chaincode", {"Connect": handler}),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def __aenter__(self) -> Self:
        """Start."""
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End."""
        await self._server.stop(None)

    async def _connect(self, requests: Any, context: Any) -> None:
        named = chaincode_pb2.ChaincodeID(name=PACKAGE_ID).SerializeToString()
        await context.write(_Kind(type=_Kind.REGISTER, payload=named).SerializeToString())
        async for content in requests:
            message = _Kind.FromString(content)
            if message.type == _Kind.TRANSACTION:
                for _ in range(self._chance.randrange(1, 4)):
                    await context.write(self._said(message))
                completed = _Kind(
                    type=_Kind.COMPLETED, payload=b"\x08\xc8\x01", txid=message.txid, channel_id=message.channel_id
                )
                await context.write(completed.SerializeToString())

    def _said(self, message: Any) -> bytes:
        chance = self._chance
        if chance.random() < 0.1:
            return chance.randbytes(chance.randrange(50))
        kind, request = chance.choice(REQUESTS)
        said = _Kind(
            type=chance.choice((kind, kind, _Kind.COMPLETED, _Kind.ERROR, _Kind.KEEPALIVE, _Kind.REGISTER)),
            payload=request.SerializeToString(),
            txid=message.txid,
            channel_id=message.channel_id,
        )
        return mutated(chance, said.SerializeToString())


class Granted:
    """A conversation that grants whatever reads as a request."""

    async def answer(self, message_type: int, payload: bytes) -> bytes:
        del message_type, payload
        return b""


def test_a_chaincode_server_that_says_any_bytes_fails_its_own_transaction_and_no_later_one() -> None:
    chance = Random(SEED)  # noqa: S311  # as above
    ended: Counter[str] = Counter()

    async def story() -> None:
        launcher = ChaincodeLauncher(execute_timeout_seconds=EXECUTE_SECONDS)
        try:
            async with RawChaincode(chance) as server, asyncio.timeout(50):
                connection = decode_connection(json.dumps({"address": server.address}).encode())
                for number in range(STREAMS):
                    call = ChaincodeCall("ch", f"tx{number}", chaincode_pb2.ChaincodeInput(args=[b"f"]), None)
                    try:
                        await launcher.execute(PACKAGE_ID, connection, call, Granted())
                    except ChaincodeError as error:
                        ended[str(error).removeprefix(f"failed to execute transaction tx{number}: ")] += 1
                    else:
                        ended["answered"] += 1
        finally:
            await launcher.close()

    asyncio.run(story())

    assert ended["answered"] > STREAMS / 4
    assert ended["error sending: chaincode stream terminated"] > 1
    assert ended["error sending: timeout expired while executing transaction"] == 0
