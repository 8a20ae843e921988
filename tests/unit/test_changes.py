"""From a verified block to its changes: who did what, what counts, in which order."""

import tracemalloc
from hashlib import sha256
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from kvr_sync.changes import extract_changes
from kvr_sync.decode import decode_block
from kvr_sync.model import BlockChanges, EventFacts, LedgerKey, Write, WriteKind
from kvr_sync.verify import ChainVerifier
from network.protocol.read_write_set import MetadataEntry
from network.protocol.transaction import ChaincodeId
from tests.support.chain_factory import (
    BEGINNING,
    ChainFactory,
    TransactionSpec,
    WriteSpec,
    delete,
    purge,
    put,
    serialize,
    set_metadata,
)
from tests.support.envelope import change_headers
from tests.support.recorded_chain import load_chain

BAD_CREATOR_SIGNATURE = 4
ENDORSEMENT_POLICY_FAILURE = 10
MVCC_READ_CONFLICT = 11


@pytest.fixture(scope="module")
def factory() -> ChainFactory:
    return ChainFactory()


def last_changes(factory: ChainFactory) -> BlockChanges:
    """Verify a chain and give the changes of its newest block."""
    verifier = ChainVerifier()
    return [extract_changes(verifier.verify(decode_block(content), content)) for content in factory.blocks][-1]


def changes_of(factory: ChainFactory, *transactions: TransactionSpec) -> BlockChanges:
    factory.block(transactions)
    return last_changes(factory)


def hashed(text: str) -> bytes:
    return sha256(text.encode()).digest()


def with_creator(factory: ChainFactory, creator: bytes) -> bytes:
    """Give an envelope that a stranger signed."""

    def change(_: Any, signature_header: Any) -> None:
        signature_header.creator = creator

    return change_headers(factory.envelope(TransactionSpec([put("a", b"1")])), change)


# --- what counts


def test_writes_of_valid_transactions_and_of_refused_ones_are_kept_apart(factory: ChainFactory) -> None:
    changes = changes_of(
        factory,
        TransactionSpec([put("a", b"1")]),
        TransactionSpec([put("a", b"2"), delete("b")], code=MVCC_READ_CONFLICT),
        TransactionSpec([put("c", b"3")]),
        TransactionSpec([put("d", b"4")], code=200),  # a verdict that no version knows
    )

    assert [(write.tx_number, write.key.key, write.value) for write in changes.writes] == [
        (0, b"a", b"1"),
        (2, b"c", b"3"),
    ]
    assert [(write.tx_number, write.key.key, write.value) for write in changes.refused] == [
        (1, b"a", b"2"),
        (1, b"b", b""),
        (3, b"d", b"4"),
    ]
    assert [facts.validation_code for facts in changes.transactions] == [0, MVCC_READ_CONFLICT, 0, 200]


def test_events_are_those_of_valid_transactions(factory: ChainFactory) -> None:
    changes = changes_of(
        factory,
        TransactionSpec([put("a", b"1")], code=ENDORSEMENT_POLICY_FAILURE, event=("refused", b"0")),
        TransactionSpec([put("a", b"1")], event=("opened", b"payload")),
        TransactionSpec([put("a", b"2")]),
    )

    assert changes.events == (EventFacts(1, "ext", "opened", b"payload"),)


def test_a_configuration_is_a_change_and_holds_no_writes() -> None:
    factory = ChainFactory()
    factory.config_block()

    changes = last_changes(factory)

    assert changes.config is not None
    assert changes.config.sequence == 1
    assert (changes.writes, changes.refused, changes.events) == ((), (), ())
    assert changes.transactions[0].chaincode is None
    assert changes.transactions[0].endorsers == ()


# --- the order and the numbers of writes


