"""What a chaincode can ask of its peer, and in which words a peer refuses it: the same on embedded and real peers.

Two organisations with a peer each; Service has the channel `second` for itself, with the chaincode `there`.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, peer_pb2_grpc, proposal_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from gateway.client.channel import Endpoint, NodeChannel
from gateway.client.gateway import Gateway
from gateway.client.identity import SigningIdentity
from network.creation import CreatedNetwork, read_network
from network.lifecycle import approve, commit
from network.operation import destroy
from network.protocol.lifecycle import ChaincodeDefinition, field_key, signature_policy, with_defaults
from network.protocol.policy_expression import encode_policy_expression
from network.protocol.proposal import build_proposal
from network.protocol.read_write_set import NamespaceSet, decode_read_write_set
from network.running.plan import served_chaincodes
from network.running.root import NetworkRoot
from tests.support.command import kvr
from tests.support.live_network import CHANNEL, CUSTOMER, SERVICE, START_SECONDS, NetworkName, programs

SECOND = "second"
ROWS = 250
TOPOLOGY = """\
name: requests
consensus: raft
batch: {timeout: 100ms}
orderer_organizations:
  - msp_id: OrdererMSP
    domain: orderer.requests.test
    orderers: [{name: orderer0}]
    users: [{name: admin, role: admin}]
organizations:
  - msp_id: ServiceMSP
    domain: service.requests.test
    peers: [{name: peer0.service}]
    users: [{name: admin, role: admin}, {name: agent, role: client}]
  - msp_id: CustomerMSP
    domain: customer.requests.test
    peers: [{name: peer0.customer}]
    users: [{name: admin, role: admin}, {name: agent, role: client}]
channels:
  - name: consortium
    members: [ServiceMSP, CustomerMSP]
    capabilities: {channel: V2_0, orderer: V2_0, application: V2_5}
    chaincodes:
      - name: asking
        version: "1.0"
        served_by: request_contract:contract
        endorsement: OR('ServiceMSP.peer', 'CustomerMSP.peer')
        collections:
          - {name: own, members: OR('ServiceMSP.member'), member_only_read: false, member_only_write: false}
          - {name: guarded, members: OR('ServiceMSP.member')}
      - name: other
        version: "1.0"
        served_by: request_contract:contract
        endorsement: OR('ServiceMSP.peer', 'CustomerMSP.peer')
  - name: second
    members: [ServiceMSP]
    capabilities: {channel: V2_0, orderer: V2_0, application: V2_5}
    chaincodes:
      - name: there
        version: "1.0"
        served_by: request_contract:contract
        endorsement: OR('ServiceMSP.peer')
"""

POLICY = signature_policy(encode_policy_expression("OR('ServiceMSP.peer', 'CustomerMSP.peer')"))
BEGUN = with_defaults(ChaincodeDefinition(1, "1.0", POLICY, init_required=True))
"""Of the chaincode `begun`, which the packages of `other` serve."""

shim = chaincode_shim_pb2
Message = shim.ChaincodeMessage
Record = shim.WriteRecord


class Refused(NamedTuple):
    """A request that the peer refuses."""

    words: str


class Answered(NamedTuple):
    """A ProposalResponse of one peer, the transaction's id in its message as ID."""

    tx_id: str
    status: int
    message: str
    payload: bytes
    content: bytes

    @property
    def sets(self) -> dict[str, NamespaceSet]:
        """The read-write set, by namespace."""
        payload = proposal_response_pb2.ProposalResponsePayload.FromString(self.content)
        action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
        return {found.namespace: found for found in decode_read_write_set(action.results)}


Request = tuple[str, Any]


