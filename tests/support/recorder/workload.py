"""What happens on a recorded channel before anything of the channel itself is changed: transactions of every outcome.

Only what has a verdict is sent (`network/protocol/no_verdict.py`), and a malformed transaction is alone in its block.
"""

from collections.abc import Callable
from typing import Any, Final

from fabric_protos.common import common_pb2, policies_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2

from network.protocol.read_write_set import Version
from network.protocol.read_write_set_builder import ReadWriteSetBuilder
from tests.support.recorder.envelope import Change, Parts
from tests.support.recorder.session import TWO, Session
from tests.support.recorder.topology import (
    BRIEF,
    CALLED,
    CHAINCODE,
    CUSTOMER,
    ENTERPRISE,
    PAIR,
    PARTNER,
    PEERS,
)

GARBAGE: Final = b"\xff"
IMPLICIT: Final = f"_implicit_org_{PARTNER}"
SUMMARY_ROWS: Final = 120
"""More than a peer writes out one by one in a range query."""
POLICY_FAILURE: Final = "ENDORSEMENT_POLICY_FAILURE"
CONFLICT: Final = "MVCC_READ_CONFLICT"


async def run_workload(session: Session) -> None:
    """Take every step but `public_data`, which comes before."""
    await conflicts(session)
    await endorsements(session)
    await malformed(session)
    await hostile_endorsers(session)
    await private_data(session)
    await key_policies(session)
    await refused_by_orderers(session)


async def public_data(session: Session) -> None:
    valid = session.valid
    await valid("put", [["put", "a", "1"]])
    await valid("Chinese key and value", [["put", "客户", "北区"]])
    await valid("update", [["get", "a"], ["put", "a", "2"]])
    await valid("delete", [["put", "b", "1"], ["del", "a"]])
    await valid("put again after delete", [["put", "a", "3"]])
    await valid("delete of a key that never existed", [["del", "never"]])
    await valid("put and delete in one transaction", [["put", "c", "1"], ["del", "c"]])
    await valid("composite keys", [["put_composite", "request", ["南区", f"{n:02d}"], "open"] for n in range(3)])
    await valid(f"{SUMMARY_ROWS} writes in one transaction", [["put_many", "row", SUMMARY_ROWS, "x"]])
    await valid("batch of writes", [["batch", [["put", f"batch{n}", "x"] for n in range(20)] + [["del", "row0007"]]]])
    await valid("event", [["put", "d", "1"], ["event", "noted", "payload 通知"]])
    await valid("a long value", [["put", "long", "0123456789" * 5000]])
    await valid("a key with U+0001, a space and an emoji", [["put", "\x01 \U0001f511", "1"]])
    await valid("reads alone", [["get", "d"], ["get", "never"]])
    await valid("nothing read, nothing written", [])
    await valid("many reads at once", [["gets", ["d", "b", "never", "long"]], ["put", "d", "2"]])
    await valid("range of few", [["range", "batch0", "batch2"]])
    await valid("range of many", [["range", "row", "s"], ["put", "counted", str(SUMMARY_ROWS)]])
    await valid("range that is left early", [["range", "row", "s", 3], ["put", "counted", "3"]])
    await valid("composite keys by their first part", [["partial", "request", ["南区"]]])
    await valid("history", [["history", "a"]])
    await valid("all three endorse", [["put", "e", "1"]], *PEERS)
    await valid("by another organisation's client", [["put", "f", "1"]], by=(CUSTOMER, "agent"))
    await valid("by an administrator", [["put", "g", "1"]], by=(PARTNER, "admin"))
    call: list[Any] = ["invoke", CALLED, ["run", '[["get","x"],["put","x","1"]]'], ""]
    await valid("call of another chaincode that writes", [call, ["put", "h", "1"]], *PEERS)
    read: list[Any] = ["invoke", CALLED, ["run", '[["get","x"]]'], ""]
    await valid("call of another chaincode that reads, endorsed by two", [read, ["put", "h", "2"]])