def test_writes_are_numbered_across_namespaces_and_collections_in_the_order_of_the_set(factory: ChainFactory) -> None:
    transaction = TransactionSpec(
        [
            put("z", b"1"),
            set_metadata("z", {"VALIDATION_PARAMETER": b"policy"}),
            put("private", b"2", collection="second"),
            put("private", b"3", collection="first"),
            set_metadata("private", {}, collection="first"),
            put("far", b"4", namespace="another"),
            delete("a"),
        ]
    )

    changes = changes_of(factory, transaction, TransactionSpec([put("next", b"5")]))

    first = hashed("private")
    assert changes.writes == (
        Write(0, 0, LedgerKey("another", "", b"far"), WriteKind.PUT, b"4"),
        Write(0, 1, LedgerKey("ext", "", b"z"), WriteKind.PUT, b"1"),
        Write(0, 2, LedgerKey("ext", "", b"a"), WriteKind.DELETE, b""),
        Write(
            0,
            3,
            LedgerKey("ext", "", b"z"),
            WriteKind.METADATA,
            b"",
            (MetadataEntry("VALIDATION_PARAMETER", b"policy"),),
        ),
        Write(0, 4, LedgerKey("ext", "first", first), WriteKind.PUT, sha256(b"3").digest()),
        Write(0, 5, LedgerKey("ext", "first", first), WriteKind.METADATA_REMOVED, b""),
        Write(0, 6, LedgerKey("ext", "second", first), WriteKind.PUT, sha256(b"2").digest()),
        Write(1, 0, LedgerKey("ext", "", b"next"), WriteKind.PUT, b"5"),
    )


def test_refused_writes_are_numbered_by_themselves(factory: ChainFactory) -> None:
    changes = changes_of(
        factory,
        TransactionSpec([put("a", b"1"), put("b", b"2")]),
        TransactionSpec([put("a", b"1"), put("b", b"2")], code=MVCC_READ_CONFLICT),
        TransactionSpec([put("c", b"3"), put("d", b"4")]),
    )

    assert [(write.tx_number, write.write_number) for write in changes.writes] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert [(write.tx_number, write.write_number) for write in changes.refused] == [(1, 0), (1, 1)]


# --- kinds


@pytest.mark.parametrize(
    ("write", "kind", "value"),
    [
        (put("k", b"v"), WriteKind.PUT, b"v"),
        (put("k", b""), WriteKind.DELETE, b""),  # an empty value is no value
        (delete("k"), WriteKind.DELETE, b""),
        (set_metadata("k", {"a": b"b"}), WriteKind.METADATA, b""),
        (set_metadata("k", {"a": b""}), WriteKind.METADATA, b""),
        (set_metadata("k", {}), WriteKind.METADATA_REMOVED, b""),
        (put("k", b"v", collection="c"), WriteKind.PUT, sha256(b"v").digest()),
        (put("k", b"", collection="c"), WriteKind.DELETE, b""),  # the hash of nothing
        (delete("k", collection="c"), WriteKind.DELETE, b""),
        (purge("k", collection="c"), WriteKind.PURGE, b""),
        (WriteSpec("k", b"v", "c", is_purge=True), WriteKind.PUT, sha256(b"v").digest()),
        (set_metadata("k", {"a": b"b"}, collection="c"), WriteKind.METADATA, b""),
        (set_metadata("k", {}, collection="c"), WriteKind.METADATA_REMOVED, b""),
    ],
    ids=[
        "put",
        "put of nothing",
        "delete",
        "metadata",
        "empty metadata entry",
        "metadata removed",
        "private put",
        "private put of nothing",
        "private delete",
        "purge",
        "a purge flag beside a value",
        "private metadata",
        "private metadata removed",
    ],
)
def test_tells_what_kind_of_write_it_is(write: WriteSpec, kind: WriteKind, value: bytes, factory: ChainFactory) -> None:
    changes = changes_of(factory, TransactionSpec([write]))

    key = LedgerKey("ext", write.collection, hashed("k") if write.collection else b"k")
    entries = tuple([MetadataEntry(*entry) for entry in (write.metadata or {}).items()])
    assert changes.writes == (Write(0, 0, key, kind, value, entries),)


# --- facts of transactions