class AskedNetwork(NamedTuple):
    """A network whose chaincodes ask what a test wants."""

    name: NetworkName
    created: CreatedNetwork

    def identity(self, msp_id: str, user: str = "agent") -> SigningIdentity:
        return SigningIdentity.from_msp_folder(msp_id, self.created.credentials.user_msp(msp_id, user))

    def endpoint(self, msp_id: str) -> Endpoint:
        node = self.created.topology.organization(msp_id).nodes[0].name
        return Endpoint(self.created.address(node), self.created.credentials.tls_ca_pem(msp_id))

    def propose(
        self,
        *arguments: bytes,
        chaincode: str = "asking",
        peer: str = SERVICE,
        client: str = "",
        is_init: bool = False,
        channel_id: str = CHANNEL,
    ) -> Answered:
        """Have one peer answer a proposal."""
        identity = self.identity(client or peer)
        proposal = build_proposal(
            channel_id=channel_id,
            chaincode=chaincode,
            arguments=arguments,
            creator=identity.creator,
            nonce=sha256(f"{time.monotonic_ns()}".encode()).digest()[:24],
            nanoseconds=time.time_ns(),
            is_init=is_init,
        )
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal.content, signature=identity.sign(proposal.content))

        async def call() -> Any:
            async with NodeChannel(self.endpoint(peer)) as channel:
                return await peer_pb2_grpc.EndorserStub(channel.grpc).ProcessProposal(signed, timeout=60.0)

        found = asyncio.run(call())
        words = found.response.message.replace(proposal.tx_id, "ID")
        return Answered(proposal.tx_id, found.response.status, words, found.response.payload, found.payload)

    def ask(self, *requests: Request, **fields: Any) -> list[bytes | Refused]:
        """Have a chaincode ask its peer, and give what the peer answered to each request."""
        found = self.propose(b"ask", script(requests), **fields)
        assert found.status == 200, found
        return answers(found.payload, found.tx_id)

    def refusal(self, *requests: Request, **fields: Any) -> str:
        """Give the words in which the last of these requests is refused, where the others are answered."""
        *before, last = self.ask(*requests, **fields)
        assert not [it for it in before if isinstance(it, Refused)], before
        assert isinstance(last, Refused), last
        prefix = f"{requests[-1][0]} failed: transaction ID: ID: "
        assert last.words.startswith(prefix)
        return last.words.removeprefix(prefix)

    def submit(self, function: str, *arguments: Any, chaincode: str = "asking", peer: str = SERVICE) -> bytes:
        """Commit a transaction; gives its result."""

        async def committed() -> bytes:
            async with NodeChannel(self.endpoint(peer)) as channel:
                contract = Gateway(self.identity(peer), channel).network(CHANNEL).contract(chaincode)
                done = await contract.submit_transaction(function, *map(str, arguments))
                return bytes(done.result)

        return asyncio.run(committed())

    def define(self, name: str, chaincode: str, definition: ChaincodeDefinition) -> None:
        """Define a chaincode that the packages of another one serve."""
        served = [it for it in served_chaincodes(self.created.topology) if it.chaincode.name == chaincode]

        async def agree() -> None:
            for it in served:
                msp_id = it.organization.msp_id
                async with NodeChannel(self.endpoint(msp_id)) as channel:
                    admin = Gateway(self.identity(msp_id, "admin"), channel).network(CHANNEL)
                    await approve(admin, msp_id, name, definition, self.created.package_id(it))
            async with NodeChannel(self.endpoint(SERVICE)) as channel:
                await commit(Gateway(self.identity(SERVICE, "admin"), channel).network(CHANNEL), name, definition)

        asyncio.run(agree())

    def evaluate(self, function: str, *arguments: Any, peer: str = SERVICE) -> bytes:
        async def asked() -> bytes:
            async with NodeChannel(self.endpoint(peer)) as channel:
                contract = Gateway(self.identity(peer), channel).network(CHANNEL).contract("asking")
                return await contract.evaluate(function, *map(str, arguments))

        return asyncio.run(asked())


@contextmanager
def asked_network(name: NetworkName, folder: Path) -> Iterator[AskedNetwork]:
    """Make a network, bring it up and write what the tests read; it is ended afterwards."""
    binaries = programs(name)
    (folder / "topology.yaml").write_text(TOPOLOGY, encoding="utf-8")
    root = NetworkRoot(folder / "network")
    settings = {"PYTHONPATH": str(Path(__file__).parents[1] / "support" / "contracts")}
    if binaries is not None:
        settings["KVR_FABRIC_BIN"] = str(binaries.peer.parent)
    flags = [] if binaries is None else ["--native"]
    try:
        arguments = ("network", "up", "--root", str(root.path), "--topology", str(folder / "topology.yaml"), *flags)
        done = kvr(*arguments, seconds=START_SECONDS, **settings)
        assert done.returncode == 0, done.stderr
        network = AskedNetwork(name, read_network(root))
        network.submit("put_many", "row", ROWS)
        network.submit("put_many", "secret", 3, "own")
        network.define("begun", "other", BEGUN)
        yield network
    finally:
        if root.state_file.exists():
            destroy(root)


