"""The steps of a seed: a fixed tour of everything the run compares, random steps in between, and at last the state.

Pure: the same seed and count give the same steps. Only what has a verdict is among them, and a transaction that is
wrong is alone in its block.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final

from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from network.protocol.collection import CollectionConfig, encode_collections
from network.protocol.lifecycle import signature_policy
from network.protocol.policy_expression import encode_policy_expression
from tests.support.differential import changes
from tests.support.differential.step import (
    JUDGE,
    PAIR,
    Again,
    Approval,
    Argument,
    Call,
    Configure,
    Events,
    HeaderHashOf,
    Order,
    Outlines,
    Package,
    PackageId,
    Propose,
    Seek,
    Send,
    Status,
    Step,
    Through,
    TransactionOf,
    Who,
    Write,
)
from tests.support.judged_network import (
    BILLING,
    CHANNEL,
    CUSTOMER,
    ORGANIZATIONS,
    SERVICE,
    Definition,
    Program,
    collection,
)
from tests.support.judged_proposal import Operation, script

BATCH_TIMEOUT: Final = "250ms"
"""Long enough that what is ordered together goes into one block."""
FIRST: Final = 5
"""How many steps begin every run: the first blocks, which others ask for, are theirs, whatever a gateway chooses."""
ON: Final = CHANNEL.encode()
LIFECYCLE: Final = "_lifecycle"
CHANGING: Final = "changing"
SERVICES: Final = "service"
BOTH_SIDES: Final = "AND('CustomerMSP.peer', OutOf(1, 'ServiceMSP.peer', 'BillingMSP.peer'))"
ANY: Final = "OR('ServiceMSP.peer', 'BillingMSP.peer', 'CustomerMSP.peer')"
AGENTS: Final = (Who(SERVICE), Who(BILLING), Who(CUSTOMER))
AUDITOR: Final = Who("AuditorMSP", "auditor")
FOREIGN: Final = Who("OrdererMSP", "admin")
EXPIRED: Final = Who(SERVICE, "expired")
STRANGER: Final = Who(SERVICE, "stranger")
REVOKED: Final = Who(SERVICE, "revoked")
NOBODY: Final = Who("NoMSP", "nobody")
STRANGERS: Final = (AUDITOR, FOREIGN, EXPIRED, STRANGER, NOBODY)
DELIVER: Final = ("Deliver", "DeliverFiltered", "DeliverWithPrivateData", "orderer")
CODES: Final = (200, 201, 299, 399, 400, 404, 499, 500, 501)

PUBLIC_KEYS: Final = tuple(f"key{number:02d}" for number in range(16))
PRIVATE_KEYS: Final = tuple(f"private{number:02d}" for number in range(8))
ROW: Final = "row"
ROWS: Final = 120
COMPOSITES: Final = tuple((kind, part) for kind in ("request", "customer") for part in ("billing", "field", "meter"))
COLLECTIONS: Final = ("shared", "pair", "brief")
BLOCKS_TO_LIVE: Final = 4
MEMBERS: Final = {"shared": ORGANIZATIONS, "pair": PAIR, "brief": PAIR}


def definitions(judge: Program, service: Program) -> list[Definition]:
    """Give the chaincodes that the steps call."""
    collections = [collection(name, MEMBERS[name]) for name in COLLECTIONS]
    collections[2] = collections[2]._replace(block_to_live=BLOCKS_TO_LIVE)
    everywhere = dict.fromkeys(ORGANIZATIONS, judge)
    return [
        Definition("callee", everywhere, ANY),
        Definition(JUDGE, everywhere, BOTH_SIDES, collections),
        Definition(SERVICES, dict.fromkeys(ORGANIZATIONS, service), BOTH_SIDES, probe=(b"list_customers",)),
        Definition(CHANGING, everywhere, BOTH_SIDES),
        Definition("absent", {SERVICE: judge}, "OR('ServiceMSP.peer')"),
    ]


def steps(seed: int, count: int) -> list[Step]:
    """Give so many steps; those that every run has come even if they are more."""
    chance = Random(seed)  # noqa: S311  # a workload is no secret
    tour, closing = _tour(), _closing()
    workload = _Workload(chance)
    drawn = [workload.step() for _ in range(max(0, count - len(tour) - len(closing)))]
    return _named([*tour[:FIRST], *_merged(chance, tour[FIRST:], drawn), *closing])


def _merged(chance: Random, first: Sequence[Step], second: Sequence[Step]) -> Iterable[Step]:
    """Mix two lists; each keeps its order. A tour's step refers to others of the tour alone."""
    places = set(chance.sample(range(len(first) + len(second)), len(first)))
    firsts, seconds = iter(first), iter(second)
    for place in range(len(first) + len(second)):
        yield next(firsts if place in places else seconds)


def _named(found: Sequence[Step]) -> list[Step]:
    names = [step.name for step in found]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)[:5]
    return list(found)


# --- calls


def run(*operations: Operation, who: Who = AGENTS[0], chaincode: str = JUDGE, **fields: Any) -> Call:
    """Call the script contract; what fails is told in words."""
    return Call((b"texts", script(operations)), chaincode, who, **fields)


def system(chaincode: str, *arguments: Argument, who: Who = AGENTS[0], channel: str = CHANNEL) -> Call:
    """Call a chaincode of the peer's own."""
    return Call(arguments, chaincode, who, channel=channel)


def service(*arguments: object, who: Who = AGENTS[0]) -> Call:
    """Call the customer-service contract."""
    texts = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
    return Call(tuple(text.encode() for text in texts), SERVICES, who)