async def conflicts(session: Session) -> None:
    async def together(*scripts: tuple[str, list[list[Any]]]) -> list[str]:
        return await session.order(*[(label, await session.endorse(script)) for label, script in scripts])

    increment: list[list[Any]] = [["get", "race"], ["put", "race", "1"]]
    codes = await together(*[(f"read-modify-write race {n}", increment) for n in range(3)])
    assert codes == ["VALID", CONFLICT, CONFLICT], codes
    codes = await together(
        ("delete what others read", [["del", "race"]]),
        ("read of what was deleted before it in the block", [["get", "race"]]),
        ("blind write after it", [["put", "race", "9"]]),
    )
    assert codes == ["VALID", CONFLICT, "VALID"], codes
    late = await session.endorse([["get", "b"], ["put", "b", "late"]])
    await session.valid("update in between", [["put", "b", "2"]])
    await session.becomes(CONFLICT, "read of what was changed a block before", late)
    for label, bounds, key in (
        ("few", ("batch0", "batch9"), "batch1x"),
        ("many", ("row", "s"), "row0050x"),
    ):
        phantom = await session.endorse([["range", *bounds], ["put", "seen", label]])
        outside = await session.endorse([["range", "x", "y"], ["put", "seen", "nothing"]])
        await session.valid(f"insertion into a range of {label}", [["put", key, "1"]])
        await session.becomes("PHANTOM_READ_CONFLICT", f"insertion after a range of {label} was read", phantom)
        await session.becomes("VALID", "a range where nothing was inserted", outside)
    deleted = await session.endorse([["range", "row", "s"], ["put", "seen", "all"]])
    await session.valid("deletion of the last row", [["del", f"row{SUMMARY_ROWS - 1:04d}"]])
    await session.becomes("PHANTOM_READ_CONFLICT", "deletion after a range was read", deleted)
    codes = await together(
        ("insertion into a range", [["put", "batch1y", "1"]]),
        ("range that something was inserted into before it in the block", [["range", "batch0", "batch9"]]),
    )
    assert codes == ["VALID", "PHANTOM_READ_CONFLICT"], codes

    own = await session.endorse([["put", "burnt", "1"]])
    stolen = session.altered(own, claimed_by(session, CUSTOMER))
    await session.becomes("BAD_PROPOSAL_TXID", "an id that somebody else claims", stolen)
    await session.becomes("DUPLICATE_TXID", "the owner of that id", own)
    if len(session.orderers) == 3:  # BFT orderers take no envelope twice
        twice = await session.endorse([["put", "twice", "1"]])
        await session.becomes("VALID", "the first of two", twice)
        await session.becomes("DUPLICATE_TXID", "the same envelope again", twice)
        both = await session.endorse([["put", "both", "1"]])
        codes = await session.order(("the first of two in one block", both), ("the second of them", both))
        assert codes == ["VALID", "DUPLICATE_TXID"], codes


async def endorsements(session: Session) -> None:
    one = await session.endorse([["put", "i", "1"]], (ENTERPRISE,))
    await session.becomes(POLICY_FAILURE, "one endorsement where two are needed", one)
    one = await session.endorse([["put", "i", "1"]], (ENTERPRISE,))
    await session.becomes(POLICY_FAILURE, "the same endorsement twice", session.altered(one, twice_endorsed))
    two = [await session.endorse([["put", "i", "1"]]) for _ in range(5)]
    await session.becomes(POLICY_FAILURE, "one endorser's signature spoilt", session.altered(two[0], spoilt_signature))
    await session.becomes(POLICY_FAILURE, "writes changed after endorsement", session.altered(two[1], other_results))
    agents = [session.identity(ENTERPRISE), session.identity(CUSTOMER)]
    await session.becomes(POLICY_FAILURE, "endorsed by clients", session.altered(two[2], colluding(agents)))
    await session.becomes("VALID", "a third endorsement that is spoilt", session.altered(two[3], with_spoilt_third))
    stranger = [session.node(session.network.topology.orderer_organizations[0].msp_id), session.node(CUSTOMER)]
    await session.becomes(POLICY_FAILURE, "endorsed by an orderer", session.altered(two[4], colluding(stranger)))
    call: list[Any] = ["invoke", CALLED, ["run", '[["put","x","2"]]'], ""]
    called = await session.endorse([call, ["put", "h", "3"]])
    await session.becomes(POLICY_FAILURE, "too few endorsements for a chaincode that was called", called)
    codes = await session.order(
        ("refused for its endorsement", await session.endorse([["get", "j"], ["put", "j", "1"]], (ENTERPRISE,))),
        ("read of what a refused one would have written", await session.endorse([["get", "j"], ["put", "j", "2"]])),
    )
    assert codes == [POLICY_FAILURE, "VALID"], codes


