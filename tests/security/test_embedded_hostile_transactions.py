"""Transactions that no honest client or endorser makes: peers give them the code of a real peer, and go on.

What has no verdict is said in the log. The endorsers here collude: they sign whatever they are given.
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import transaction_pb2

from network.protocol.lifecycle import field_key
from network.protocol.no_verdict import NoVerdictReason
from network.protocol.private_data import LIFECYCLE_NAMESPACE
from network.protocol.proposal import Response, encode_envelope, prepared_transaction, response_payload
from network.protocol.read_write_set_builder import ReadWriteSetBuilder
from network.protocol.transaction import Endorsement
from network.protocol.validation_code import (
    BAD_COMMON_HEADER,
    BAD_RWSET,
    ENDORSEMENT_POLICY_FAILURE,
    ILLEGAL_WRITESET,
    INVALID_CHAINCODE,
    INVALID_ENDORSER_TRANSACTION,
    VALID,
)
from tests.support.embedded_ledger import (
    AGENT,
    BILLING,
    BOTH,
    PEERS,
    SERVICE,
    LedgerNetwork,
    Stub,
    get,
    put,
)

LIFECYCLE = ("peer0.customer", BILLING)
"""Peers whose endorsements satisfy the policy of `_lifecycle`."""


def colluding(network: LedgerNetwork, results: bytes, peers: Sequence[str] = BOTH) -> tuple[str, Any]:
    """Make a transaction of these results, endorsed by peers that simulated nothing; gives its id and its envelope."""
    proposal = network.proposal([b"nothing"])
    payload = response_payload(proposal, version="1.0", response=Response(200, "", b""), results=results, event=None)
    identities = [network.peers[peer].node.identity for peer in peers]
    endorsements = [Endorsement(it.creator, it.sign(payload + it.creator)) for it in identities]
    return proposal.tx_id, signed(network, prepared_transaction(proposal, endorsements, payload))


def signed(network: LedgerNetwork, payload: bytes) -> Any:
    """Sign the payload of an envelope as the client does."""
    return common_pb2.Envelope.FromString(encode_envelope(payload, network.client(*AGENT).sign(payload)))


def written(*writes: tuple[str, bytes], namespace: str = "asset") -> bytes:
    """Make a read-write set of public writes."""
    builder = ReadWriteSetBuilder()
    for key, value in writes:
        builder.write(namespace, key, value)
    return builder.public_bytes()


def told(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Give the reasons for which real peers would have stopped."""
    records = [record for record in caplog.records if record.getMessage() == "block_without_verdict"]
    assert all(record.levelno == logging.WARNING for record in records)
    return {record.__dict__["reason"] for record in records}


def ordered(network: LedgerNetwork, *transactions: tuple[str, Any]) -> list[int]:
    """Order transactions in one block; gives their verdicts."""

    async def story() -> list[int]:
        for _, envelope in transactions:
            await network.ledger.broadcast(envelope)
        codes = [await network.wait(tx_id) for tx_id, _ in transactions]
        places = [network.channel(SERVICE).transaction_place(tx_id) for tx_id, _ in transactions]
        assert len({place.block_number for place in places if place is not None}) == 1
        return codes

    return network.run(story())


def assert_goes_on(network: LedgerNetwork) -> None:
    """Check that all peers commit the next transaction, and agree on everything so far."""
    assert network.run(network.commit(put("after", b"1"))) == VALID
    assert len({network.channel(peer).store.commit_hash for peer in PEERS}) == 1


# --- form


def change_data(envelope: Any, change: Any) -> Any:
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    change(transaction)
    payload.data = transaction.SerializeToString()
    return payload.SerializeToString()


def no_actions(transaction: Any) -> None:
    del transaction.actions[:]


def garbage_action(transaction: Any) -> None:
    transaction.actions[0].payload = b"\xff"


def no_action(transaction: Any) -> None:
    endorsed = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    endorsed.ClearField("action")
    transaction.actions[0].payload = endorsed.SerializeToString()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_actions, NoVerdictReason.NO_ACTIONS),
        (garbage_action, NoVerdictReason.NOT_READABLE),
        (no_action, NoVerdictReason.NO_ACTION),
    ],
)
def test_a_malformed_transaction_before_good_ones_gets_its_code_and_harms_none(
    network: LedgerNetwork, caplog: pytest.LogCaptureFixture, change: Any, reason: NoVerdictReason
) -> None:
    tx_id, envelope = colluding(network, written(("a", b"1")))
    malformed = signed(network, change_data(envelope, change))

    codes = ordered(network, (tx_id, malformed), colluding(network, written(("b", b"1"))))

    assert codes == [INVALID_ENDORSER_TRANSACTION, VALID]
    assert reason in told(caplog)
    assert_goes_on(network)