def definition(kind: Any, sequence: int, name: str = CHANGING, **fields: Any) -> bytes:
    """Write arguments of `_lifecycle` that hold a definition."""
    policy = fields.pop("policy", BOTH_SIDES)
    collections = fields.pop("collections", ())
    message = kind(
        sequence=sequence,
        name=name,
        version=fields.pop("version", f"{sequence}.0"),
        endorsement_plugin="escc",
        validation_plugin="vscc",
        validation_parameter=signature_policy(encode_policy_expression(policy)),
        **fields,
    )
    if collections:
        message.collections.CopyFrom(collection_pb2.CollectionConfigPackage.FromString(encode_collections(collections)))
    return bytes(message.SerializeToString(deterministic=True))


def committing(sequence: int, **fields: Any) -> bytes:
    """Write what commits a definition."""
    return definition(lifecycle_pb2.CommitChaincodeDefinitionArgs, sequence, **fields)


# --- the tour


def _tour() -> list[Step]:
    found: list[Step] = [
        Order("rows", (Write(run(["put_many", ROW, ROWS, "x"])),)),
        *_contracts(),
        *_conflicts(),
        *_private_data(),
        *_key_policies(),
        *_refused_proposals(),
        *_wrong_transactions(),
        *_refused_envelopes(),
        *_blocks(),
        *_system_chaincodes(),
        *_lifecycle(),
        *_gateway(),
        *_configuration(),
    ]
    return found


def _contracts() -> list[Step]:
    request = {"customer": "c-1", "category": "meter", "title": "a meter"}
    calls = [
        service("register_customer", "key-1", "c-1", {"kind": "household", "region": "north"}),
        service("register_customer", "key-1", "c-1", {"kind": "household", "region": "north"}),
        service("register_customer", "key-1", "c-1", {"kind": "household", "region": "south"}),
        service("open_request", "key-2", "r-1", request),
        service("open_request", "key-3", "r-1", request),
        service("assign_request", "key-4", "r-1", "field"),
        service("assign_request", "key-5", "r-1", "field", who=Who(BILLING)),
        service("open_request", "key-6", "r-2", {**request, "category": "none"}),
        service("open_request", "key-7", "r-2", {**request, "category": "billing"}, who=Who(CUSTOMER)),
        service("assign_next", "key-8", "billing", who=Who(BILLING)),
        service("nothing"),
        service("open_request"),
        service("open_request", "key-9", "r-9", "no document"),
    ]
    return [
        *[Order(f"service {number}", (Write(call),)) for number, call in enumerate(calls)],
        *[
            Propose(f"service read {number}", service(*arguments))
            for number, arguments in enumerate(
                (
                    ("read_request", "r-1"),
                    ("read_request", "none"),
                    ("list_requests",),
                    ("request_history", "r-1"),
                    ("read_customer", "c-1"),
                    ("list_open_requests", "billing"),
                )
            )
        ],
        *[
            Order(f"status {code}", (Write(Call((b"status", str(code).encode(), b"so", b"payload", b"event"))),))
            for code in CODES
        ],
        Propose("no function", Call((b"nothing",))),
        Propose("no arguments", Call(())),
        Propose("no script", Call((b"run", b"none"))),
        Propose("too many arguments", Call((b"run", b"[]", b"[]"))),
        Order(
            "a call of another chaincode", (Write(run(["invoke", "callee", ["run", '[["put","called","1"]]'], ""])),)
        ),
        Propose(
            "calls that fail",
            run(
                ["invoke", "unknown", [], ""],
                ["invoke", "judge", ["run", "[]"], ""],
                ["invoke", "callee", ["run", "[]"], "elsewhere"],
                ["invoke", "qscc", ["GetChainInfo", CHANNEL], ""],
            ),
        ),
        Propose("a query language", run(["query", "{}"], ["query_page", "{}", 2, ""], ["pquery", "shared", "{}"])),
        Order("a batch", (Write(run(["batch", [["put", "batch1", "1"], ["del", "batch2"], ["put", "batch1", "2"]]])),)),
        Order("an event", (Write(run(["event", "changed", "what"], ["put", "evented", "1"])),)),
        Propose("the whole range", run(["range", "", ""], ["range", ROW, "s"], ["range", ROW, "s", 1])),
        Propose("pages", run(["page", ROW, "s", 50, ""], ["page", ROW, "s", 50, f"{ROW}0050"])),
        Propose("no page after a write", run(["put", "k", "1"], ["page", ROW, "s", 1, ""])),
        Propose("no write after a page", run(["page", ROW, "s", 1, ""], ["put", "k", "1"])),
    ]