async def malformed(session: Session) -> None:
    for label, (code, change) in MALFORMED.items():
        if label in NOT_BY_BFT and len(session.orderers) > 3:
            continue
        envelope = session.altered(await session.endorse([["put", "malformed", "1"]]), change)
        await session.becomes(code, label, envelope)


async def hostile_endorsers(session: Session) -> None:
    """What peers sign that did not simulate it."""
    nodes = [session.node(msp_id) for msp_id in TWO]
    for label, (code, results) in COLLUDED.items():

        def replaced(parts: Parts, results: bytes = results()) -> None:
            parts.action.results = results
            parts.colluders = nodes

        envelope = session.altered(await session.endorse([["get", "d"]]), replaced)
        await session.becomes(code, label, envelope)
    await session.becomes(
        POLICY_FAILURE, "a key whose policy nobody can satisfy", await session.endorse([["put", "locked", "2"]], PEERS)
    )


async def private_data(session: Session) -> None:
    valid = session.valid
    for number in range(4):
        secret = {"value": f"secret {number} 合同".encode()}
        await valid(f"private put {number}", [["pput_transient", PAIR, f"deal{number}", "value"]], transient=secret)
    await valid("private update", [["pget", PAIR, "deal0"], ["pput", PAIR, "deal0", "second"]])
    await valid("private delete", [["pdel", PAIR, "deal1"]])
    await valid("private purge", [["ppurge", PAIR, "deal2"]])
    await valid("private range", [["prange", PAIR, "deal", "e"]])
    await valid("private hash read by one that is no member", [["phash", PAIR, "deal0"]], CUSTOMER, PARTNER)
    mixed = [["pput", PAIR, "deal4", "x"], ["put", "public", "1"], ["pput", BRIEF, "with", "y"]]
    await valid("two collections and public data", mixed)
    await valid(
        "the collection of an organisation itself", [["pput", IMPLICIT, "own", "z"]], PARTNER, by=(PARTNER, "agent")
    )
    await valid("private put that expires", [["pput", BRIEF, "soon", "1"]])
    for number in range(6):
        await valid(f"filler {number}", [["put", "filler", str(number)]])
    await valid("private put that has expired by now, again", [["pput", BRIEF, "soon", "2"]])
    races = [await session.endorse([["phash", PAIR, "deal0"], ["pput", PAIR, "deal0", str(n)]]) for n in range(2)]
    codes = await session.order(*[(f"private race {n}", envelope) for n, envelope in enumerate(races)])
    assert codes == ["VALID", CONFLICT], codes
    late = await session.endorse([["phash", PAIR, "deal3"], ["put", "deal3 is known", "1"]])
    await valid("private purge of what was read", [["ppurge", PAIR, "deal3"]])
    await session.becomes(CONFLICT, "read of a private key that was purged", late)
    one = await session.endorse([["pput", PAIR, "deal5", "refused"]], (ENTERPRISE,))
    await session.becomes(POLICY_FAILURE, "private put with one endorsement of two members", one)
    outside = await session.endorse([["pput", PAIR, "deal6", "refused"]], (ENTERPRISE, PARTNER))
    await session.becomes(POLICY_FAILURE, "private put endorsed by one that is no member", outside)
    # Its peer has simulated it: without the private data it would wait for them a minute before it refuses.
    own = await session.endorse([["pput", IMPLICIT, "own", "refused"]], (ENTERPRISE, PARTNER), by=(PARTNER, "agent"))
    without = session.altered(own, without_last_endorsement, by=(PARTNER, "agent"))
    await session.becomes(POLICY_FAILURE, "the collection of an organisation whose endorsement is left out", without)