@pytest.fixture(scope="module", params=[NetworkName.EMBEDDED, NetworkName.NATIVE], ids=str)
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskedNetwork]:
    with asked_network(request.param, tmp_path_factory.mktemp(request.param.value)) as network:
        yield network


# --- requests


def script(requests: Sequence[Request]) -> bytes:
    """Write requests as the contract takes them; a number in place of a message goes on from an answer's iterator."""
    return json.dumps([[name, it if isinstance(it, int) else _content(it).hex()] for name, it in requests]).encode()


def _content(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def answers(payload: bytes, tx_id: str) -> list[bytes | Refused]:
    return [
        bytes.fromhex(it["answer"]) if "answer" in it else Refused(it["refused"].replace(tx_id, "ID"))
        for it in json.loads(payload)
    ]


def get(key: str, collection: str = "") -> Request:
    return "GET_STATE", shim.GetState(key=key, collection=collection)


def put(key: str, value: bytes = b"1", collection: str = "") -> Request:
    return "PUT_STATE", shim.PutState(key=key, value=value, collection=collection)


def purge(key: str, collection: str = "") -> Request:
    return "PURGE_PRIVATE_DATA", shim.DelState(key=key, collection=collection)


def many(*keys: str, collection: str = "") -> Request:
    return "GET_STATE_MULTIPLE", shim.GetStateMultiple(keys=keys, collection=collection)


def rows(
    start: str = "", end: str = "", *, collection: str = "", page: int | None = None, bookmark: str = ""
) -> Request:
    query = shim.GetStateByRange(startKey=start, endKey=end, collection=collection)
    if page is not None:
        query.metadata = shim.QueryMetadata(pageSize=page, bookmark=bookmark).SerializeToString()
    return "GET_STATE_BY_RANGE", query


def metadata(key: str, value: bytes = b"1", collection: str = "") -> Request:
    entry = shim.StateMetadata(metakey="note", value=value)
    return "PUT_STATE_METADATA", shim.PutStateMetadata(key=key, collection=collection, metadata=entry)


def batch(*records: Any) -> Request:
    return "WRITE_BATCH_STATE", shim.WriteBatchState(rec=records)


def call(name: str, *requests: Request, arguments: Sequence[bytes] | None = None, is_init: bool = False) -> Request:
    """Call a chaincode of the tests with requests, or any with arguments."""
    content = [b"ask", script(requests)] if arguments is None else list(arguments)
    called = chaincode_pb2.ChaincodeInput(args=content, is_init=is_init)
    return "INVOKE_CHAINCODE", chaincode_pb2.ChaincodeSpec(
        chaincode_id=chaincode_pb2.ChaincodeID(name=name), input=called
    )


class Rows(NamedTuple):
    """What a QueryResponse holds: first and last key, how many, and what it says of the rest."""

    first: str
    last: str
    rows: int
    has_more: bool
    fetched: int = 0
    bookmark: str = ""


def read_rows(answer: bytes | Refused) -> Rows:
    assert isinstance(answer, bytes), answer
    found = shim.QueryResponse.FromString(answer)
    facts = shim.QueryResponseMetadata.FromString(found.metadata)
    keys = [kv_query_result_pb2.KV.FromString(row.resultBytes).key for row in found.results]
    ends = (keys[0], keys[-1]) if keys else ("", "")
    return Rows(*ends, len(keys), found.has_more, facts.fetched_records_count, facts.bookmark)


def row(number: int) -> str:
    return f"row{number:04d}"


def called_response(answer: bytes | Refused) -> tuple[int, str]:
    """Give status and message that a called chaincode answered."""
    assert isinstance(answer, bytes), answer
    message = Message.FromString(answer)
    assert message.type == Message.COMPLETED
    response = proposal_response_pb2.Response.FromString(message.payload)
    return response.status, response.message


# --- keys


def test_what_a_transaction_writes_it_does_not_read(asked: AskedNetwork) -> None:
    found = asked.propose(
        b"ask", script([put(row(0), b"other"), get(row(0)), get("none"), ("DEL_STATE", shim.DelState(key=row(1)))])
    )

    assert answers(found.payload, found.tx_id) == [b"", b"0", b"", b""]
    assert found.sets["asking"].writes == ((row(0), False, b"other"), (row(1), True, b""))
    assert [read.key for read in found.sets["asking"].reads] == ["none", row(0)]


def test_several_keys_come_in_the_order_asked_for(asked: AskedNetwork) -> None:
    public, private, absent = asked.ask(
        many(row(2), "none", row(1)),
        many("secret0001", "none", "secret0000", collection="own"),
        many(collection="own"),
    )

    assert [list(shim.GetStateMultipleResult.FromString(it).values) for it in (public, private, absent)] == [
        [b"2", b"", b"1"],
        [b"1", b"", b"0"],
        [],
    ]


def test_a_batch_stops_at_what_is_refused(asked: AskedNetwork) -> None:
    script_of = script(
        [
            batch(
                Record(type=Record.PUT_STATE, key="x", value=b"1"),
                Record(type=Record.PURGE_PRIVATE_DATA, key="y"),
                Record(type=Record.PUT_STATE, key="z", value=b"1"),
            ),
            batch(Record(type=99, key="w")),
            batch(),
        ]
    )
    found = asked.propose(b"ask", script_of)

    assert answers(found.payload, found.tx_id) == [
        Refused("WRITE_BATCH_STATE failed: transaction ID: ID: only applicable for private data"),
        Refused("WRITE_BATCH_STATE failed: transaction ID: ID: unknown operation type"),
        b"",
    ]
    assert found.sets["asking"].writes == (("x", False, b"1"),)


NO_COLLECTION = "collection consortium/asking/none could not be found"
PAGE_OF_5 = shim.QueryMetadata(pageSize=5).SerializeToString()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (purge("a"), "only applicable for private data"),
        (get("a", "none"), NO_COLLECTION),
        (put("a", b"1", "none"), NO_COLLECTION),
        (many("a", collection="none"), NO_COLLECTION),
        (
            ("GET_PRIVATE_DATA_HASH", shim.GetState(key="a", collection="none")),
            "collection [none] not defined in the collection config for chaincode [asking]",
        ),
        (rows(collection="none"), NO_COLLECTION),
        (purge("a", "none"), NO_COLLECTION),
        (metadata("a", b"1", "none"), NO_COLLECTION),
        (("PUT_STATE_METADATA", shim.PutStateMetadata(key="a")), "panic during execution"),
        (("QUERY_STATE_NEXT", shim.QueryStateNext(id="none")), "query iterator not found"),
        (("GET_QUERY_RESULT", shim.GetQueryResult(query="{}")), "ExecuteQuery not supported for leveldb"),
        (
            ("GET_QUERY_RESULT", shim.GetQueryResult(query="{}", metadata=PAGE_OF_5)),
            "ExecuteQueryWithMetadata not supported for leveldb",
        ),
    ],
    ids=str,
)
def test_a_request_is_refused_in_these_words(asked: AskedNetwork, request_: Request, words: str) -> None:
    assert asked.refusal(request_) == words