def test_a_block_full_of_every_kind_of_envelope_is_judged_one_by_one(network: LedgerNetwork) -> None:
    twice = rwset_pb2.TxReadWriteSet(ns_rwset=[rwset_pb2.NsReadWriteSet(namespace="asset")] * 2)
    tx_id, envelope = colluding(network, written(("a", b"1")))
    burnt, other = colluding(network, written(("a", b"2")))
    payload = common_pb2.Payload.FromString(other.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.type = 77
    payload.header.channel_header = header.SerializeToString()
    transactions = [
        (tx_id, envelope),
        colluding(network, b"\xff"),
        colluding(network, twice.SerializeToString()),
        colluding(network, written(("a", b"1"), namespace="none")),
        colluding(network, written(("a", b"1")), [SERVICE]),
        (burnt, signed(network, payload.SerializeToString())),
    ]

    assert ordered(network, *transactions) == [
        VALID,
        BAD_RWSET,
        ILLEGAL_WRITESET,
        INVALID_CHAINCODE,
        ENDORSEMENT_POLICY_FAILURE,
        BAD_COMMON_HEADER,
    ]
    assert_goes_on(network)


def test_an_id_that_a_stranger_claimed_first_is_used(network: LedgerNetwork) -> None:
    """Whoever learns an id early can burn it; the answer to its owner is the stranger's verdict."""

    async def story() -> list[int]:
        endorsed = await network.endorse(put("a", b"1"))
        own = network.envelope(endorsed)
        payload = common_pb2.Payload.FromString(own.payload)
        header = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
        header.creator = network.client("BillingMSP", "agent").creator
        payload.header.signature_header = header.SerializeToString()
        content = payload.SerializeToString()
        stolen = encode_envelope(content, network.client("BillingMSP", "agent").sign(content))
        await network.ledger.broadcast(common_pb2.Envelope.FromString(stolen))
        first = await network.wait(endorsed.proposal.tx_id)
        height = network.channel(SERVICE).height
        await network.ledger.broadcast(own)
        await network.channel(SERVICE).wait_for_height(height)
        flags = network.channel(SERVICE).files.block(height).metadata.metadata[2]
        return [first, flags[0], await network.wait(endorsed.proposal.tx_id)]

    assert network.run(story()) == [8, 9, 8]
    assert network.run(network.evaluate(get("a"))) == b""


# --- private data


def private(content: bytes, *writes: tuple[str, bytes]) -> bytes:
    """Make a read-write set with these private writes to `pair`, by hash, behind which this content stands."""
    hashed = kv_rwset_pb2.HashedRWSet()
    for key, value in writes:
        hashed.hashed_writes.add(key_hash=sha256(key.encode()).digest(), value_hash=sha256(value).digest())
    result = rwset_pb2.TxReadWriteSet()
    entry = result.ns_rwset.add(namespace="asset")
    entry.collection_hashed_rwset.add(
        collection_name="pair", hashed_rwset=hashed.SerializeToString(), pvt_rwset_hash=sha256(content).digest()
    )
    return bytes(result.SerializeToString())


def hold(network: LedgerNetwork, tx_id: str, content: bytes) -> None:
    """Give the members private writes as if they had been endorsed."""
    message = rwset_pb2.TxPvtReadWriteSet()
    entry = message.ns_pvt_rwset.add(namespace="asset")
    entry.collection_pvt_rwset.add(collection_name="pair", rwset=content)
    for peer in (SERVICE, BILLING):
        network.channel(peer).store.add_transient(tx_id, message.SerializeToString(), 0)


def test_private_writes_that_cannot_be_read_are_kept_and_not_applied(
    network: LedgerNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    tx_id, envelope = colluding(network, private(b"\xff", ("p", b"1")))
    hold(network, tx_id, b"\xff")

    assert ordered(network, (tx_id, envelope)) == [VALID]

    channel = network.channel(BILLING)
    assert [writes.content for writes in channel.store.private_writes(channel.height - 1)] == [b"\xff"]
    assert not channel.store.missing(is_member=True)
    assert "private writes of collection pair of chaincode asset cannot be read" in told(caplog)
    assert "is not available" in network.run(network.refusal(get("p", "pair")))
    assert_goes_on(network)


def test_writes_to_a_collection_that_is_not_defined_are_refused_and_said(
    network: LedgerNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    builder = ReadWriteSetBuilder()
    builder.private_write("asset", "none", "a key", b"a secret")

    assert ordered(network, colluding(network, builder.public_bytes())) == [ENDORSEMENT_POLICY_FAILURE]

    assert told(caplog) == {NoVerdictReason.UNDEFINED_COLLECTION}
    assert "secret" not in caplog.text
    assert_goes_on(network)


def test_private_writes_without_a_hash_of_the_whole_are_missing_for_ever(network: LedgerNetwork) -> None:
    message = rwset_pb2.TxReadWriteSet.FromString(private(b"", ("p", b"1")))
    message.ns_rwset[0].collection_hashed_rwset[0].ClearField("pvt_rwset_hash")

    assert ordered(network, colluding(network, message.SerializeToString())) == [VALID]

    (missing,) = network.channel(SERVICE).store.missing(is_member=True)
    assert missing[2:] == ("asset", "pair")
    assert_goes_on(network)


# --- keys


def test_metadata_of_a_key_deleted_before_it_in_the_block_has_no_effect(
    network: LedgerNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    """An endorser cannot see it: the key is there when it is asked."""

    async def delete(stub: Stub) -> None:
        await stub.delete("a")

    async def note(stub: Stub) -> None:
        await stub.put_metadata("a", b"1")

    async def story() -> list[int]:
        assert await network.commit(put("a", b"1")) == VALID
        endorsed = [await network.endorse(behaviour) for behaviour in (delete, note)]
        for it in endorsed:
            await network.order(it)
        return [await network.wait(it.proposal.tx_id) for it in endorsed]

    assert network.run(story()) == [VALID, VALID]
    assert told(caplog) == {NoVerdictReason.METADATA_OF_DELETED}
    assert network.channel(SERVICE).store.value(("asset", "", b"a")) is None
    assert_goes_on(network)


def test_a_key_with_a_policy_that_cannot_be_read_is_locked_and_the_channel_goes_on(
    network: LedgerNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    builder = ReadWriteSetBuilder()
    builder.write("asset", "a", b"1")
    builder.write_metadata("asset", "a", {"VALIDATION_PARAMETER": b"\xff"})
    assert ordered(network, colluding(network, builder.public_bytes())) == [VALID]

    assert network.run(network.refusal(put("a", b"2"))) == (
        "error in simulation: error unmarshalling SignaturePolicyEnvelope: proto: cannot parse invalid wire-format data"
    )
    assert ordered(network, colluding(network, written(("a", b"2")), PEERS)) == [ENDORSEMENT_POLICY_FAILURE]
    assert told(caplog) == {NoVerdictReason.KEY_POLICY}
    assert_goes_on(network)


def test_one_key_written_twice_ends_as_on_real_peers(network: LedgerNetwork) -> None:
    """Flags of the two writes are added, and the sum reads as metadata alone."""
    public = kv_rwset_pb2.KVRWSet()
    for value in (b"1", b"2"):
        public.writes.add(key="new", value=value)
        public.writes.add(key="old", value=value)
    result = rwset_pb2.TxReadWriteSet()
    result.ns_rwset.add(namespace="asset", rwset=public.SerializeToString())
    assert network.run(network.commit(put("old", b"0"))) == VALID

    assert ordered(network, colluding(network, result.SerializeToString())) == [VALID]

    height = network.channel(SERVICE).height
    old = network.channel(SERVICE).store.value(("asset", "", b"old"))
    assert old is not None
    assert (old.value, old.version) == (b"0", (height - 1, 0))
    assert network.channel(SERVICE).store.value(("asset", "", b"new")) is None
    assert_goes_on(network)


# --- definitions


@pytest.mark.parametrize("field", ["Collections", "ValidationInfo", "Sequence"])
def test_a_definition_that_cannot_be_read_undefines_its_chaincode_and_nothing_else(
    network: LedgerNetwork, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    broken = written((field_key("other", field), b"\xff"), namespace=LIFECYCLE_NAMESPACE)
    proposal = network.proposal([b"nothing"], chaincode=LIFECYCLE_NAMESPACE)
    payload = response_payload(proposal, version="syscc", response=Response(200, "", b""), results=broken, event=None)
    identities = [network.peers[peer].node.identity for peer in LIFECYCLE]
    endorsements = [Endorsement(it.creator, it.sign(payload + it.creator)) for it in identities]
    transaction = (proposal.tx_id, signed(network, prepared_transaction(proposal, endorsements, payload)))

    assert ordered(network, transaction) == [VALID]
    codes = ordered(network, colluding(network, written(("a", b"1"), namespace="other")))

    assert codes == [INVALID_CHAINCODE]
    assert told(caplog) == {NoVerdictReason.DEFINITION}
    assert_goes_on(network)