async def key_policies(session: Session) -> None:
    await session.valid("a key that gets a policy", [["put", "guarded", "1"], ["put", "guarded too", "1"]])
    await session.valid("a policy for a key", [["set_policy", "guarded", [PARTNER]]])
    violated = await session.endorse([["put", "guarded", "2"]])
    await session.becomes(POLICY_FAILURE, "a key's policy violated", violated)
    await session.valid("a key's policy satisfied, and no other", [["put", "guarded", "3"]], PARTNER)
    both = await session.endorse([["put", "guarded", "4"], ["put", "free", "1"]], (PARTNER,))
    await session.becomes(POLICY_FAILURE, "a key's policy satisfied, the chaincode's not", both)
    await session.valid("a key with a policy deleted", [["del", "guarded"]], PARTNER)
    await session.valid("the key again, without a policy", [["put", "guarded", "5"]])
    first = await session.endorse([["set_policy", "guarded too", [PARTNER]]])
    second = await session.endorse([["put", "guarded too", "2"]], PEERS)
    codes = await session.order(
        ("a policy for a key that is written later in the block", first), ("that write", second)
    )
    assert codes == ["VALID", POLICY_FAILURE], codes
    await session.valid("a private key", [["pput", PAIR, "guarded deal", "1"]])
    await session.valid("a policy for a private key", [["set_ppolicy", PAIR, "guarded deal", [CUSTOMER]]])
    await session.becomes(
        POLICY_FAILURE,
        "a private key's policy violated",
        await session.endorse([["pput", PAIR, "guarded deal", "2"]], (ENTERPRISE,)),
    )
    await session.valid("a private key's policy satisfied", [["pput", PAIR, "guarded deal", "3"]], CUSTOMER)


async def refused_by_orderers(session: Session) -> None:
    """What never becomes part of a block: codes that only peers of dishonest orderers would have to give."""
    envelope = await session.endorse([["put", "k", "1"]])
    await session.offer("BAD_PAYLOAD: a payload that is none", _signed(session, GARBAGE))
    await session.offer("NIL_ENVELOPE: nothing", b"")
    await session.offer("BAD_CREATOR_SIGNATURE: spoilt", envelope[:-1] + bytes((envelope[-1] ^ 1,)))
    for label, kind in (("INVALID_CONFIG_TRANSACTION: a configuration", 1), ("a type of old", 4)):

        def of_kind(parts: Parts, kind: int = kind) -> None:
            parts.channel_header.type = kind

        await session.offer(label, session.altered(envelope, of_kind))

    def elsewhere(parts: Parts) -> None:
        parts.channel_header.channel_id = "elsewhere"

    await session.offer("TARGET_CHAIN_NOT_FOUND: another channel", session.altered(envelope, elsewhere))


def _signed(session: Session, payload: bytes) -> bytes:
    signature = session.identity(ENTERPRISE).sign(payload)
    return bytes(common_pb2.Envelope(payload=payload, signature=signature).SerializeToString())


# --- changes of transactions


def twice_endorsed(parts: Parts) -> None:
    parts.endorsements *= 2


def spoilt_signature(parts: Parts) -> None:
    parts.endorsements[0].signature = parts.endorsements[1].signature


def with_spoilt_third(parts: Parts) -> None:
    parts.endorsements.append(type(parts.endorsements[0])(endorser=b"nobody", signature=b"none"))


def without_last_endorsement(parts: Parts) -> None:
    del parts.endorsements[-1]


def other_results(parts: Parts) -> None:
    parts.action.results = written(("i", b"2"))


def colluding(identities: list[Any]) -> Change:
    def change(parts: Parts) -> None:
        parts.colluders = identities

    return change