def _conflicts() -> list[Step]:
    def read_and_write(key: str, value: str) -> Write:
        return Write(run(["get", key], ["put", key, value]))

    return [
        Order("a conflict", (read_and_write("fought", "1"), read_and_write("fought", "2"))),
        Order(
            "a phantom",
            (Write(run(["put", "ghost1", "1"])), Write(run(["range", "ghost", "ghosu"], ["put", "seen", "1"]))),
        ),
        Order(
            "no phantom",
            (
                Write(run(["put", "ghost1", "2"], ["del", "ghost0"])),
                Write(run(["range", "h", "i"], ["put", "seen", "2"])),
            ),
        ),
        Order(
            "a key gone from a range",
            (Write(run(["del", "ghost1"])), Write(run(["range", "ghost", "ghosu"], ["put", "seen", "3"]))),
        ),
        Order(
            "a large phantom",
            (Write(run(["put", f"{ROW}0007x", "1"])), Write(run(["range", ROW, "s"], ["put", "seen", "4"]))),
        ),
        Order(
            "blind writes",
            (Write(run(["put", "blind", "1"])), Write(run(["put", "blind", "2"])), Write(run(["del", "blind"]))),
        ),
        Order("written after deleted", (Write(run(["del", "blind"])), Write(run(["put", "blind", "3"])))),
        Order(
            "a private conflict",
            (
                Write(run(["pget", "shared", "f"], ["pput", "shared", "f", "1"])),
                Write(run(["pget", "shared", "f"], ["pput", "shared", "f", "2"])),
            ),
        ),
        Order("a read alone", (Write(run(["put", "fought", "3"])), Write(run(["get", "fought"])))),
        Order("the same twice in a block", (Write(run(["put", "twice", "1"]), copies=2),)),
        Again("the same again", "the same twice in a block"),
        Again("a conflict again", "a conflict"),
        Order("ten in a block", tuple(read_and_write(f"tenth{number % 3}", str(number)) for number in range(10))),
        Order("nothing at all", (Write(run()),)),
        Order(
            "policies in a block",
            (Write(run(["put", "ruled", "1"], ["set_policy", "ruled", [CUSTOMER]])), Write(run(["put", "ruled", "2"]))),
        ),
        Order(
            "policies in the next block",
            (Write(run(["set_policy", "ruled", [SERVICE]])), Write(run(["put", "ruled", "3"]))),
        ),
    ]


def _private_data() -> list[Step]:
    secret = {"secret": b"salted"}
    return [
        Order(
            "private writes",
            (
                Write(
                    run(
                        ["pput_transient", "shared", "t", "secret"],
                        ["pput", "shared", "u", "1"],
                        ["put", "public", "1"],
                        transient=secret,
                    )
                ),
            ),
        ),
        Order(
            "private writes of a pair",
            (
                Write(
                    run(["pput_transient", "pair", "t", "secret"], ["pput", "brief", "t", "1"], transient=secret), PAIR
                ),
            ),
        ),
        Order("private writes of too few", (Write(run(["pput", "pair", "v", "1"]), (SERVICE,)),)),
        Order("private and public by a pair", (Write(run(["pput", "pair", "w", "1"], ["put", "public", "2"]), PAIR),)),
        Propose(
            "private writes of a stranger",
            run(["pput", "pair", "x", "1"], ["pget", "pair", "t"], who=Who(CUSTOMER)),
            PAIR,
        ),
        Propose(
            "private reads",
            run(
                ["pget", "shared", "t"],
                ["phash", "shared", "t"],
                ["pget", "pair", "t"],
                ["phash", "pair", "t"],
                ["pget", "pair", "none"],
            ),
        ),
        Propose("private ranges", run(["prange", "shared", "", ""], ["prange", "pair", "", ""])),
        Propose("no write after a private range", run(["prange", "shared", "", ""], ["put", "k", "1"])),
        Propose("no private range after a write", run(["put", "k", "1"], ["prange", "shared", "", ""])),
        Propose(
            "no collection",
            run(
                ["pget", "", "k"],
                ["pput", "none", "k", "1"],
                ["phash", "none", "k"],
                ["ppurge", "none", "k"],
                ["prange", "none", "", ""],
                ["ppolicy", "none", "k"],
            ),
        ),
        Order("private deletions", (Write(run(["pdel", "shared", "u"], ["ppurge", "shared", "t"])),)),
        Propose(
            "what they left",
            run(["pget", "shared", "t"], ["phash", "shared", "t"], ["pget", "shared", "u"], ["phash", "shared", "u"]),
        ),
        Order(
            "a purge and a write",
            (
                Write(run(["ppurge", "pair", "t"], ["pput", "pair", "t", "again"]), PAIR),
                Write(run(["ppurge", "pair", "t"]), PAIR),
            ),
        ),
        Order("a short life", (Write(run(["pput", "brief", "b", "1"]), PAIR),)),
    ]


def _key_policies() -> list[Step]:
    return [
        Order(
            "a policy of a key",
            (
                Write(
                    run(
                        ["put", "own", "1"],
                        ["set_policy", "own", [CUSTOMER]],
                        ["pput", "shared", "o", "1"],
                        ["set_ppolicy", "shared", "o", [SERVICE]],
                    )
                ),
            ),
        ),
        Order("by whom it asks for", (Write(run(["put", "own", "2"]), (CUSTOMER,)),)),
        Order("by others", (Write(run(["put", "own", "3"]), PAIR),)),
        Order("a private key by whom it asks for", (Write(run(["pput", "shared", "o", "2"]), (SERVICE,)),)),
        Order("a private key by others", (Write(run(["pput", "shared", "o", "3"]), (BILLING,)),)),
        Order("a policy by whom it asks for", (Write(run(["set_policy", "own", [SERVICE, CUSTOMER]]), (CUSTOMER,)),)),
        Propose("policies as they stand", run(["policy", "own"], ["policy", "none"], ["ppolicy", "shared", "o"])),
        Order("an own key and another", (Write(run(["put", "own", "4"], ["put", "other", "1"]), (SERVICE,)),)),
        Order("deleted with its policy", (Write(run(["del", "own"])),)),
        Order("anew without", (Write(run(["put", "own", "5"])),)),
        Propose("no policy any more", run(["policy", "own"], ["get", "own"])),
    ]