def test_an_unknown_iterator_may_be_closed(asked: AskedNetwork) -> None:
    (found,) = asked.ask(("QUERY_STATE_CLOSE", shim.QueryStateClose(id="none")))

    assert isinstance(found, bytes)
    assert shim.QueryResponse.FromString(found) == shim.QueryResponse(id="none")


# --- ranges and pages


def test_rows_come_by_hundreds(asked: AskedNetwork) -> None:
    found = [
        read_rows(it)
        for it in asked.ask(
            rows("row", "rox"), ("QUERY_STATE_NEXT", 0), ("QUERY_STATE_NEXT", 0), rows("x"), rows("b", "a")
        )
    ]

    assert found == [
        Rows(row(0), row(99), 100, has_more=True),
        Rows(row(100), row(199), 100, has_more=True),
        Rows(row(200), row(249), 50, has_more=False),
        Rows("", "", 0, has_more=False),
        Rows("", "", 0, has_more=False),
    ]


def test_an_iterator_that_has_ended_is_gone(asked: AskedNetwork) -> None:
    assert asked.refusal(rows("row", "row0005"), ("QUERY_STATE_NEXT", 0)) == "query iterator not found"


def test_what_a_range_has_read_is_in_the_transaction(asked: AskedNetwork) -> None:
    def recorded(*requests: Request) -> list[tuple[str, str, bool, int | None, Any]]:
        sets = asked.propose(b"ask", script(requests)).sets
        return [
            (
                query.start_key,
                query.end_key,
                query.exhausted,
                None if query.raw_reads is None else len(query.raw_reads),
                query.merkle_summary
                and (query.merkle_summary[0], query.merkle_summary[1], len(query.merkle_summary[2])),
            )
            for query in (sets["asking"].range_queries if "asking" in sets else ())
        ]

    whole = [rows("row", "rox"), ("QUERY_STATE_NEXT", 0), ("QUERY_STATE_NEXT", 0)]
    assert recorded(*whole) == [("row", "rox", True, None, (50, 1, 5))]
    assert recorded(rows("row", "rox")) == [("row", row(100), False, None, (50, 1, 2))]
    assert recorded(rows("row", row(50))) == [("row", row(50), True, 50, None)]
    assert recorded(rows("row", row(51))) == [("row", row(51), True, None, (50, 1, 1))]
    assert recorded(rows("row", "rox", page=10)) == [("row", row(9), False, 10, None)]
    assert recorded(rows("secret", "", collection="own")) == []