def test_keeps_who_called_what_and_when(factory: ChainFactory) -> None:
    spec = TransactionSpec([put("a", b"1")], function=b"open", tx_id="t1", chaincode="service", organisation=1)

    facts = changes_of(factory, spec).transactions[0]

    creator = factory.organisations[1].client.identity
    assert (facts.tx_number, facts.tx_id, facts.header_type, facts.validation_code) == (0, "t1", 3, 0)
    assert (facts.creator, facts.msp_id) == (creator, "CustomerMSP")
    assert (facts.chaincode, facts.function) == (ChaincodeId("service", "1.0"), b"open")
    assert facts.seconds is not None
    assert facts.seconds >= BEGINNING
    assert facts.defect is None


def test_keeps_the_endorsers_in_the_order_of_their_endorsements(factory: ChainFactory) -> None:
    refused = TransactionSpec([put("a", b"1")], code=ENDORSEMENT_POLICY_FAILURE)
    unreadable = TransactionSpec(envelope=serialize(common_pb2.Envelope(payload=b"\xff", signature=b"s")), code=2)

    changes = changes_of(factory, TransactionSpec([put("a", b"1")]), refused, unreadable)

    peers = tuple([organisation.peer.identity for organisation in factory.organisations])
    assert len(set(peers)) > 1
    assert [facts.endorsers for facts in changes.transactions] == [peers, peers, ()]


@pytest.mark.parametrize("creator", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b""])
def test_a_creator_that_is_no_identity_has_no_msp_and_is_kept_as_it_is(creator: bytes, factory: ChainFactory) -> None:
    envelope = with_creator(factory, creator)

    facts = changes_of(factory, TransactionSpec(envelope=envelope, code=BAD_CREATOR_SIGNATURE)).transactions[0]

    assert (facts.creator, facts.msp_id) == (creator, "")
    assert facts.validation_code == BAD_CREATOR_SIGNATURE


def test_a_transaction_that_cannot_be_read_hides_no_other_and_says_where_reading_stopped(factory: ChainFactory) -> None:
    rubbish = serialize(common_pb2.Envelope(payload=b"\xff secret rubbish", signature=b"s"))

    changes = changes_of(
        factory, TransactionSpec([put("a", b"1")]), TransactionSpec(envelope=rubbish, code=2), TransactionSpec()
    )

    facts = changes.transactions[1]
    assert [entry.tx_number for entry in changes.transactions] == [0, 1, 2]
    assert [write.tx_number for write in changes.writes] == [0]
    assert (facts.tx_id, facts.creator, facts.chaincode, facts.seconds) == ("", b"", None, None)
    assert facts.defect is not None
    assert facts.defect.startswith("Payload: ")
    assert "secret" not in facts.defect


def test_creators_of_any_size_leave_nothing_behind_in_memory() -> None:
    factory = ChainFactory()
    size = 1 << 19
    strangers = [
        TransactionSpec(envelope=with_creator(factory, bytes([number]) * size), code=BAD_CREATOR_SIGNATURE)
        for number in range(1, 7)
    ]
    content = factory.block(strangers)
    verifier = ChainVerifier()
    verifier.verify(decode_block(factory.genesis()), factory.genesis())
    tracemalloc.start()
    try:
        extract_changes(verifier.verify(decode_block(content), content))

        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < size


@pytest.mark.parametrize("name", ["fabric-3.1.5-raft", "fabric-3.1.5-bft"])
def test_everything_that_real_peers_wrote_has_changes(name: str) -> None:
    chain = load_chain(name)
    verifier = ChainVerifier()

    changes = [extract_changes(verifier.verify(decode_block(content), content)) for content in chain.blocks]

    codes = [facts.validation_code for block in changes for facts in block.transactions]
    assert len(codes) == len(chain.expected["transactions"])
    assert {kind for block in changes for kind in (write.kind for write in block.writes)} == {
        WriteKind.PUT,
        WriteKind.DELETE,
        WriteKind.PURGE,
        WriteKind.METADATA,
    }