def _refused_proposals() -> list[Step]:
    reading = run(["get", "key00"])
    return [
        *[
            Propose(f"a proposal: {name}", run(["get", "key00"], change=name), (SERVICE, CUSTOMER))
            for name in changes.PROPOSALS
        ],
        *[Propose(f"a proposal by {who.msp_id}/{who.user}", run(["get", "key00"], who=who)) for who in STRANGERS],
        *[
            Propose(f"a proposal on {channel!r}", Call(reading.arguments, channel=channel))
            for channel in ("", "elsewhere", "UPPER")
        ],
        *[
            Propose(f"a proposal to {name!r}", Call(reading.arguments, name))
            for name in ("nowhere", "absent", "lscc2", "")
        ],
    ]


def _wrong_transactions() -> list[Step]:
    wrong = [
        Order(f"a transaction: {name}", (Write(run(["put", "wrong", "1"]), spoilt=name),))
        for name in changes.TRANSACTIONS
    ]
    return [
        *wrong,
        *[
            Order(f"endorsed by {' '.join(peers)}", (Write(run(["put", "endorsed", "1"]), peers),))
            for peers in ((SERVICE,), (CUSTOMER,), PAIR, (SERVICE, CUSTOMER), (BILLING, CUSTOMER))
        ],
        Order("by an auditor", (Write(run(["put", "audited", "1"], who=AUDITOR)),)),
    ]


def _refused_envelopes() -> list[Step]:
    return [
        *[Send(f"an envelope: {name}", name) for name in changes.ENVELOPES if name != "nothing wrong"],
        *[
            Send(f"an envelope by {who.msp_id}/{who.user}", "nothing wrong", who)
            for who in STRANGERS
            if who != FOREIGN  # orderers' admins may write
        ],
    ]


def _blocks() -> list[Step]:
    places: tuple[tuple[Any, Any], ...] = (
        (0, 2),
        (1, 1),
        ("oldest", "oldest"),
        ("newest", "newest"),
        (2, 1),
        (None, 0),
        (0, None),
        ("unset", 0),
        ("newest", 0),
    )
    return [
        step
        for name in DELIVER
        for step in (
            *[Seek(f"{name}: {start} to {stop}", name, start, stop) for start, stop in places],
            Seek(f"{name}: far above, without waiting", name, 10**9, 10**9, waits=False),
            Seek(f"{name}: what comes next, without waiting", name, "next_commit", "next_commit", waits=False),
            *[Seek(f"{name}: {change}", name, 0, 0, change=change) for change in changes.SEEKS],
            *[Seek(f"{name}: by {who.msp_id}/{who.user}", name, 0, 0, who) for who in STRANGERS],
        )
    ]


def _system_chaincodes() -> list[Step]:
    first = "rows"
    queries: list[tuple[str, tuple[Argument, ...]]] = [
        ("qscc", (b"GetChainInfo", ON)),
        ("qscc", (b"GetBlockByTxID", ON, TransactionOf(first))),
        ("qscc", (b"GetTransactionByID", ON, TransactionOf(first))),
        ("qscc", (b"GetTransactionByID", ON, TransactionOf("a conflict"))),
        ("qscc", (b"GetTransactionByID", ON, b"none")),
        ("qscc", (b"GetBlockByHash", ON, b"none")),
        ("qscc", (b"GetBlockByNumber", ON, b"none")),
        ("qscc", (b"GetBlockByNumber", ON, b"99999999")),
        ("qscc", (b"GetBlockByNumber", ON)),
        ("qscc", (b"GetChainInfo", b"elsewhere")),
        ("qscc", (b"Nothing", ON, b"1")),
        ("qscc", ()),
        ("cscc", (b"GetChannels",)),
        ("cscc", (b"GetConfigBlock", ON)),
        ("cscc", (b"GetChannelConfig", ON)),
        ("cscc", (b"GetConfigBlock", b"elsewhere")),
        ("cscc", (b"Nothing", ON)),
        ("cscc", ()),
        ("cscc", (b"JoinChain", b"none")),
        ("cscc", (b"JoinBySnapshotStatus",)),
    ]
    hashed = system("qscc", b"GetBlockByHash", ON, HeaderHashOf(first))
    return [
        *[Propose(f"{name} {number}", system(name, *arguments)) for number, (name, arguments) in enumerate(queries)],
        *[
            Propose(f"{name} {number} of {who.msp_id}/{who.user}", system(name, *arguments, who=who), (SERVICE,))
            for who in (AUDITOR, FOREIGN, Who(SERVICE, "admin"), Who(BILLING, "admin"))
            for number, (name, arguments) in enumerate([queries[0], queries[2], queries[12], queries[14], queries[18]])
        ],
        *[
            Propose(f"{name} {number} of the peer", system(name, *arguments, channel=""), (SERVICE,))
            for number, (name, arguments) in enumerate([queries[0], *queries[12:]])
        ],
        Propose("qscc by hash", hashed),
        Propose("lscc", system("lscc", b"getchaincodes"), (SERVICE,)),
        *[
            Status(f"how {name} stands", TransactionOf(name))
            for name in (first, "a conflict", "a phantom", "the same twice in a block")
        ],
        Status("how it stands, to strangers", TransactionOf(first), STRANGER),
        Status("how it stands, to auditors", TransactionOf(first), AUDITOR),
        Status("how it stands elsewhere", TransactionOf(first), channel="elsewhere"),
    ]