def claimed_by(session: Session, msp_id: str) -> Change:
    """Have somebody else claim the id: his identity and signature, everything else as it was."""

    def change(parts: Parts) -> None:
        parts.signer = session.identity(msp_id)
        parts.signature_header.creator = parts.signer.creator

    return change


def fields(rehash: bool = False, **named: Any) -> Change:  # read with its name alone
    """Give fields of the parts other values."""

    def change(parts: Parts) -> None:
        parts.rehash = rehash
        for name, value in named.items():
            setattr(parts, name, value)

    return change


def within(part: str, **named: Any) -> Change:
    """Give fields of one of the messages other values; the hash of the proposal is that of what stands then."""

    def change(parts: Parts) -> None:
        parts.rehash = True
        for name, value in named.items():
            setattr(getattr(parts, part), name, value)

    return change


def no_nonce(parts: Parts) -> None:
    parts.signature_header.nonce = b""


def invoked(name: str, version: str = "1.0", action: str | None = None) -> Change:
    """Name another chaincode in the header, and in the action this one or another.

    It is the only one that is written to: peers judge several in any order, and stop at the first that is refused.
    """

    def change(parts: Parts) -> None:
        named = chaincode_pb2.ChaincodeID(name=name)
        extension = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=named)
        parts.rehash = True
        parts.channel_header.extension = extension.SerializeToString()
        parts.action.chaincode_id.name = name if action is None else action
        parts.action.chaincode_id.version = version
        parts.action.results = written(("k", b"1"), namespace=name)

    return change


def no_extension(parts: Parts) -> None:
    parts.channel_header.extension = b""


def nobodys_event(parts: Parts) -> None:
    parts.action.events = chaincode_event_pb2.ChaincodeEvent(chaincode_id=CALLED).SerializeToString()


def without_chaincode(parts: Parts) -> None:
    parts.action.ClearField("chaincode_id")


def twice_one_namespace(parts: Parts) -> None:
    twice = rwset_pb2.TxReadWriteSet(ns_rwset=[rwset_pb2.NsReadWriteSet(namespace=CHAINCODE)] * 2)
    parts.action.results = twice.SerializeToString()


NOT_BY_BFT: Final = ("a message of no kind", "a type that nobody knows")
"""BFT orderers order no other kind than transactions; they take one, and depose the leader that proposes it."""
INVALID: Final = "INVALID_ENDORSER_TRANSACTION"
HEADER: Final = "BAD_COMMON_HEADER"
MALFORMED: Final[dict[str, tuple[str, Change]]] = {
    "a message of no kind": (HEADER, within("channel_header", type=0)),
    "a type that nobody knows": (HEADER, within("channel_header", type=77)),
    "epoch not 0": (HEADER, within("channel_header", epoch=1)),
    "no nonce": (HEADER, no_nonce),
    "an id of its own choice": ("BAD_PROPOSAL_TXID", within("channel_header", tx_id="0" * 64)),
    "no id": ("BAD_PROPOSAL_TXID", within("channel_header", tx_id="")),
    "no action": (INVALID, fields(actions=0)),
    "two actions": (INVALID, fields(actions=2)),
    "garbage for a transaction": (INVALID, fields(data=GARBAGE)),
    "an action without header": (INVALID, fields(action_header=b"")),
    "garbage for what was endorsed": (INVALID, fields(response=GARBAGE)),
    "another invocation than was endorsed": (INVALID, fields(invocation=b"")),
    "no header extension": (INVALID, no_extension),
    "a header extension that is none": ("BAD_HEADER_EXTENSION", within("channel_header", extension=GARBAGE)),
    "a header extension without chaincode": ("INVALID_OTHER_REASON", within("channel_header", extension=b"")),
    "a result that is none": ("BAD_RESPONSE_PAYLOAD", fields(action=GARBAGE)),
    "read-write sets that are none": ("BAD_RWSET", within("action", results=GARBAGE)),
    "one namespace twice": ("ILLEGAL_WRITESET", twice_one_namespace),
    "an event that is none": ("INVALID_OTHER_REASON", within("action", events=GARBAGE)),
    "an event of another chaincode": ("INVALID_OTHER_REASON", nobodys_event),
    "a result without chaincode": ("INVALID_OTHER_REASON", without_chaincode),
    "a chaincode without version": ("INVALID_CHAINCODE", invoked(CHAINCODE, version="")),
    "a chaincode without name": ("INVALID_CHAINCODE", invoked("")),
    "another chaincode than was invoked": ("INVALID_CHAINCODE", invoked(CHAINCODE, action=CALLED)),
    "a chaincode that nobody defined": ("INVALID_CHAINCODE", invoked("nobody")),
    "a system chaincode": ("INVALID_CHAINCODE", invoked("lscc")),
    "an unknown field behind the payload": ("VALID", fields(tail=b"\xa2\x06\x01x")),
    "another version of the chaincode": (POLICY_FAILURE, invoked(CHAINCODE, version="9")),
}
"""One change each of a transaction that is well endorsed, with the code that a peer gives it."""