@pytest.mark.parametrize(
    ("page", "bookmark", "expected"),
    [
        (10, "", Rows(row(0), row(9), 10, False, 10, row(10))),
        (10, row(245), Rows(row(245), row(249), 5, False, 5, "")),
        (250, "", Rows(row(0), row(249), 250, False, 250, "")),
        (249, "", Rows(row(0), row(248), 249, False, 249, row(249))),
        (150, "", Rows(row(0), row(149), 150, False, 150, row(150))),
        (0, row(100), Rows(row(100), row(249), 150, False, 150, "")),
        (-1, row(200), Rows(row(200), row(249), 50, False, 50, "")),
        (0, "", Rows(row(0), row(99), 100, True)),
        (-1, "", Rows(row(0), row(249), 250, False, 250, "")),
        (10, "zzz", Rows("", "", 0, False, 0, "")),
    ],
)
def test_a_page_has_this_size_and_this_bookmark(asked: AskedNetwork, page: int, bookmark: str, expected: Rows) -> None:
    (found,) = asked.ask(rows("row", "rox", page=page, bookmark=bookmark))

    assert read_rows(found) == expected


@pytest.mark.parametrize("writing", [put("a"), put("a", b"1", "own"), metadata("a"), purge("a", "own")], ids=str)
@pytest.mark.parametrize(
    ("query", "after_query", "after_write"),
    [
        (
            rows("row", "rox", page=10),
            "Transaction has already performed a paginated query. Writes are not allowed",
            "Paginated queries are supported only in a read-only transaction",
        ),
        (
            rows("row", "rox", collection="own"),
            "Transaction has already performed queries on pvt data. Writes are not allowed",
            "Queries on pvt data is supported only in a read-only transaction",
        ),
    ],
    ids=["page", "private"],
)
def test_such_queries_and_writes_exclude_each_other(
    asked: AskedNetwork, writing: Request, query: Request, after_query: str, after_write: str
) -> None:
    unsupported = "txid [ID]: unsuppored transaction. "  # Fabric's own spelling
    assert asked.refusal(query, writing) == unsupported + after_query
    assert asked.refusal(writing, query) == unsupported + after_write


# --- private data


def test_who_is_no_member_has_the_hash_alone(asked: AskedNetwork) -> None:
    hashed, several, range_, value = asked.ask(
        ("GET_PRIVATE_DATA_HASH", shim.GetState(key="secret0001", collection="own")),
        many("secret0001", collection="own"),
        rows("secret", "", collection="own"),
        get("secret0001", "own"),
        peer=CUSTOMER,
    )

    assert hashed == sha256(b"1").digest()
    assert isinstance(several, bytes)
    assert list(shim.GetStateMultipleResult.FromString(several).values) == [b""]
    assert read_rows(range_) == Rows("", "", 0, has_more=False)
    assert isinstance(value, Refused)
    assert re.sub(r"BlockNum: \d+", "BlockNum: N", value.words) == (
        "GET_STATE failed: transaction ID: ID: private data matching public hash version is not available. Public hash "
        "version = {BlockNum: N, TxNum: 0}, Private data version = <nil>"
    )


