"""The steps that every shim takes, in their order: what the script contract does, and what of it is said beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.judged_network import BILLING, CUSTOMER, ORGANIZATIONS, SERVICE
from tests.support.judged_proposal import Operation, script

PAIR: Final = (SERVICE, BILLING)
"""Members of the collection `pair`; and the organisations that run Go and Python, where the Node shim differs."""
ROWS: Final = 250
"""Keys row0000, row0001, ...: three batches of what a peer sends at a time, the last one half full."""


@dataclass(frozen=True)
class Step:
    """One proposal. `peers` are asked; `commits`: it is ordered with all their endorsements, and has to be VALID.

    `gives`: what the script has to give, where that is said.
    """

    name: str
    operations: Sequence[Operation] = ()
    commits: bool = False
    peers: tuple[str, ...] = ORGANIZATIONS
    gives: object = None
    transient: dict[str, bytes] = field(default_factory=dict)
    arguments: tuple[bytes, ...] = ()
    """Instead of operations."""
    tells_identity: bool = False
    """Its answer holds certificates, nonces or hashes of them, which no two networks share."""

    @property
    def call(self) -> tuple[bytes, ...]:
        """The arguments of the proposal."""
        return self.arguments or (b"run", script(self.operations))


REFUSED: Final = {"error": True}
WRITES: Final = [
    Step(
        "writes",
        [
            ["put", "apple", "1"],
            ["put", "pear", "1"],
            ["put", "schlüssel", "wert"],
            ["put", "键", "值"],
            ["put", "\U0001f511", "🔒"],
            ["put_many", "row", ROWS, "x"],
        ],
        commits=True,
        gives=[True] * 6,
    ),
    Step(
        "composite keys",
        [
            *[["put_composite", "request", ["billing", f"r{number}"], "open"] for number in range(1, 4)],
            ["put_composite", "request", ["meter", "r1"], "open"],
            ["put_composite", "customer", ["c1"], "household"],
        ],
        commits=True,
    ),
    Step("writes are not read back", [["put", "apple", "2"], ["get", "apple"]], gives=[True, "31"]),
    Step("an update and a deletion", [["get", "apple"], ["put", "apple", "2"], ["del", "pear"]], commits=True),
    Step("written and deleted", [["put", "a", "1"], ["del", "a"], ["del", "b"], ["put", "b", "1"], ["put", "b", "2"]]),
    Step("a key without value", [["get", "nothing"]], gives=[None]),
    Step("a key without name", [["put", "", "1"]], peers=PAIR, gives=[REFUSED]),  # Node's shim leaves it to the peer
]
READS: Final = [
    Step(
        "reads",
        [["get", "apple"], ["get", "apple"], ["get", "pear"], ["gets", ["row0001", "nothing", "apple", "row0001"]]],
        gives=["32", "32", None, ["78", None, "32", "78"]],
    ),
    Step("twelve hundred keys at once", [["gets", [f"row{number:04d}" for number in range(1200)]]]),
    Step("the whole range", [["range", "", ""]]),
    *[
        Step(f"range from {start!r} to {end!r}", [["range", start, end]])
        for start, end in (
            ("row0010", "row0020"),
            ("row0000", "row0100"),
            ("row0000", "row0101"),
            ("s", ""),
            ("", "b"),
            ("x", "y"),
            ("row0020", "row0010"),
        )
    ],
    *[Step(f"{limit} rows of a range", [["range", "row", "s", limit]]) for limit in (1, 2, 99, 101, 150, 201, 250)],
    # Fabric's own shims differ where a batch ends: Go's fetches the next one with the last row, Node's when needed.
    *[Step(f"{limit} rows of a range", [["range", "row", "s", limit]], peers=PAIR) for limit in (100, 200)],
    Step(
        "the same range twice, and a part of it",
        [["range", "row", "s"], ["range", "row", "s"], ["range", "row", "row1"]],
    ),
    Step(
        "ranges that end at different rows", [["range", "row", "s", 3], ["range", "row", "s", 5], ["range", "row", "s"]]
    ),
    Step(
        "a range, then writes into it",
        [["range", "row", "row0003"], ["put", "row0001", "y"], ["range", "row", "row0003"]],
    ),
    *[Step(f"a page of {size}", [["page", "row", "s", size, ""]]) for size in (1, 99, 100, 101, 249, 250, 251, 1000)],
    Step(
        "pages by bookmark",
        [["page", "row", "s", 120, ""], ["page", "row", "s", 120, "row0120"], ["page", "row", "s", 120, "row0240"]],
    ),
    Step("no write after a page", [["page", "row", "s", 1, ""], ["put", "apple", "3"]]),
    Step("no page after a write", [["put", "apple", "3"], ["page", "row", "s", 1, ""]], gives=[True, REFUSED]),
    Step(
        "bounds among composite keys",
        [["range", "\0request", ""], ["range", "", "\0"], ["page", "\0", "", 1, ""]],
        gives=[REFUSED] * 3,
    ),
    Step(
        "composite keys by their first parts",
        [["partial", "request", []], ["partial", "request", ["billing"]], ["partial", "request", ["b"]]],
    ),
    Step("two rows of composite keys", [["partial", "request", [], 2]]),
    Step(
        "pages of composite keys",
        [["partial_page", "request", [], 2, ""], ["partial_page", "request", [], 2, "\0request\0billing\0r3\0"]],
    ),
    Step(
        "pages of all composite keys",
        [["all_composite_page", 3, ""], ["all_composite_page", 9, "\0request\0billing\0r3\0"]],
        peers=PAIR,
    ),
    Step("a composite key taken apart", [["split", "request", ["billing", "r1"]]]),
    Step(
        "parts that no composite key has",
        [["put_composite", "a", ["b\0c"], "1"], ["put_composite", "a\U0010ffff", [], "1"]],
        peers=PAIR,
        gives=[REFUSED] * 2,
    ),
    Step("history", [["history", "apple"], ["history", "pear"], ["history", "nothing"]]),
    *[
        Step(f"the state database of these peers has no {name}", [[name, *arguments], ["put", "apple", "7"]])
        for name, arguments in (("query", ["{}"]), ("query_page", ["{}", 2, ""]), ("pquery", ["shared", "{}"]))
    ],
]
PRIVATE: Final = [
    Step(
        "private writes",
        [
            ["pput", "shared", "p1", "1"],
            ["pput_transient", "shared", "p2", "secret"],
            ["pput_transient", "shared", "large", "large"],
            *[["pput", "shared", f"row{number:03d}", "x"] for number in range(120)],
            ["pput", "shared", "\0profile\0c1\0", "1"],
            ["put", "public", "1"],
        ],
        commits=True,
        transient={"secret": b"salted", "large": bytes(1 << 20)},
    ),
    Step(
        "private reads",
        [
            ["pget", "shared", "p1"],
            ["pget", "shared", "nothing"],
            ["phash", "shared", "p2"],
            ["phash", "shared", "nothing"],
        ],
    ),
    # Fabric's own shims differ: Go's reads all at once, Node's has no such call. A peer records neither differently.
    Step("several private reads", [["pgets", "shared", ["p1", "nothing", "p2"]]]),
    Step(
        "private ranges",
        [["prange", "shared", "", ""], ["prange", "shared", "row", "s", 101], ["ppartial", "shared", "profile", []]],
    ),
    Step("no write after a private range", [["prange", "shared", "", "a"], ["put", "apple", "4"]], gives=[[], REFUSED]),
    Step(
        "no private range after a write", [["put", "apple", "4"], ["prange", "shared", "", "a"]], gives=[True, REFUSED]
    ),
    Step(
        "private data of no collection",
        [
            ["pget", "", "k"],
            ["pput", "nowhere", "k", "1"],
            ["pget", "nowhere", "k"],
            ["phash", "nowhere", "k"],
            ["ppurge", "nowhere", "k"],
        ],
        gives=[REFUSED] * 5,
    ),
    Step(
        "a collection of two",
        [["pget", "pair", "p"], ["pput", "pair", "p", "1"]],
        commits=True,
        peers=PAIR,
        gives=[None, True],
    ),
    Step(
        "its value at its members",
        [["pget", "pair", "p"], ["phash", "pair", "p"], ["prange", "pair", "", ""]],
        peers=PAIR,
    ),
    Step("its hash everywhere", [["phash", "pair", "p"]]),
    Step("no value elsewhere", [["pget", "pair", "p"], ["prange", "pair", "", ""]], peers=(CUSTOMER,)),
    Step(
        "private deletions",
        [
            ["pdel", "shared", "p1"],
            ["pdel", "shared", "nothing"],
            ["ppurge", "shared", "p2"],
            ["ppurge", "shared", "never"],
        ],
        commits=True,
    ),
    Step(
        "what they left",
        [["pget", "shared", "p1"], ["pget", "shared", "p2"], ["phash", "shared", "p1"], ["phash", "shared", "p2"]],
        gives=[None] * 4,
    ),
    Step(
        "several private writes of a key",
        [
            ["pput", "shared", "a", "1"],
            ["pdel", "shared", "a"],
            ["pdel", "shared", "b"],
            ["pput", "shared", "b", "1"],
            ["pput", "shared", "c", "1"],
            ["ppurge", "shared", "c"],
            ["ppurge", "shared", "d"],
            ["pput", "shared", "d", "1"],
            ["ppurge", "shared", "e"],
            ["pdel", "shared", "e"],
            ["pput", "shared", "f", "1"],
            ["pput", "shared", "f", "2"],
        ],
        commits=True,
    ),
    Step(
        "and what they left", [["pget", "shared", key] for key in "abcdef"], gives=[None, "31", None, "31", None, "32"]
    ),
]
POLICIES: Final = [
    Step(
        "no policies of keys",
        [["policy", "apple"], ["policy", "nothing"], ["ppolicy", "shared", "f"]],
        gives=[None] * 3,
    ),
    Step(
        "policies of keys",
        [
            ["set_policy", "apple", [CUSTOMER, SERVICE]],
            ["set_policy", "nothing", [SERVICE]],
            ["put", "fresh", "1"],
            ["set_policy", "fresh", [BILLING]],
            ["set_policy", "row0001", [SERVICE]],
            ["set_policy", "row0001", [CUSTOMER]],
            ["set_ppolicy", "shared", "f", [BILLING, SERVICE]],
        ],
        commits=True,
    ),
    Step(
        "as they were set",
        [["policy", key] for key in ("apple", "nothing", "fresh", "row0001")] + [["ppolicy", "shared", "f"]],
    ),
    Step(
        "new values under them",
        [["put", "apple", "5"], ["put", "fresh", "2"], ["pput", "shared", "f", "3"]],
        commits=True,
    ),
    Step(
        "still as they were",
        [["policy", "apple"], ["policy", "fresh"], ["ppolicy", "shared", "f"], ["get", "apple"], ["history", "apple"]],
    ),
    Step("deleted with them", [["del", "apple"], ["pdel", "shared", "f"]], commits=True),
    Step("gone with their keys", [["policy", "apple"], ["ppolicy", "shared", "f"]], gives=[None] * 2),
    Step(
        "a policy in no collection",
        [["set_ppolicy", "nowhere", "k", [SERVICE]], ["ppolicy", "nowhere", "k"]],
        gives=[REFUSED] * 2,
    ),
]
BATCHES: Final = [
    Step(
        "a batch of writes",
        [
            [
                "batch",
                [
                    ["put", "b1", "1"],
                    ["put", "b2", "1"],
                    ["del", "b1"],
                    ["put", "b2", "2"],
                    ["get", "row0000"],
                    ["pput", "shared", "b", "1"],
                    ["pput", "shared", "g", "1"],
                    ["ppurge", "shared", "g"],
                    ["pdel", "shared", "d"],
                    ["set_policy", "b2", [SERVICE]],
                    ["set_ppolicy", "shared", "b", [SERVICE]],
                ],
            ],
        ],
        commits=True,
    ),
    Step("a batch of twelve hundred", [["batch", [["put_many", "batch", 1200, "y"]]]], commits=True),
    Step(
        "what batches left",
        [["get", "b1"], ["get", "b2"], ["policy", "b2"], ["pget", "shared", "b"], ["range", "batch", "c", 3]],
    ),
    # Node's shim has no batches: there the refused write fails alone. It is the only one, since Go's shim keeps a batch
    # in a map and sends it in an order of chance, and what comes before a refused write counts.
    Step(
        "a batch that is refused",
        [["batch", [["pput", "nowhere", "k", "1"]]]],
        peers=PAIR,
        gives=[REFUSED],
    ),
]
CALLS: Final = [
    Step(
        "an event",
        [["event", "first", "1"], ["event", "changed", "what"], ["event", "", "1"], ["put", "apple", "6"]],
        commits=True,
        gives=[True, True, REFUSED, True],
    ),
    *[
        Step(
            f"status {code}", arguments=(b"status", b"%d" % code, b"a message", b"a payload", event), commits=code < 400
        )
        for code, event in (
            (200, b""),
            (200, b"named"),
            (201, b"named"),
            (399, b""),
            (400, b"named"),
            (404, b""),
            (499, b""),
            (500, b"named"),
            (501, b""),
        )
    ],
    Step(
        "another chaincode",
        [
            ["invoke", "callee", ["run", '[["put","k","1"],["event","inner","1"],["get","k"],["range","",""]]'], ""],
            ["invoke", "callee", ["run", '[["put","l","1"]]'], "consortium"],
            ["put", "caller", "1"],
            ["event", "outer", "1"],
        ],
        commits=True,
    ),
    Step("what it wrote", [["invoke", "callee", ["run", '[["get","k"],["get","l"]]'], ""]]),
    Step(
        "another chaincode that refuses",
        [
            ["invoke", "callee", ["status", "404", "none", "content", ""], ""],
            ["invoke", "callee", ["status", "500", "failed", "", ""], ""],
        ],
    ),
    Step(
        "calls that fail",
        [
            ["invoke", "unknown", [], ""],
            ["invoke", "judge", ["run", "[]"], ""],
            ["invoke", "callee", ["run", "[]"], "elsewhere"],
        ],
        gives=[REFUSED] * 3,
    ),
    Step("facts of the proposal", [["facts"]], transient={"a": b"1", "b": b"2"}, tells_identity=True),
    Step("the proposal itself", [["input"]], peers=PAIR, tells_identity=True),
    # Node's shim writes the names of the certificate as OpenSSL does.
    Step("the client", [["client", "role"], ["client", "none"]], peers=PAIR),
]
REFUSALS: Final[list[Operation]] = [
    ["pget", "nowhere", "k"],
    ["pput", "nowhere", "k", "1"],
    ["phash", "nowhere", "k"],
    ["prange", "nowhere", "", ""],
    ["ppurge", "nowhere", "k"],
    ["set_ppolicy", "nowhere", "k", [SERVICE]],
    ["ppolicy", "nowhere", "k"],
    ["invoke", "unknown", [], ""],
    ["invoke", "judge", ["run", "[]"], ""],
    ["invoke", "callee", ["run", "[]"], "elsewhere"],
    ["put", "k", "1"],
    ["page", "row", "s", 1, ""],
    ["prange", "shared", "", ""],
]
TEXTS: Final = [
    # The peer's own words, which our runtime keeps for its contract, and Go's and Node's shims hand on.
    Step("what a peer says to refuse", arguments=(b"texts", script(REFUSALS)), peers=PAIR),
    Step(
        "what a peer says after a page",
        arguments=(b"texts", script([["page", "row", "s", 1, ""], ["put", "k", "1"]])),
        peers=PAIR,
    ),
    Step(
        "what a peer says after a private range",
        arguments=(b"texts", script([["prange", "shared", "", ""], ["del", "k"]])),
        peers=PAIR,
    ),
    Step(
        "what a peer says to queries",
        arguments=(b"texts", script([["query", "{}"], ["pquery", "shared", "{}"]])),
        peers=(SERVICE,),
    ),
    Step(
        "what another peer says of a private value",
        arguments=(b"texts", script([["pget", "pair", "p"], ["prange", "pair", "", ""]])),
        peers=(CUSTOMER,),
    ),
]
STEPS: Final = [*WRITES, *READS, *PRIVATE, *POLICIES, *BATCHES, *CALLS, *TEXTS]
