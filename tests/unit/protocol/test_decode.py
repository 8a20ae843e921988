"""Decoding of blocks: total, bounded, and one malformed transaction never hides the others."""

from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from network.protocol import limits
from network.protocol.decode import decode_block, decode_by_parts, decode_transaction
from network.protocol.envelope_view import view_envelope
from network.protocol.errors import DecodeError, LimitExceededError
from network.protocol.read_write_set import KeyRead, RangeQuery, Version, decode_read_write_set, decode_writes
from network.protocol.transaction import Defect
from tests.support.envelope import CHANGES, PLACES, change_inside, endorsed_results
from tests.support.recorded_chain import CHAINS, change_block, load_chain

RAFT = load_chain("fabric-3.1.5-raft")


@pytest.mark.parametrize(
    ("number", "defect"),
    [
        (34, Defect("Transaction", "0 actions instead of one")),
        (35, Defect("Transaction", "reserved wire type")),
        (41, Defect("Transaction", "2 actions instead of one")),
    ],
)
def test_says_where_reading_a_recorded_malformed_transaction_stopped(number: int, defect: Defect) -> None:
    (transaction,) = decode_block(RAFT.blocks[number]).transactions

    assert transaction.defect == defect
    assert transaction.tx_id
    assert transaction.creator
    assert transaction.action is None


def test_a_malformed_transaction_does_not_hide_its_neighbours() -> None:
    def insert(block: Any) -> None:
        good = block.data.data[0]
        block.data.data[:] = [b"\xff\xff", good, b""]

    block = decode_block(change_block(RAFT.blocks[6], insert))

    assert [transaction.defect is None for transaction in block.transactions] == [False, True, False]
    assert block.transactions[1].action is not None
    assert block.transactions[1].tx_number == 1


def test_reads_chaincode_function_event_and_endorsements() -> None:
    action = decode_block(RAFT.blocks[17]).transactions[0].action

    assert action is not None
    assert action.chaincode is not None
    assert action.chaincode.name == "ext"
    assert action.function
    assert action.event is not None
    assert action.event.chaincode == "ext"
    assert len(action.endorsements) == 2


def test_the_whole_read_write_set_agrees_with_its_writes() -> None:
    checked = 0
    for content in RAFT.blocks:
        block = decode_block(content)
        for transaction, envelope in zip(block.transactions, block.envelopes, strict=True):
            if transaction.action is None:
                continue
            whole = [
                namespace
                for namespace in decode_read_write_set(endorsed_results(envelope))
                if namespace.writes or namespace.metadata_writes or namespace.collections
            ]
            for full, writes in zip(whole, transaction.action.writes, strict=True):
                assert (full.namespace, full.writes, full.metadata_writes) == writes[:3]
                for collection, collection_writes in zip(full.collections, writes.collections, strict=True):
                    assert collection[:1] + collection[2:] == collection_writes
                checked += 1
    assert checked > 60


def test_reads_and_range_queries_are_decoded() -> None:
    sets = [
        namespace
        for block in map(decode_block, RAFT.blocks)
        for transaction, envelope in zip(block.transactions, block.envelopes, strict=True)
        if transaction.action
        for namespace in decode_read_write_set(endorsed_results(envelope))
    ]
    queries = [query for namespace in sets for query in namespace.range_queries]

    assert [(query.start_key, query.end_key, query.exhausted) for query in queries] == [
        ("bulk", "bulkc", True),
        ("ph0", "ph9", True),
    ]
    assert queries[0].merkle_summary is not None
    assert queries[0].merkle_summary[:2] == (50, 1)
    assert len(queries[0].merkle_summary[2]) == 2
    assert queries[1].raw_reads is None
    assert queries[1].merkle_summary is None
    assert any(read.version is None for namespace in sets for read in namespace.reads)
    assert any(read.version is not None for namespace in sets for read in namespace.reads)
    assert any(read.version for namespace in sets for part in namespace.collections for read in part.reads)