@pytest.mark.parametrize(
    ("request_", "access"),
    [
        (get("a", "guarded"), "read"),
        (many("a", collection="guarded"), "read"),
        (rows(collection="guarded"), "read"),
        (put("a", b"1", "guarded"), "write"),
        (purge("a", "guarded"), "write"),
        (metadata("a", b"1", "guarded"), "write"),
    ],
    ids=str,
)
def test_a_guarded_collection_is_for_clients_of_members(asked: AskedNetwork, request_: Request, access: str) -> None:
    assert isinstance(asked.ask(request_)[0], bytes)
    assert asked.refusal(request_, client=CUSTOMER) == (
        f"tx creator does not have {access} access permission on privatedata in chaincodeName:asking collectionName: "
        "guarded"
    )


# --- calls


NO_ADMIN = (
    "Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with "
    "policy [Admins]: [The identity is not an admin under this MSP [ServiceMSP]: The identity does not contain OU "
    "[ADMIN], MSP: [ServiceMSP]]"
)
NOT_INITIALIZED = "chaincode 'begun' has not been initialized for this version, must call as init first"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "none",
            (
                "execute failed: invalid invocation: [channel consortium] failed to get chaincode container info for "
                "none: chaincode none not found"
            ),
        ),
        (
            "none/second",
            (
                "execute failed: invalid invocation: [channel second] failed to get chaincode container info for none: "
                "chaincode none not found"
            ),
        ),
        (
            "",
            (
                "execute failed: invalid invocation: [channel consortium] failed to get chaincode container info for : "
                "chaincode  not found"
            ),
        ),
        ("asking", "execute failed: error sending: txid: ID(consortium) exists"),
        ("other/nowhere", "Failed to get policy manager for channel [nowhere]"),
        ("qscc/nowhere", "failed to find ledger for channel: nowhere"),
        ("begun", f"execute failed: invalid invocation: {NOT_INITIALIZED}"),
    ],
)
def test_a_call_is_refused_in_these_words(asked: AskedNetwork, name: str, words: str) -> None:
    assert asked.refusal(call(name, arguments=[b"a"])) == words


def test_the_chaincode_of_fabric_1_is_not_there_to_be_called(asked: AskedNetwork) -> None:
    """How a real peer goes on names a folder of it: it looks for a package to build."""
    words = asked.refusal(call("lscc", arguments=[b"a"]))

    assert words.startswith("execute failed: could not launch chaincode lscc.syscc: ")


def definition_of(name: str) -> list[bytes]:
    arguments = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=name)
    return [b"QueryChaincodeDefinition", arguments.SerializeToString()]


@pytest.mark.parametrize(
    ("name", "arguments", "status", "message"),
    [
        (
            "qscc",
            [b"GetChainInfo", b"consortium"],
            500,
            (
                "Rejecting invoke of QSCC from another chaincode because of potential for deadlocks, original "
                "invocation for 'asking'"
            ),
        ),
        (
            "cscc",
            [b"GetChannels"],
            500,
            "Rejecting invoke of CSCC from another chaincode, original invocation for 'asking'",
        ),
        ("qscc", [], 500, "Incorrect number of arguments, 0"),
        ("cscc", [], 500, "Incorrect number of arguments, 0"),
        (
            "_lifecycle",
            [b"InstallChaincode", b""],
            500,
            f"Failed to authorize invocation due to failed ACL check: {NO_ADMIN}",
        ),
        ("_lifecycle", definition_of("none"), 404, "namespace none is not defined"),
        ("_lifecycle", definition_of("other"), 200, ""),
        ("_lifecycle", [], 500, "lifecycle scc must be invoked with arguments"),
        ("other", [b"none"], 404, "there is no such function; there are: ask, put_many, sum_many"),
    ],
)
def test_a_called_chaincode_answers(
    asked: AskedNetwork, name: str, arguments: list[bytes], status: int, message: str
) -> None:
    assert called_response(asked.ask(call(name, arguments=arguments))[0]) == (status, message)