def _lifecycle() -> list[Step]:  # in this order: sequences go up by one
    admins = {msp_id: Who(msp_id, "admin") for msp_id in ORGANIZATIONS}
    admin = admins[SERVICE]
    readiness = lifecycle_pb2.CheckCommitReadinessArgs
    nothing = lifecycle_pb2.QueryInstalledChaincodesArgs().SerializeToString()
    named = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=CHANGING).SerializeToString()
    unnamed = lifecycle_pb2.QueryChaincodeDefinitionArgs(name="none").SerializeToString()
    approved = lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name=CHANGING).SerializeToString()

    def call(function: str, argument: Argument, who: Who = admin, channel: str = CHANNEL) -> Call:
        return system(LIFECYCLE, function.encode(), argument, who=who, channel=channel)

    def approve(msp_id: str, content: bytes) -> Write:
        argument = Approval(CHANGING, content)
        return Write(call("ApproveChaincodeDefinitionForMyOrg", argument, admins[msp_id]), (msp_id,))

    def approvals(label: str, content: bytes, *msp_ids: str) -> list[Step]:
        return [Order(f"{label} approved by {msp_id}", (approve(msp_id, content),)) for msp_id in msp_ids]

    def commit(label: str, content: bytes, peers: tuple[str, ...] = (SERVICE, CUSTOMER)) -> Step:
        return Order(label, (Write(call("CommitChaincodeDefinition", content), peers),))

    def queries(label: str) -> list[Step]:
        return [
            Propose(f"{label}: its definition", call("QueryChaincodeDefinition", named)),
            Propose(f"{label}: all definitions", call("QueryChaincodeDefinitions", b"")),
            Propose(f"{label}: what is approved", call("QueryApprovedChaincodeDefinition", approved), (SERVICE,)),
            Propose(f"{label}: what is installed", call("QueryInstalledChaincodes", nothing, channel=""), (SERVICE,)),
        ]

    first = collection("early", PAIR)
    second = CollectionConfig("late", encode_policy_expression("OR('ServiceMSP.member')"), block_to_live=2)
    v2 = committing(2, version="2.0", collections=[first])
    v3 = committing(3, version="3.0", collections=[first, second], policy=ANY)
    v4 = committing(4, version="4.0", collections=[second], policy=ANY)
    changed = committing(4, version="4.0", collections=[first, second._replace(block_to_live=3)], policy=ANY)
    found: list[Step] = [
        Propose("installed again", call("InstallChaincode", Package(CHANGING), channel=""), (SERVICE,)),
        Propose("no package", call("InstallChaincode", b"", channel=""), (SERVICE,)),
        Propose("installed by an agent", call("InstallChaincode", Package(CHANGING), AGENTS[0], ""), (SERVICE,)),
        Propose(
            "one installed",
            call("QueryInstalledChaincode", PackageId("QueryInstalledChaincodeArgs", CHANGING), channel=""),
            (SERVICE,),
        ),
        Propose(
            "its package",
            call("GetInstalledChaincodePackage", PackageId("GetInstalledChaincodePackageArgs", CHANGING), channel=""),
            (SERVICE,),
        ),
        Propose(
            "none installed",
            call(
                "QueryInstalledChaincode",
                lifecycle_pb2.QueryInstalledChaincodeArgs(package_id="none").SerializeToString(),
                channel="",
            ),
            (SERVICE,),
        ),
        *queries("at first"),
        Propose("no definition", call("QueryChaincodeDefinition", unnamed)),
        Propose("no function of lifecycle", call("Nothing", b"")),
        Propose("nothing to lifecycle", system(LIFECYCLE, who=admin)),
        Propose("garbage to lifecycle", call("QueryChaincodeDefinition", b"\xff")),
        *[
            Propose(f"readiness of {sequence}", call("CheckCommitReadiness", definition(readiness, sequence)))
            for sequence in (0, 1, 2, 3)
        ],
        *[
            Order(f"an approval of {label}", (approve(SERVICE, content),))
            for label, content in (
                ("sequence 0", committing(0)),
                ("sequence 1 as it is", committing(1)),
                ("sequence 1 otherwise", committing(1, version="9.0")),
                ("sequence 3", committing(3)),
                ("no name", committing(2, name="")),
                ("a wrong name", committing(2, name="a/b")),
                ("a wrong version", committing(2, version="a b")),
                ("a wrong collection", committing(2, collections=[first._replace(name="a b")])),
                ("two collections of one name", committing(2, collections=[first, first])),
                (
                    "impossible counts",
                    committing(2, collections=[first._replace(required_peer_count=2, maximum_peer_count=1)]),
                ),
            )
        ],
        Propose(
            "an approval by an agent",
            call("ApproveChaincodeDefinitionForMyOrg", Approval(CHANGING, v2), AGENTS[0]),
            (SERVICE,),
        ),
        Propose(
            "an approval by another's admin",
            call("ApproveChaincodeDefinitionForMyOrg", Approval(CHANGING, v2), admins[BILLING]),
            (SERVICE,),
        ),
        Order("a commit without approvals", (Write(call("CommitChaincodeDefinition", v2), (SERVICE, CUSTOMER)),)),
        *approvals("v2", v2, SERVICE),
        *approvals("v2 again", v2, SERVICE),
        commit("a commit with one approval", v2),
        *approvals("v2 otherwise", committing(2, version="2.1"), BILLING),
        *approvals("v2 otherwise again", committing(2, version="2.2"), BILLING),
        *approvals("v2", v2, BILLING),
        Propose(
            "readiness with two",
            call("CheckCommitReadiness", definition(readiness, 2, version="2.0", collections=[first])),
        ),
        Propose(
            "readiness of another",
            call("CheckCommitReadiness", definition(readiness, 2, version="2.1", collections=[first])),
        ),
        commit("a commit of too few", v2, (SERVICE,)),
        *approvals("v2", v2, CUSTOMER),
        commit("v2 committed", v2),
        commit("v2 committed again", v2),
        *queries("v2"),
        Order("a write with v2", (Write(run(["put", "c", "1"], ["pput", "early", "e", "1"], chaincode=CHANGING)),)),
        Propose("a collection not yet there", run(["pput", "late", "l", "1"], chaincode=CHANGING)),
        *approvals("v3", v3, *ORGANIZATIONS),
        commit("v3 committed", v3),
        *queries("v3"),
        Order(
            "a write with v3",
            (
                Write(
                    run(["put", "c", "2"], ["pput", "early", "e", "2"], ["pput", "late", "l", "1"], chaincode=CHANGING),
                    PAIR,
                ),
            ),
        ),
        Order("a write by one with v3", (Write(run(["put", "c", "3"], chaincode=CHANGING), (BILLING,)),)),
        Propose(
            "reads with v3",
            run(
                ["get", "c"], ["pget", "early", "e"], ["pget", "late", "l"], ["phash", "late", "l"], chaincode=CHANGING
            ),
        ),
        *approvals("a collection gone", v4, SERVICE),
        *approvals("another block-to-live", changed, SERVICE),
        Propose("a spoilt package", call("InstallChaincode", Package(CHANGING, spoilt=True), channel=""), (SERVICE,)),
    ]
    return found