# --- what no simulation gives


def written(*writes: tuple[str, bytes], namespace: str = CHAINCODE) -> bytes:
    """Make a read-write set of public writes."""
    builder = ReadWriteSetBuilder()
    for key, value in writes:
        builder.write(namespace, key, value)
    return builder.public_bytes()


def of_public(*writes: kv_rwset_pb2.KVWrite) -> bytes:
    """Make a read-write set of writes as they stand."""
    public = kv_rwset_pb2.KVRWSet(writes=writes).SerializeToString()
    entry = rwset_pb2.NsReadWriteSet(namespace=CHAINCODE, rwset=public)
    return bytes(rwset_pb2.TxReadWriteSet(ns_rwset=[entry]).SerializeToString())


def read_at(version: Version | None) -> bytes:
    builder = ReadWriteSetBuilder()
    builder.read(CHAINCODE, "d", version)
    builder.write(CHAINCODE, "read", b"1")
    return builder.public_bytes()


def locked() -> bytes:
    """Write a key with a policy that asks for one of nobody."""
    nobody: Any = policies_pb2.SignaturePolicyEnvelope()
    nobody.rule.n_out_of.n = 1
    builder = ReadWriteSetBuilder()
    builder.write(CHAINCODE, "locked", b"1")
    builder.write_metadata(CHAINCODE, "locked", {"VALIDATION_PARAMETER": nobody.SerializeToString()})
    return builder.public_bytes()


def noted(key: str) -> bytes:
    builder = ReadWriteSetBuilder()
    builder.write_metadata(CHAINCODE, key, {"note": b"1"})
    return builder.public_bytes()


Write: Final = kv_rwset_pb2.KVWrite
COLLUDED: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "nothing at all": ("VALID", lambda: b""),
    "writes of a chaincode that nobody defined": (
        "INVALID_CHAINCODE",
        lambda: written(("k", b"1"), namespace="nobody"),
    ),
    "keys out of order": ("VALID", lambda: of_public(Write(key="z", value=b"1"), Write(key="y", value=b"1"))),
    "one key written twice": ("VALID", lambda: of_public(*[Write(key="d", value=value) for value in (b"6", b"7")])),
    "a new key written twice": ("VALID", lambda: of_public(*[Write(key="n", value=value) for value in (b"6", b"7")])),
    "a key written, then deleted": (
        "VALID",
        lambda: of_public(Write(key="b", value=b"6"), Write(key="b", is_delete=True)),
    ),
    "an empty value, which deletes": ("VALID", lambda: of_public(Write(key="f", value=b""))),
    "a deletion with a value": ("VALID", lambda: of_public(Write(key="e", is_delete=True, value=b"6"))),
    "a read of a version that is not": (CONFLICT, lambda: read_at(Version(1, 7))),
    "a read of what is there as not there": (CONFLICT, lambda: read_at(None)),
    "metadata of a key": ("VALID", lambda: noted("g")),
    "metadata of a key that is not there": ("VALID", lambda: noted("not there")),
    "a policy that nobody can satisfy": ("VALID", locked),
}
"""Read-write sets with the code that a peer gives a transaction of them."""