def test_a_called_chaincode_writes_in_its_own_namespace(asked: AskedNetwork) -> None:
    found = asked.propose(b"ask", script([put("a"), call("other", get("b"), put("c")), call("other", put("d"))]))

    assert found.sets["asking"].writes == (("a", False, b"1"),)
    assert found.sets["other"].writes == (("c", False, b"1"), ("d", False, b"1"))
    assert [read.key for read in found.sets["other"].reads] == ["b"]


def test_a_chaincode_does_not_call_itself_through_another(asked: AskedNetwork) -> None:
    (found,) = asked.ask(call("other", call("asking", get("a"))))

    assert isinstance(found, bytes)
    response = proposal_response_pb2.Response.FromString(Message.FromString(found).payload)
    assert re.sub("[0-9a-f]{64}", "ID", json.loads(response.payload)[0]["refused"]) == (
        "INVOKE_CHAINCODE failed: transaction ID: ID: execute failed: error sending: txid: ID(consortium) exists"
    )


def test_what_is_written_on_another_channel_is_dropped(asked: AskedNetwork) -> None:
    found = asked.propose(b"ask", script([put("a"), call("there/second", get("b"), put("c"))]))

    assert called_response(answers(found.payload, found.tx_id)[1])[0] == 200
    assert set(found.sets) == {"_lifecycle", "asking"}
    assert [read.key for read in found.sets["_lifecycle"].reads] == [field_key("asking", "Sequence")]


def test_who_may_not_write_on_another_channel_calls_nothing_there(asked: AskedNetwork) -> None:
    assert asked.refusal(call("there/second", get("b")), client=CUSTOMER) == (
        "Failed evaluating policy on signed data during check policy on channel [second] with policy "
        "[/Channel/Application/Writers]: [implicit policy evaluation failed - 0 sub-policies were satisfied, but this "
        "policy requires 1 of the 'Writers' sub-policies to be satisfied]"
    )


# --- init


def test_a_chaincode_that_wants_an_init_refuses_everything_else(asked: AskedNetwork) -> None:
    found = asked.propose(b"ask", b"[]", chaincode="begun")

    words = f"error in simulation: failed to execute transaction ID: invalid invocation: {NOT_INITIALIZED}"
    assert (found.status, found.message) == (500, words)


def test_a_chaincode_that_wants_none_gets_none(asked: AskedNetwork) -> None:
    found = asked.propose(b"ask", b"[]", is_init=True)

    words = "invalid invocation: chaincode 'asking' does not require initialization but called as init"
    assert (found.status, found.message) == (500, f"error in simulation: failed to execute transaction ID: {words}")


def test_a_call_can_be_the_init_and_is_seen_by_the_next_transaction(asked: AskedNetwork) -> None:
    found = asked.propose(b"ask", script([call("begun", put("a"), is_init=True), call("begun", put("b"))]))

    _, second = answers(found.payload, found.tx_id)
    words = f"execute failed: invalid invocation: {NOT_INITIALIZED}"
    assert second == Refused(f"INVOKE_CHAINCODE failed: transaction ID: ID: {words}")
    assert found.sets["begun"].writes == (("\0\U0010ffffinitialized", False, b"1.0"), ("a", False, b"1"))


# --- together


@pytest.mark.parametrize("collection", ["", "own"])
def test_the_runtime_writes_and_reads_many_keys(asked: AskedNetwork, collection: str) -> None:
    asked.submit("put_many", f"many{collection}", 25, collection)

    assert asked.evaluate("sum_many", f"many{collection}", 26, collection) == b"300"


def test_the_runtime_does_it_one_by_one_where_the_peer_offers_nothing_else(tmp_path: Path) -> None:
    """A peer of 2.5 knows neither batches nor several keys."""
    with asked_network(NetworkName.NATIVE_LTS, tmp_path) as network:
        assert network.evaluate("sum_many", "row", ROWS) == b"%d" % sum(range(ROWS))
        assert network.evaluate("sum_many", "secret", 4, "own") == b"3"