def _gateway() -> list[Step]:
    pair = {"secret": b"1"}
    return [
        Through("evaluated", run(["get", "key00"])),
        Through("evaluated at the customers'", run(["get", "key00"], who=Who(CUSTOMER)), CUSTOMER),
        Through("evaluated by billing", run(["pget", "pair", "t"], who=Who(BILLING)), organizations=(BILLING,)),
        Through("evaluated by nobody", run(["get", "key00"]), organizations=("NoMSP",)),
        Through("evaluated by auditors", run(["get", "key00"]), organizations=("AuditorMSP",)),
        Through("submitted", run(["put", "gateway", "1"]), submits=True),
        Through("submitted by all", run(["put", "gateway", "2"]), organizations=ORGANIZATIONS, submits=True),
        Through("submitted by too few", run(["put", "gateway", "3"]), organizations=(SERVICE,), submits=True),
        Through("submitted by auditors", run(["put", "gateway", "4"]), organizations=("AuditorMSP",), submits=True),
        Through(
            "submitted privately",
            run(["pput_transient", "pair", "g", "secret"], transient=pair),
            organizations=PAIR,
            submits=True,
        ),
        Through("submitted to nowhere", Call((b"run", b"[]"), "nowhere"), submits=True),
        Through("evaluated nowhere", Call((b"run", b"[]"), "nowhere")),
        Through("submitted elsewhere", Call((b"run", b"[]"), channel="elsewhere"), submits=True),
        Through("evaluated elsewhere", Call((b"run", b"[]"), channel="elsewhere")),
        *[
            Through(f"evaluated to {code}", Call((b"status", str(code).encode(), b"so", b"payload", b"")))
            for code in CODES
        ],
        *[
            Through(f"submitted to {code}", Call((b"status", str(code).encode(), b"so", b"payload", b"")), submits=True)
            for code in (399, 400, 500)
        ],
        *[
            Through(
                f"{verb} as {who.user} of {who.msp_id}",
                run(["put", "gateway", "5"], who=who),
                submits=verb == "submitted",
            )
            for who in STRANGERS
            for verb in ("evaluated", "submitted")
        ],
        *[
            Through(f"evaluated: {name}", run(["get", "key00"], change=name))
            for name in changes.PROPOSALS
            if name not in ("no creator", "created by nobody")
        ],
    ]


def _configuration() -> list[Step]:
    orderers = (FOREIGN,)
    admins = tuple(Who(msp_id, "admin") for msp_id in ORGANIZATIONS)
    two = admins[1:]
    reading = ["get", "key00"]
    return [
        Configure("blocks of twenty", "messages", orderers, 20),
        Again("blocks of twenty again", "blocks of twenty"),
        Configure("blocks of thirty by admins of applications", "messages", admins, 30),
        Configure("blocks of thirty by nobody", "messages", (), 30),
        Configure("blocks of thirty by strangers", "messages", (STRANGER, EXPIRED, NOBODY), 30),
        Configure("smaller transactions", "bytes", orderers, 3_000_000),
        Order("a large transaction", (Write(run(["put", "large", "x" * 1_600_000])),)),
        Configure("proposals for writers, by one", "writers propose", admins[:1]),
        Configure("proposals for writers, by agents", "writers propose", AGENTS),
        Configure("proposals for writers, sent by an auditor", "writers propose", two, who=AUDITOR),
        Configure("proposals for writers", "writers propose", two),
        Propose("a reader's proposal", run(reading, who=AUDITOR)),
        Propose("a writer's proposal", run(reading)),
        Through("a reader's evaluation", run(reading, who=AUDITOR)),
        Configure("proposals for readers", "readers propose", two),
        Propose("a reader's proposal again", run(reading, who=AUDITOR)),
        Configure("proposals for nobody", "an acl to nowhere", two),
        Propose("nobody's proposal", run(reading)),
        Configure("proposals for readers once more", "readers propose", two),
        Configure("one endorses", "one endorses", two),
        Configure("two endorse", "two endorse", two),
        Configure("another policy", "another policy", two),
        Configure("no other policy", "no other policy", two),
        Propose("before it is revoked", run(reading, who=REVOKED)),
        Order("written before it is revoked", (Write(run(["put", "revoked", "1"], who=REVOKED)),)),
        Configure("revocations by another organisation", "revocations", admins[1:2]),
        Configure("revocations", "revocations", admins[:1]),
        Propose("by who is revoked", run(reading, who=REVOKED)),
        Send("an envelope by who is revoked", "nothing wrong", REVOKED),
        Through("evaluated by who is revoked", run(reading, who=REVOKED)),
        Status("how it stands, to who is revoked", TransactionOf("rows"), REVOKED),
        *[Seek(f"{name}: by who is revoked", name, 0, 0, REVOKED) for name in DELIVER],
        *[
            Configure(f"an update: {name}", name, orderers, 40)
            for name in ("another consensus", "another channel", "no change", "another version", "garbage")
        ],
        Propose("the configuration afterwards", system("cscc", b"GetConfigBlock", ON)),
    ]