def test_raw_reads_of_a_range_are_decoded() -> None:
    reads = kv_rwset_pb2.QueryReads(kv_reads=[kv_rwset_pb2.KVRead(key="a", version={"block_num": 3, "tx_num": 1})])
    query = kv_rwset_pb2.RangeQueryInfo(start_key="a", end_key="b", itr_exhausted=False, raw_reads=reads)
    public = kv_rwset_pb2.KVRWSet(range_queries_info=[query]).SerializeToString()
    results = rwset_pb2.TxReadWriteSet(ns_rwset=[rwset_pb2.NsReadWriteSet(namespace="n", rwset=public)])

    (namespace,) = decode_read_write_set(results.SerializeToString())

    assert namespace.range_queries == (RangeQuery("a", "b", False, (KeyRead("a", Version(3, 1)),), None),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"not a block", "Block: "),
        (common_pb2.Block(header=common_pb2.BlockHeader(number=2**63)).SerializeToString(), "beyond 63 bits"),
    ],
)
def test_rejects_bytes_that_are_no_block(content: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_block(content)


def test_rejects_a_block_larger_than_any_peer_serves() -> None:
    with pytest.raises(LimitExceededError, match="bytes"):
        decode_block(bytes(limits.MAX_BLOCK_BYTES + 1))


def test_rejects_more_envelopes_than_the_limit() -> None:
    block = common_pb2.Block(header=common_pb2.BlockHeader(number=1))
    block.data.data.extend([b""] * (limits.MAX_TRANSACTIONS_PER_BLOCK + 1))

    with pytest.raises(LimitExceededError, match="envelopes"):
        decode_block(block.SerializeToString())


def test_rejects_more_metadata_slots_than_the_limit() -> None:
    block = common_pb2.Block(header=common_pb2.BlockHeader(number=1))
    block.metadata.metadata.extend([b""] * (limits.MAX_METADATA_SLOTS + 1))

    with pytest.raises(LimitExceededError, match="slots"):
        decode_block(block.SerializeToString())


def test_rejects_a_commit_hash_of_another_length() -> None:
    def shorten(block: Any) -> None:
        block.metadata.metadata[4] = common_pb2.Metadata(value=b"short").SerializeToString()

    with pytest.raises(DecodeError, match="commit hash of 5 bytes"):
        decode_block(change_block(RAFT.blocks[6], shorten))


def test_a_block_without_commit_hash_has_none() -> None:
    assert decode_block(RAFT.blocks[0]).commit_hash is None


@given(st.binary(max_size=400))
def test_any_bytes_are_a_block_or_our_error(content: bytes) -> None:
    try:
        block = decode_block(content)
    except DecodeError:
        return
    assert len(block.transactions) == len(block.envelopes)


@settings(max_examples=300)
@given(st.data())
def test_a_recorded_block_with_spoiled_bytes_is_a_block_or_our_error(data: st.DataObject) -> None:
    content = bytearray(RAFT.blocks[data.draw(st.sampled_from([6, 17, 25, 45, 62, 65]))])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    try:
        block = decode_block(bytes(content))
    except DecodeError:
        return
    assert len(block.transactions) == len(block.envelopes)


@given(st.binary(max_size=300))
def test_any_envelope_is_a_transaction(envelope: bytes) -> None:
    transaction = decode_transaction(3, envelope)

    assert transaction.tx_number == 3
    assert transaction.action is None or transaction.defect is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_read_write_set_or_our_error(content: bytes) -> None:
    try:
        writes = decode_writes(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_read_write_set(content)
        return
    changed = [
        entry for entry in decode_read_write_set(content) if entry.writes or entry.metadata_writes or entry.collections
    ]
    assert [entry.namespace for entry in writes] == [entry.namespace for entry in changed]


ORDINARY = decode_block(RAFT.blocks[17]).envelopes[0]
"""With public and private writes, an event and two endorsements."""


@pytest.mark.parametrize("name", CHAINS)
def test_one_parse_reads_what_reading_part_by_part_does(name: str) -> None:
    envelopes = [envelope for content in load_chain(name).blocks for envelope in decode_block(content).envelopes]

    assert [decode_transaction(5, envelope) for envelope in envelopes] == [decode_by_parts(5, e) for e in envelopes]
    # And it is the way that nearly all are read.
    assert sum(view_envelope(envelope) is None for envelope in envelopes) <= 4


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_an_envelope_in_an_odd_form_is_read_as_part_by_part(place: str, change: str) -> None:
    odd = change_inside(ORDINARY, PLACES[place], CHANGES[change])

    assert decode_transaction(1, odd) == decode_by_parts(1, odd)


@settings(max_examples=300)
@given(st.data())
def test_an_envelope_with_spoiled_bytes_is_read_as_part_by_part(data: st.DataObject) -> None:
    spoiled = bytearray(ORDINARY)
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))

    assert decode_transaction(1, bytes(spoiled)) == decode_by_parts(1, bytes(spoiled))