# --- random steps


class _Workload:
    """Steps drawn from one source of chance; each is of one of the kinds below."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._number = 0
        self._ordered: list[str] = []
        self._kinds: tuple[tuple[int, Callable[[str], Step]], ...] = (
            (16, self._reads),
            (16, self._writes),
            (6, self._private_writes),
            (4, self._policies),
            (12, self._conflict),
            (6, self._evaluated),
            (4, self._submitted),
            (6, self._refused),
            (2, self._wrong),
            (5, self._asked),
            (4, self._sought),
            (3, self._sent),
            (4, self._service),
            (1, self._configured),
        )

    def step(self) -> Step:
        """Draw the next step."""
        self._number += 1
        (kind,) = self._chance.choices([kind for _, kind in self._kinds], [weight for weight, _ in self._kinds])
        step = kind(f"{self._number} {kind.__name__.strip('_')}")
        if isinstance(step, Order) and not step.writes[0].spoilt:
            self._ordered.append(step.name)
        return step

    def _key(self) -> str:
        return self._chance.choice(PUBLIC_KEYS)

    def _read(self) -> Operation:
        pick = self._chance
        start, end = sorted((pick.randrange(ROWS), pick.randrange(ROWS + 1)))
        composite = pick.choice(COMPOSITES)
        return pick.choice(
            (
                ["get", self._key()],
                ["gets", [self._key() for _ in range(3)]],
                ["range", f"{ROW}{start:04d}", f"{ROW}{end:04d}"],
                ["range", "key", "kez", pick.randrange(5)],
                ["partial", composite[0], [composite[1]]],
                ["partial", composite[0], []],
                ["history", self._key()],
                ["policy", self._key()],
                ["pget", pick.choice(COLLECTIONS), pick.choice(PRIVATE_KEYS)],
                ["phash", pick.choice(COLLECTIONS), pick.choice(PRIVATE_KEYS)],
                ["invoke", "callee", ["run", '[["range","",""]]'], ""],
            )
        )

    def _write(self) -> Operation:
        pick = self._chance
        kind, part = pick.choice(COMPOSITES)
        return pick.choice(
            (
                ["put", self._key(), str(pick.randrange(1000))],
                ["put", self._key(), "\N{GREEK SMALL LETTER MU}" * pick.randrange(1, 9)],
                ["del", self._key()],
                ["put_composite", kind, [part, f"r{pick.randrange(5)}"], str(pick.randrange(1000))],
                ["put", f"{ROW}{pick.randrange(ROWS):04d}", str(pick.randrange(1000))],
                ["invoke", "callee", ["run", f'[["put","called{pick.randrange(4)}","{pick.randrange(1000)}"]]'], ""],
                ["event", f"event{pick.randrange(3)}", str(pick.randrange(1000))],
            )
        )

    def _private_write(self, name: str) -> Operation:
        pick = self._chance
        key = pick.choice(PRIVATE_KEYS)
        return pick.choice(
            (
                ["pput", name, key, str(pick.randrange(1000))],
                ["pput_transient", name, key, "secret"],
                ["pdel", name, key],
                ["ppurge", name, key],
            )
        )

    def _peers(self) -> tuple[str, ...]:
        """Most often those who satisfy the policies."""
        pick = self._chance
        enough = ((SERVICE, CUSTOMER), (BILLING, CUSTOMER), ORGANIZATIONS, ORGANIZATIONS)
        return pick.choice(enough) if pick.random() < 0.85 else pick.choice((PAIR, (SERVICE,), (CUSTOMER,)))

    def _some(self, draw: Callable[[], Operation], most: int) -> list[Operation]:
        return [draw() for _ in range(self._chance.randint(1, most))]

    def _reads(self, name: str) -> Step:
        operations = self._some(self._read, 4)
        if self._chance.random() < 0.2:
            operations.append(["page", ROW, "s", self._chance.randrange(1, 60), ""])
        return Propose(name, run(*operations, who=self._chance.choice((*AGENTS, AUDITOR))))

    def _writes(self, name: str) -> Step:
        operations = [*self._some(self._read, 2), *self._some(self._write, 5)]
        return Order(name, (Write(run(*operations, who=self._chance.choice(AGENTS)), self._peers()),))

    def _private_writes(self, name: str) -> Step:
        collection_name = self._chance.choice(COLLECTIONS)
        members = MEMBERS[collection_name]
        operations = self._some(lambda: self._private_write(collection_name), 4)
        secret = {"secret": self._chance.randbytes(12)}
        who = self._chance.choice(AGENTS)
        return Order(name, (Write(run(*operations, who=who, transient=secret), members),))

    def _policies(self, name: str) -> Step:
        pick = self._chance
        key = self._key()
        owners = pick.choice(([CUSTOMER], [SERVICE], [CUSTOMER, SERVICE], [BILLING, CUSTOMER]))
        both: list[Operation] = [["put", key, str(pick.randrange(1000))], ["set_policy", key, owners]]
        operations = both[pick.randrange(2) :]
        return Order(name, (Write(run(*operations), self._peers()),))

    def _conflict(self, name: str) -> Step:
        pick = self._chance
        key = self._key()
        reading = (["get", key], ["range", "key", "kez"], ["get", self._key()], ["range", key, f"{key}~"])
        writing = (["put", key, str(pick.randrange(1000))], ["del", key], ["put", self._key(), "c"])
        writes = [
            Write(
                run(*pick.sample(reading, pick.randint(1, 2)), pick.choice(writing)),
                self._peers(),
                copies=pick.choice((1, 1, 1, 2)),
            )
            for _ in range(pick.randint(2, 4))
        ]
        return Order(name, tuple(writes))

    def _evaluated(self, name: str) -> Step:
        who = self._chance.choice(AGENTS)
        return Through(name, run(*self._some(self._read, 3), who=who), who.msp_id)

    def _submitted(self, name: str) -> Step:
        who = self._chance.choice(AGENTS)
        organizations = self._chance.choice(((), (), (SERVICE, CUSTOMER), ORGANIZATIONS))
        # Private reads differ from peer to peer, and whose answer comes first decides whom a gateway finds at odds.
        reads = [operation for operation in self._some(self._read, 3) if operation[0] not in ("pget", "phash")]
        call = run(*reads, *self._some(self._write, 3), who=who)
        return Through(name, call, who.msp_id, organizations, submits=True)

    def _refused(self, name: str) -> Step:
        pick = self._chance
        change = pick.choice(("", *changes.PROPOSALS))
        who = pick.choice(STRANGERS) if not change else pick.choice(AGENTS)
        return Propose(name, run(*self._some(self._read, 2), who=who, change=change), (pick.choice(ORGANIZATIONS),))

    def _wrong(self, name: str) -> Step:
        spoilt = self._chance.choice(list(changes.TRANSACTIONS))
        return Order(name, (Write(run(*self._some(self._write, 3)), spoilt=spoilt),))

    def _asked(self, name: str) -> Step:
        pick = self._chance
        if not self._ordered:
            return Propose(name, system("qscc", b"GetChainInfo", ON))
        about = TransactionOf(pick.choice(self._ordered))
        function = pick.choice((b"GetTransactionByID", b"GetBlockByTxID"))
        if pick.random() < 0.3:
            return Status(name, about)
        return Propose(name, system("qscc", function, ON, about), (pick.choice(ORGANIZATIONS),))

    def _sought(self, name: str) -> Step:
        start, length = self._chance.choice((0, 0, 1)), self._chance.randrange(2)
        change = self._chance.choice(("", "", *changes.SEEKS))
        return Seek(name, self._chance.choice(DELIVER), start, start + length, self._chance.choice(AGENTS), change)

    def _sent(self, name: str) -> Step:
        change = self._chance.choice([name for name in changes.ENVELOPES if name not in ("nothing wrong", "too large")])
        return Send(name, change, self._chance.choice(AGENTS))

    def _configured(self, name: str) -> Step:
        signers = self._chance.choice(((FOREIGN,), (FOREIGN,), AGENTS, ()))
        return Configure(name, "messages", signers, 41 + self._number)

    def _service(self, name: str) -> Step:
        pick = self._chance
        number = pick.randrange(30)
        return Order(
            name,
            (
                Write(
                    pick.choice(
                        (
                            service(
                                "register_customer",
                                f"k{self._number}",
                                f"c-{number}",
                                {"kind": "household", "region": "north"},
                            ),
                            service(
                                "open_request",
                                f"k{self._number}",
                                f"r-{number}",
                                {"customer": f"c-{pick.randrange(30)}", "category": "meter", "title": "a meter"},
                                who=pick.choice(AGENTS),
                            ),
                            service("assign_next", f"k{self._number}", "field"),
                        )
                    ),
                    self._peers(),
                ),
            ),
        )


# --- the end: state, private state and history, as every peer answers


def _closing() -> list[Step]:
    touched = (
        *PUBLIC_KEYS,
        "fought",
        "seen",
        "blind",
        "twice",
        "ruled",
        "own",
        "other",
        "public",
        "gateway",
        "wrong",
        "endorsed",
    )
    private = (*PRIVATE_KEYS, "t", "u", "v", "w", "f", "o", "b", "g")
    return [
        Propose("state", run(["range", "", ""], ["all_composite_page", 1000, ""])),
        Propose("state of callee", run(["range", "", ""], ["history", "called"], chaincode="callee")),
        Propose(
            "state of changing",
            run(["range", "", ""], ["prange", "early", "", ""], ["prange", "late", "", ""], chaincode=CHANGING),
        ),
        Propose("state of service", service("list_requests")),
        Propose("customers", service("list_customers")),
        *[Propose(f"history of {key}", run(["history", key], ["policy", key], ["get", key])) for key in touched],
        *[
            Propose(f"private state of {name} to {who.msp_id}", run(["prange", name, "", ""], who=who))
            for name in COLLECTIONS
            for who in AGENTS
        ],
        *[
            Propose(
                f"private {name}", run(*[[verb, name, key] for key in private for verb in ("phash", "pget", "ppolicy")])
            )
            for name in COLLECTIONS
        ],
        Propose("the end of the chain", system("qscc", b"GetChainInfo", ON)),
        Outlines("outlines of all blocks"),
        *[Events(f"events of {name}", name) for name in (JUDGE, "callee", SERVICES, CHANGING)],
    ]
